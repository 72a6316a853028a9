//! The only unsafe code: starting a program in a child that shares our memory, and signals.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

use rustix::io::Errno;
use rustix::process::{Gid, Pid, Resource, Rlimit, Uid};

/// The account that a program runs as.
#[derive(Clone, Copy)]
pub struct Identity<'a> {
    pub uid: Uid,
    pub gid: Gid,
    pub groups: &'a [Gid],
}

/// Everything a child needs; it must not allocate between `clone` and `execve`.
pub struct Program<'a> {
    pub stdin: BorrowedFd<'a>,
    pub stdout: BorrowedFd<'a>,
    pub stderr: BorrowedFd<'a>,
    pub identity: Option<Identity<'a>>,
    pub cwd: &'a CStr,
    /// Where to go when `cwd` does not exist.
    pub other_cwd: Option<&'a CStr>,
    /// Tried one after the other, as `execvp` does.
    pub candidates: &'a [&'a CStr],
    pub args: &'a [&'a CStr],
    pub env: &'a [&'a CStr],
    /// The limit to give back, if ours was raised.
    pub open_files: Option<Rlimit>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpawnError {
    /// No process could be made.
    Clone(Errno),
    /// The account or the session could not be set up.
    Prepare(Errno),
    Cwd(Errno),
    Exec(Errno),
}

/// Memory for a child's stack until it has its own; one at a time, since our thread waits for it.
pub struct ChildStack(Vec<MaybeUninit<u128>>);

impl ChildStack {
    const BYTES: usize = 64 * 1024;

    pub fn new() -> ChildStack {
        ChildStack(vec![MaybeUninit::uninit(); Self::BYTES / size_of::<u128>()])
    }

    fn top(&mut self) -> *mut c_void {
        self.0.as_mut_ptr_range().end.cast()
    }
}

struct Child<'a> {
    program: &'a Program<'a>,
    args: &'a [*const c_char],
    env: &'a [*const c_char],
    failed: Option<SpawnError>,
}

/// Starts a program, which leads a session and process group of its own. Returns when it runs or has failed.
///
/// The child shares our memory until `execve`, so no page table is copied, and this thread stands still meanwhile. That
/// is what `posix_spawn` does; it cannot change the user, so it is done by hand. Source: vfork(2), clone(2).
pub fn start(program: &Program<'_>, stack: &mut ChildStack) -> Result<Pid, SpawnError> {
    let terminated = |strings: &[&CStr]| -> Vec<*const c_char> {
        strings.iter().map(|string| string.as_ptr()).chain([ptr::null()]).collect()
    };
    let (args, env) = (terminated(program.args), terminated(program.env));
    let mut child = Child { program, args: &args, env: &env, failed: None };
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    // SAFETY: the stack outlives the child's use of it, because CLONE_VFORK lets us go on only after the child has called
    // execve or exited; so does `child`. `run_child` only makes system calls, and never returns to a caller.
    let pid = unsafe { libc::clone(run_child, stack.top(), flags, (&raw mut child).cast()) };
    if pid < 0 {
        return Err(SpawnError::Clone(last_errno()));
    }
    let Some(pid) = Pid::from_raw(pid) else { return Err(SpawnError::Clone(Errno::AGAIN)) };
    match child.failed {
        None => Ok(pid),
        Some(error) => {
            // It has exited or is about to.
            let _ = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty());
            Err(error)
        }
    }
}

