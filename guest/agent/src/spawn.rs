//! From the parameters of `process.spawn` to a running process.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Resource, Rlimit};
use skerry_protocol::methods::{SpawnParams, Stdio, User};
use skerry_protocol::{Failure, Text};

use crate::accounts::Account;
use crate::sys::{ChildStack, Program, SpawnError, start};

const DEFAULT_PATH: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The agent itself may need a pipe for each of its streams.
const OPEN_FILES: u64 = 16_384;

/// Our ends of a new process's streams.
pub struct Ends {
    pub pid: u32,
    pub stdin: Option<OwnedFd>,
    pub stdout: Option<OwnedFd>,
    pub stderr: Option<OwnedFd>,
}

pub struct Spawner {
    app: Account,
    root: Account,
    /// We are root and may act as anybody.
    privileged: bool,
    null: OwnedFd,
    stack: ChildStack,
    /// What a process gets, if our own limit is another.
    open_files: Option<Rlimit>,
}

impl Spawner {
    pub fn new(app: Account, root: Account, privileged: bool) -> rustix::io::Result<Spawner> {
        let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Spawner { app, root, privileged, null, stack: ChildStack::new(), open_files: raise_open_files() })
    }

    pub fn app(&self) -> &Account {
        &self.app
    }

    pub fn spawn<'a>(
        &mut self,
        params: &'a SpawnParams,
        sandbox_env: impl Iterator<Item = (&'a Text, &'a Text)>,
    ) -> Result<Ends, Failure> {
        let account = match params.user {
            User::App => &self.app,
            User::Root if self.privileged => &self.root,
            User::Root => return Err(Failure::errno(libc::EPERM, "become", &Text::from("root"))),
        };
        let env = environment(account, params, sandbox_env);
        let path = env.get(&b"PATH"[..]).map(|path| &**path);
        let mut candidates = candidates(params.command.as_bytes(), path);
        candidates.retain(|candidate| may_exist(candidate));
        if candidates.is_empty() {
            return Err(explain(SpawnError::Exec(Errno::NOENT), params, c""));
        }
        let env: Vec<CString> =
            env.iter().map(|(name, value)| c_string([*name, b"=", value].concat())).collect();
        let args: Vec<CString> =
            std::iter::once(&params.command).chain(&params.args).map(|arg| c_string(arg.0.clone())).collect();
        let cwd = c_string(resolve(&account.home, params.cwd.as_ref()));

        let failed = |errno: Errno| Failure::errno(errno.raw_os_error(), "make a pipe for", &params.command);
        let stdin = if params.stdin { Some(pipe_into_child().map_err(failed)?) } else { None };
        let output = |stdio| match stdio {
            Stdio::Piped => pipe_from_child().map(Some).map_err(failed),
            Stdio::Null => Ok(None),
        };
        let (stdout, stderr) = (output(params.stdout)?, output(params.stderr)?);

        let program = Program {
            stdin: child_end(&stdin, &self.null),
            stdout: child_end(&stdout, &self.null),
            stderr: child_end(&stderr, &self.null),
            identity: self.privileged.then(|| account.identity()),
            cwd: &cwd,
            other_cwd: if params.cwd.is_none() { Some(c"/") } else { None },
            candidates: &borrowed(&candidates),
            args: &borrowed(&args),
            env: &borrowed(&env),
            open_files: self.open_files,
        };
        let pid = start(&program, &mut self.stack).map_err(|error| explain(error, params, &cwd))?;
        let ours = |pipe: Option<Pipe>| pipe.map(|pipe| pipe.ours);
        Ok(Ends {
            pid: pid.as_raw_nonzero().get().unsigned_abs(),
            stdin: ours(stdin),
            stdout: ours(stdout),
            stderr: ours(stderr),
        })
    }
}

struct Pipe {
    ours: OwnedFd,
    theirs: OwnedFd,
}

/// Our end does not block: the process can open it too and take bytes that we were told of.
fn unblocked(ours: OwnedFd, theirs: OwnedFd) -> rustix::io::Result<Pipe> {
    rustix::io::ioctl_fionbio(&ours, true)?;
    Ok(Pipe { ours, theirs })
}

fn pipe_from_child() -> rustix::io::Result<Pipe> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
    unblocked(read, write)
}

fn pipe_into_child() -> rustix::io::Result<Pipe> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
    unblocked(write, read)
}

fn child_end<'a>(pipe: &'a Option<Pipe>, null: &'a OwnedFd) -> BorrowedFd<'a> {
    pipe.as_ref().map_or(null.as_fd(), |pipe| pipe.theirs.as_fd())
}

fn borrowed(strings: &[CString]) -> Vec<&CStr> {
    strings.iter().map(CString::as_c_str).collect()
}

