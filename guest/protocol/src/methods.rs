//! Names, parameters and values of the requests.

use serde::de::{Deserialize, Deserializer};
use serde::{Deserialize as DeserializeDerive, Serialize};
use serde_bytes::ByteBuf;

use crate::text::{EnvMap, Text};

pub const PROCESS_SPAWN: &str = "process.spawn";
pub const PROCESS_KILL: &str = "process.kill";
pub const PROCESS_LIST: &str = "process.list";
pub const STREAM_LIST: &str = "stream.list";
pub const ENV_UPDATE: &str = "env.update";
pub const ENV_ALL: &str = "env.all";
pub const FS_READ: &str = "fs.read";
pub const FS_WRITE: &str = "fs.write";
pub const FS_WRITE_OPEN: &str = "fs.write_open";
pub const FS_WRITE_CLOSE: &str = "fs.write_close";
pub const FS_READ_DIR: &str = "fs.read_dir";
pub const FS_MKDIR: &str = "fs.mkdir";
pub const FS_REMOVE: &str = "fs.remove";
pub const FS_STAT: &str = "fs.stat";
pub const SYSTEM_RECLAIM: &str = "system.reclaim";
pub const TRUST_INSTALL: &str = "trust.install";

/// Largest `inline_max` of `fs.read`.
pub const MAX_INLINE_READ: u64 = 4 * 1024 * 1024;

/// A missing field and nil both mean the type's default.
pub(crate) fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

fn or_true<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(true))
}

fn yes() -> bool {
    true
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, DeserializeDerive)]
#[serde(rename_all = "lowercase")]
pub enum Stdio {
    Piped,
    #[default]
    Null,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, DeserializeDerive)]
#[serde(rename_all = "lowercase")]
pub enum User {
    #[default]
    App,
    Root,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, DeserializeDerive)]
pub struct SpawnParams {
    pub command: Text,
    #[serde(default, deserialize_with = "or_default")]
    pub args: Vec<Text>,
    #[serde(default, deserialize_with = "or_default")]
    pub env: EnvMap,
    #[serde(default, deserialize_with = "or_default")]
    pub clear_env: bool,
    #[serde(default)]
    pub cwd: Option<Text>,
    #[serde(default, deserialize_with = "or_default")]
    pub stdin: bool,
    pub stdout: Stdio,
    pub stderr: Stdio,
    #[serde(default, deserialize_with = "or_default")]
    pub credit: u64,
    #[serde(default, deserialize_with = "or_default")]
    pub user: User,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, DeserializeDerive)]
pub struct Spawned {
    pub pid: u32,
    #[serde(default)]
    pub stdin: Option<u32>,
    #[serde(default)]
    pub stdout: Option<u32>,
    #[serde(default)]
    pub stderr: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, DeserializeDerive)]
pub struct KillParams {
    pub pid: u32,
    pub signal: String,
    #[serde(default, deserialize_with = "or_default")]
    pub group: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, DeserializeDerive)]
pub struct ExitStatus {
    pub code: u8,
    #[serde(default)]
    pub signal: Option<String>,
    #[serde(default, deserialize_with = "or_default")]
    pub oom: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, DeserializeDerive)]
pub struct ProcessEntry {
    pub pid: u32,
    pub command: Text,
    pub args: Vec<Text>,
    pub started_ms: u64,
    #[serde(default)]
    pub exit: Option<ExitStatus>,
    #[serde(default)]
    pub stdin: Option<u32>,
    #[serde(default)]
    pub stdout: Option<u32>,
    #[serde(default)]
    pub stderr: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, DeserializeDerive)]
pub struct ProcessList {
    pub processes: Vec<ProcessEntry>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, DeserializeDerive)]
#[serde(rename_all = "lowercase")]
pub enum StreamKind {
    Output,
    Input,
    File,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, DeserializeDerive)]
pub struct StreamEntry {
    pub stream: u32,
    pub kind: StreamKind,
    pub first: u64,
    pub next: u64,
    pub ended: bool,
    pub dropped: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, DeserializeDerive)]
pub struct StreamList {
    pub streams: Vec<StreamEntry>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, DeserializeDerive)]
pub struct EnvUpdateParams {
    #[serde(default, deserialize_with = "or_default")]
    pub set: EnvMap,
    #[serde(default, deserialize_with = "or_default")]
    pub unset: Vec<Text>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, DeserializeDerive)]
pub struct EnvAll {
    pub env: EnvMap,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, DeserializeDerive)]
pub struct ReadParams {
    pub path: Text,
    #[serde(default, deserialize_with = "or_default")]
    pub inline_max: u64,
    #[serde(default, deserialize_with = "or_default")]
    pub credit: u64,
}

/// Either the bytes or a stream that carries them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, DeserializeDerive)]
#[serde(untagged)]
pub enum ReadValue {
    Inline { data: ByteBuf },
    Stream { stream: u32, size: u64 },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, DeserializeDerive)]
pub struct WriteParams {
    pub path: Text,
    pub data: ByteBuf,
    #[serde(default, deserialize_with = "or_default")]
    pub append: bool,
    #[serde(default = "yes", deserialize_with = "or_true")]
    pub create: bool,
    #[serde(default, deserialize_with = "or_default")]
    pub create_new: bool,
    #[serde(default)]
    pub mode: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, DeserializeDerive)]
pub struct WriteOpenParams {
    pub path: Text,
    #[serde(default, deserialize_with = "or_default")]
    pub append: bool,
    #[serde(default = "yes", deserialize_with = "or_true")]
    pub create: bool,
    #[serde(default, deserialize_with = "or_default")]
    pub create_new: bool,
    #[serde(default)]
    pub mode: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, DeserializeDerive)]
pub struct StreamRef {
    pub stream: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, DeserializeDerive)]
pub struct WrittenSize {
    pub size: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, DeserializeDerive)]
pub struct PathParams {
    pub path: Text,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, DeserializeDerive)]
#[serde(rename_all = "lowercase")]
pub enum FileKind {
    File,
    Dir,
    Symlink,
    Other,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, DeserializeDerive)]
pub struct DirEntry {
    pub name: Text,
    pub kind: FileKind,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, DeserializeDerive)]
pub struct DirEntries {
    pub entries: Vec<DirEntry>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, DeserializeDerive)]
pub struct MkdirParams {
    pub path: Text,
    #[serde(default, deserialize_with = "or_default")]
    pub recursive: bool,
    #[serde(default)]
    pub mode: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, DeserializeDerive)]
pub struct RemoveParams {
    pub path: Text,
    #[serde(default, deserialize_with = "or_default")]
    pub recursive: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, DeserializeDerive)]
pub struct StatParams {
    pub path: Text,
    #[serde(default = "yes", deserialize_with = "or_true")]
    pub follow: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, DeserializeDerive)]
pub struct FileStat {
    pub kind: FileKind,
    pub size: u64,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub dev: u64,
    pub ino: u64,
    pub nlink: u64,
    pub rdev: u64,
    pub blksize: u64,
    pub blocks: u64,
    pub atime_ns: i64,
    pub mtime_ns: i64,
    pub ctime_ns: i64,
    #[serde(default)]
    pub birthtime_ns: Option<i64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, DeserializeDerive)]
pub struct Reclaimed {
    #[serde(default)]
    pub pid: Option<u32>,
    pub rss_bytes: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, DeserializeDerive)]
pub struct TrustInstallParams {
    pub certificate_pem: String,
    pub extra_roots_pem: String,
    #[serde(default, deserialize_with = "or_default")]
    pub env: EnvMap,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, DeserializeDerive)]
pub struct TrustInstalled {
    pub system: bool,
}