extern "C" fn run_child(argument: *mut c_void) -> c_int {
    // SAFETY: `start` passes a pointer to a `Child` that it keeps until we are gone, and does not touch it meanwhile.
    let child = unsafe { &mut *argument.cast::<Child<'_>>() };
    child.failed = Some(become_program(child));
    // SAFETY: `_exit` takes any number and does not return; nothing of the parent is flushed or freed.
    unsafe { libc::_exit(127) }
}

/// Returns only if something failed. Makes no allocation and takes no lock: other threads may hold one for ever here.
fn become_program(child: &Child<'_>) -> SpawnError {
    let program = child.program;
    match prepare(program) {
        Err(errno) => SpawnError::Prepare(errno),
        Ok(()) => match enter_cwd(program) {
            Err(errno) => SpawnError::Cwd(errno),
            Ok(()) => SpawnError::Exec(execute(child)),
        },
    }
}

fn prepare(program: &Program<'_>) -> rustix::io::Result<()> {
    rustix::process::setsid()?;
    rustix::stdio::dup2_stdin(program.stdin)?;
    rustix::stdio::dup2_stdout(program.stdout)?;
    rustix::stdio::dup2_stderr(program.stderr)?;
    if let Some(limit) = program.open_files {
        rustix::process::setrlimit(Resource::Nofile, limit)?;
    }
    if let Some(Identity { uid, gid, groups }) = program.identity {
        rustix::thread::set_thread_groups(groups)?;
        rustix::thread::set_thread_res_gid(gid, gid, gid)?;
        rustix::thread::set_thread_res_uid(uid, uid, uid)?;
    }
    Ok(())
}

fn enter_cwd(program: &Program<'_>) -> rustix::io::Result<()> {
    match (rustix::process::chdir(program.cwd), program.other_cwd) {
        (Err(_), Some(other)) => rustix::process::chdir(other),
        (result, _) => result,
    }
}

fn execute(child: &Child<'_>) -> Errno {
    unblock_all_signals();
    let mut denied = false;
    for candidate in child.program.candidates {
        // SAFETY: all strings end with a zero byte, both arrays with a null pointer, and all of it outlives the call.
        unsafe { libc::execve(candidate.as_ptr(), child.args.as_ptr(), child.env.as_ptr()) };
        match last_errno() {
            Errno::ACCESS => denied = true,
            Errno::NOENT | Errno::NOTDIR | Errno::NODEV | Errno::STALE | Errno::TIMEDOUT => {}
            other => return other,
        }
    }
    if denied { Errno::ACCESS } else { Errno::NOENT }
}

fn last_errno() -> Errno {
    // SAFETY: the location is valid for every thread; a child that shares our memory uses that of its waiting parent.
    Errno::from_raw_os_error(unsafe { *libc::__errno_location() })
}

fn unblock_all_signals() {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset initialises the set, and sigprocmask only reads it.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, set.as_ptr(), ptr::null_mut());
    }
}

/// Prepares the signals of this process: SIGCHLD is told through the returned descriptor, and writes to a closed pipe or
/// beyond a file size limit are errors. Call it before any thread is started.
///
/// These signals are blocked, not ignored: what is ignored stays ignored in a program that is started, what is blocked is
/// unblocked with one system call. For the same reason signals that we were started with ignored get their defaults.
pub fn take_signals() -> rustix::io::Result<OwnedFd> {
    (1..=64).for_each(stop_ignoring);
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset initialises the set before it is used; signalfd returns a new descriptor that nobody else owns.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), libc::SIGCHLD);
        let descriptor = libc::signalfd(-1, set.as_ptr(), libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        if descriptor < 0 {
            return Err(last_errno());
        }
        libc::sigaddset(set.as_mut_ptr(), libc::SIGPIPE);
        libc::sigaddset(set.as_mut_ptr(), libc::SIGXFSZ);
        libc::sigprocmask(libc::SIG_SETMASK, set.as_ptr(), ptr::null_mut());
        Ok(OwnedFd::from_raw_fd(descriptor))
    }
}

/// Gives an ignored signal its default again.
///
/// By system call, since the C library hides two signals that it uses itself. A signal that cannot be changed is left.
fn stop_ignoring(signal: c_int) {
    /// The kernel's `struct sigaction`: handler, flags, restorer, mask.
    type Action = [usize; 4];
    const MASK_BYTES: usize = 8;
    let mut action: Action = [0; 4];
    let default: Action = [libc::SIG_DFL, 0, 0, 0];
    // SAFETY: both calls get pointers to an `Action` or null; SIG_DFL needs no handler to exist.
    unsafe {
        let null = ptr::null_mut::<Action>();
        let found = libc::syscall(libc::SYS_rt_sigaction, signal, null, &raw mut action, MASK_BYTES);
        if found == 0 && action[0] == libc::SIG_IGN {
            libc::syscall(libc::SYS_rt_sigaction, signal, &raw const default, null, MASK_BYTES);
        }
    }
}

/// Marks every descriptor from 3 on, so that no program inherits one that we were started with.
pub fn close_inherited_on_exec() {
    let (first, last) = (3_u32, u32::MAX);
    // SAFETY: changes a flag of descriptors only; none is closed.
    let done = unsafe { libc::syscall(libc::SYS_close_range, first, last, libc::CLOSE_RANGE_CLOEXEC) };
    if done == 0 {
        return;
    }
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else { return };
    for number in entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<c_int>().ok()) {
        if number >= 3 {
            // SAFETY: as above.
            unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
        }
    }
}

/// Keeps the allocator from holding one arena for each thread.
pub fn use_one_arena() {
    // SAFETY: sets a parameter of the allocator; called before any thread is started.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
}