/// What contains a zero byte was refused before; cut there all the same.
fn c_string(bytes: Vec<u8>) -> CString {
    CString::new(bytes).unwrap_or_else(|error| {
        let end = error.nul_position();
        let mut bytes = error.into_vec();
        bytes.truncate(end);
        CString::new(bytes).unwrap_or_default()
    })
}

/// What a process of this account has that is not told otherwise.
pub fn base_environment(account: &Account) -> [(&'static [u8], &[u8]); 6] {
    [
        (b"HOME", &account.home),
        (b"USER", &account.name),
        (b"LOGNAME", &account.name),
        (b"SHELL", &account.shell),
        (b"PATH", DEFAULT_PATH),
        (b"LANG", b"C.UTF-8"),
    ]
}

/// Base, then the sandbox's, then the call's; or only the call's.
fn environment<'all, 'given: 'all>(
    account: &'all Account,
    params: &'given SpawnParams,
    sandbox_env: impl Iterator<Item = (&'given Text, &'given Text)>,
) -> BTreeMap<&'all [u8], &'all [u8]> {
    let mut env: BTreeMap<&[u8], &[u8]> = BTreeMap::new();
    if !params.clear_env {
        env.extend(base_environment(account));
        env.extend(sandbox_env.map(|(name, value)| (name.as_bytes(), value.as_bytes())));
    }
    env.extend(params.env.0.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())));
    env
}

/// The files to try for a command, as `execvp` would; see execvp(3).
fn candidates(command: &[u8], path: Option<&[u8]>) -> Vec<CString> {
    if command.is_empty() {
        return Vec::new();
    }
    if command.contains(&b'/') {
        return vec![c_string(command.to_vec())];
    }
    let in_directory = |directory: &[u8]| match directory {
        b"" => c_string([b"./", command].concat()),
        _ => c_string([directory, b"/", command].concat()),
    };
    path.unwrap_or(DEFAULT_PATH).split(|byte| *byte == b':').map(in_directory).collect()
}

/// False if the file is certainly not there, which costs less to ask than to fail to execute it. A relative path is
/// relative to where the process will be.
fn may_exist(candidate: &CStr) -> bool {
    let is_absolute = candidate.to_bytes().first() == Some(&b'/');
    let found = || rustix::fs::access(candidate, rustix::fs::Access::EXISTS);
    !(is_absolute && matches!(found(), Err(Errno::NOENT | Errno::NOTDIR)))
}

/// An absolute path, relative ones being below `home`.
pub fn resolve(home: &[u8], path: Option<&Text>) -> Vec<u8> {
    match path.map(Text::as_bytes) {
        None => home.to_vec(),
        Some(path) if path.starts_with(b"/") => path.to_vec(),
        Some(path) => [home, b"/", path].concat(),
    }
}

fn explain(error: SpawnError, params: &SpawnParams, cwd: &CStr) -> Failure {
    let (errno, doing, what) = match error {
        SpawnError::Clone(errno) => (errno, "make a process for", params.command.clone()),
        SpawnError::Prepare(errno) => (errno, "set up the process of", params.command.clone()),
        SpawnError::Cwd(errno) => (errno, "enter directory", Text(cwd.to_bytes().to_vec())),
        SpawnError::Exec(errno) => (errno, "execute", params.command.clone()),
    };
    Failure::errno(errno.raw_os_error(), doing, &what)
}

/// Raises our own limit of open files if it is low; answers what was there, to be given back to each process.
fn raise_open_files() -> Option<Rlimit> {
    let found = rustix::process::getrlimit(Resource::Nofile);
    if found.current.is_none_or(|current| current >= OPEN_FILES) {
        return None;
    }
    let raised =
        Rlimit { current: Some(found.maximum.map_or(OPEN_FILES, |most| most.min(OPEN_FILES))), ..found };
    rustix::process::setrlimit(Resource::Nofile, raised).ok().map(|()| found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(candidates: &[CString]) -> Vec<&str> {
        candidates.iter().map(|candidate| candidate.to_str().unwrap()).collect()
    }

    #[test]
    fn a_command_is_looked_up_like_execvp() {
        assert_eq!(shown(&candidates(b"ls", Some(b"/a:/b"))), ["/a/ls", "/b/ls"]);
        assert_eq!(shown(&candidates(b"ls", Some(b":/b"))), ["./ls", "/b/ls"]);
        assert_eq!(shown(&candidates(b"./ls", Some(b"/a"))), ["./ls"]);
        assert!(candidates(b"", Some(b"/a")).is_empty());
        assert_eq!(candidates(b"ls", None).len(), 6);
    }

    #[test]
    fn relative_paths_are_below_the_home() {
        assert_eq!(resolve(b"/home/app", None), b"/home/app");
        assert_eq!(resolve(b"/home/app", Some(&Text::from("x/y"))), b"/home/app/x/y");
        assert_eq!(resolve(b"/home/app", Some(&Text::from("/x"))), b"/x");
    }
}
