//! The file methods. They run in threads that have only the user's rights, and may take as long as the disk does.

use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Statx, StatxFlags};
use rustix::io::Errno;
use skerry_protocol::message::MAX_MESSAGE;
use skerry_protocol::methods::{
    DirEntry, FileKind, FileStat, MkdirParams, RemoveParams, StatParams, WriteOpenParams, WriteParams,
};
use skerry_protocol::{Failure, Text};

use crate::core::FileCall;
use crate::remove::remove_tree;
use crate::spawn::resolve;

const NEW_FILE: Mode = Mode::from_raw_mode(0o666);
const NEW_DIRECTORY: u32 = 0o777;
const READ_BYTES: usize = 256 * 1024;
/// How long a read waits for a pipe or device before it lets others have the thread; it is asked again then.
const READ_WAIT: Duration = Duration::from_secs(1);
/// How long a write waits for a pipe or device that takes nothing.
const WRITE_WAIT: Duration = Duration::from_secs(30);

/// How a file call ended well.
pub enum FileValue {
    Nothing,
    Data(Vec<u8>),
    /// Opened for reading as a stream, whose first bytes were read.
    Opened {
        file: OwnedFd,
        size: u64,
        head: Vec<u8>,
    },
    OpenedForWriting(OwnedFd),
    Entries(Vec<DirEntry>),
    Stat(FileStat),
}

/// Bytes of a file, and whether they are its last.
pub struct Chunk {
    pub bytes: Vec<u8>,
    pub at_end: bool,
}

/// Runs a call; relative paths are below `home`.
pub fn run(call: &FileCall, home: &[u8]) -> Result<FileValue, Failure> {
    let (path, doing) = match call {
        FileCall::Read { path, .. } => (path, "read"),
        FileCall::Write(WriteParams { path, .. }) => (path, "write"),
        FileCall::OpenForWriting(WriteOpenParams { path, .. }) => (path, "open for writing"),
        FileCall::ReadDir(path) => (path, "read directory"),
        FileCall::Mkdir(MkdirParams { path, .. }) => (path, "make directory"),
        FileCall::Remove(RemoveParams { path, .. }) => (path, "remove"),
        FileCall::Stat(StatParams { path, .. }) => (path, "stat"),
    };
    let full = resolve(home, Some(path));
    let result = match call {
        FileCall::Read { inline_max, .. } => read(&full, *inline_max),
        FileCall::Write(params) => {
            let open = WriteOpenParams {
                path: Text::default(),
                append: params.append,
                create: params.create,
                create_new: params.create_new,
                mode: params.mode,
            };
            open_for_writing(&full, &open)
                .and_then(|file| write_all(&file, &params.data))
                .map(|()| FileValue::Nothing)
        }
        FileCall::OpenForWriting(params) => open_for_writing(&full, params).map(FileValue::OpenedForWriting),
        FileCall::ReadDir(_) => return read_dir(&full, path),
        FileCall::Mkdir(params) => make_directory(&full, params).map(|()| FileValue::Nothing),
        FileCall::Remove(params) => remove_tree(&full, params.recursive).map(|()| FileValue::Nothing),
        FileCall::Stat(params) => stat(&full, params.follow).map(FileValue::Stat),
    };
    result.map_err(|errno| Failure::errno(errno.raw_os_error(), doing, path))
}

/// Opens without waiting: a pipe without a writer or a device must not hold the thread.
fn read(path: &[u8], inline_max: u64) -> Result<FileValue, Errno> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = rustix::fs::open(path, flags, Mode::empty())?;
    let stat = rustix::fs::fstat(&file)?;
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => return Err(Errno::ISDIR),
        FileType::RegularFile if size <= inline_max => {}
        _ => return Ok(FileValue::Opened { file, size, head: Vec::new() }),
    }
    // Files of /proc say that they are empty, others may be growing: read until the end or one byte too many.
    let most = inline_max as usize + 1;
    let mut head = Vec::new();
    let mut goal = (size as usize + 1).min(most);
    loop {
        head.try_reserve_exact(goal - head.len()).map_err(|_| Errno::NOMEM)?;
        while head.len() < goal {
            match rustix::io::read(&file, rustix::buffer::spare_capacity(&mut head)) {
                Ok(0) => return Ok(FileValue::Data(head)),
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
        if head.len() >= most {
            return Ok(FileValue::Opened { file, size, head });
        }
        goal = (head.len() * 2).max(4096).min(most);
    }
}

/// Reads the next bytes of a stream, at most `room`. No bytes and no end: there are none yet.
pub fn read_chunk(file: &OwnedFd, room: usize) -> Result<Chunk, Errno> {
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(room.min(READ_BYTES)).map_err(|_| Errno::NOMEM)?;
    loop {
        match rustix::io::read(file, rustix::buffer::spare_capacity(&mut bytes)) {
            Ok(count) => return Ok(Chunk { at_end: count == 0, bytes }),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) if wait_for(file, PollFlags::IN, READ_WAIT) => {}
            Err(Errno::AGAIN) => return Ok(Chunk { at_end: false, bytes }),
            Err(errno) => return Err(errno),
        }
    }
}

fn wait_for(file: &OwnedFd, what: PollFlags, longest: Duration) -> bool {
    let timeout = Timespec::try_from(longest).ok();
    matches!(poll(&mut [PollFd::new(file, what)], timeout.as_ref()), Ok(1))
}

fn open_for_writing(path: &[u8], params: &WriteOpenParams) -> Result<OwnedFd, Errno> {
    let mut flags = OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    flags |= if params.append { OFlags::APPEND } else { OFlags::TRUNC };
    if params.create || params.create_new {
        flags |= OFlags::CREATE;
    }
    if params.create_new {
        flags |= OFlags::EXCL;
    }
    let asked = params.mode.map(|mode| Mode::from_raw_mode(mode & 0o7777));
    let file = rustix::fs::open(path, flags, asked.unwrap_or(NEW_FILE))?;
    if let Some(mode) = asked {
        // Also for a file that was there, and whatever the umask.
        rustix::fs::fchmod(&file, mode)?;
    }
    Ok(file)
}

pub fn write_all(file: &OwnedFd, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match rustix::io::write(file, bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) if wait_for(file, PollFlags::OUT, WRITE_WAIT) => {}
            Err(Errno::AGAIN) => return Err(Errno::TIMEDOUT),
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Writes the chunks of a stream; says how many bytes that were.
pub fn write_chunks(file: &Arc<OwnedFd>, chunks: &[Vec<u8>]) -> Result<usize, Errno> {
    chunks.iter().try_for_each(|chunk| write_all(file, chunk))?;
    Ok(chunks.iter().map(Vec::len).sum())
}

fn read_dir(full: &[u8], path: &Text) -> Result<FileValue, Failure> {
    let failed = |error: std::io::Error| {
        Failure::errno(error.raw_os_error().unwrap_or(libc::EIO), "read directory", path)
    };
    let mut entries = Vec::new();
    let mut size = 0;
    for entry in std::fs::read_dir(std::ffi::OsStr::from_bytes(full)).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = Text(entry.file_name().as_bytes().to_vec());
        // Names and kinds of an entry, with what msgpack puts around them.
        size += name.as_bytes().len() + 32;
        if size > MAX_MESSAGE {
            return Err(Failure::new(
                Failure::TOO_LARGE,
                "the directory has too many entries for one answer",
            ));
        }
        let kind = match entry.file_type().map_err(failed)? {
            kind if kind.is_file() => FileKind::File,
            kind if kind.is_dir() => FileKind::Dir,
            kind if kind.is_symlink() => FileKind::Symlink,
            _ => FileKind::Other,
        };
        entries.push(DirEntry { name, kind });
    }
    Ok(FileValue::Entries(entries))
}

fn make_directory(path: &[u8], params: &MkdirParams) -> Result<(), Errno> {
    let mode = Mode::from_raw_mode(params.mode.unwrap_or(NEW_DIRECTORY) & 0o7777);
    if !params.recursive {
        return rustix::fs::mkdir(path, mode);
    }
    match make_or_find(path, mode) {
        Err(Errno::NOENT) => {}
        result => return result,
    }
    // Not by recursion: a path may have two thousand parts, and the stacks of these threads are small.
    let mut parts = (1..path.len()).filter(|end| path[*end] == b'/' && path[end - 1] != b'/');
    parts.try_for_each(|end| make_or_find(&path[..end], mode))?;
    make_or_find(path, mode)
}

fn make_or_find(path: &[u8], mode: Mode) -> Result<(), Errno> {
    match rustix::fs::mkdir(path, mode) {
        Err(errno @ (Errno::EXIST | Errno::ROFS | Errno::ACCESS)) => match rustix::fs::stat(path) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => Ok(()),
            _ => Err(errno),
        },
        result => result,
    }
}

fn stat(path: &[u8], follow: bool) -> Result<FileStat, Errno> {
    let flags = if follow { AtFlags::empty() } else { AtFlags::SYMLINK_NOFOLLOW };
    let found = rustix::fs::statx(CWD, path, flags, StatxFlags::BASIC_STATS | StatxFlags::BTIME)?;
    Ok(to_file_stat(&found))
}

fn to_file_stat(found: &Statx) -> FileStat {
    let nanoseconds = |time: rustix::fs::StatxTimestamp| {
        time.tv_sec.saturating_mul(1_000_000_000).saturating_add(i64::from(time.tv_nsec))
    };
    let has_birth_time = StatxFlags::from_bits_retain(found.stx_mask).contains(StatxFlags::BTIME);
    let mode = u32::from(found.stx_mode);
    FileStat {
        kind: match FileType::from_raw_mode(mode) {
            FileType::RegularFile => FileKind::File,
            FileType::Directory => FileKind::Dir,
            FileType::Symlink => FileKind::Symlink,
            _ => FileKind::Other,
        },
        size: found.stx_size,
        mode,
        uid: found.stx_uid,
        gid: found.stx_gid,
        dev: rustix::fs::makedev(found.stx_dev_major, found.stx_dev_minor),
        ino: found.stx_ino,
        nlink: u64::from(found.stx_nlink),
        rdev: rustix::fs::makedev(found.stx_rdev_major, found.stx_rdev_minor),
        blksize: u64::from(found.stx_blksize),
        blocks: found.stx_blocks,
        atime_ns: nanoseconds(found.stx_atime),
        mtime_ns: nanoseconds(found.stx_mtime),
        ctime_ns: nanoseconds(found.stx_ctime),
        birthtime_ns: has_birth_time.then(|| nanoseconds(found.stx_btime)),
    }
}
