//! Threads that do what may block on a disk, with the user's rights only.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;
use rustix::thread::{CapabilitySet, CapabilitySets};
use skerry_protocol::methods::{TrustInstallParams, TrustInstalled};
use skerry_protocol::{Failure, Text};

use crate::accounts::Account;
use crate::core::{FileCall, Ticket};
use crate::files::{self, Chunk, FileValue};
use crate::trust::Trust;

/// So many work on a burst of calls that do not block.
const USUAL_THREADS: usize = 4;
/// 64 reads and 64 writes of streams may block at once, and still others get their turn.
const MAX_THREADS: usize = 160;
/// When jobs wait and none was begun for so long, the threads are blocked: there must be another.
const STALL: Duration = Duration::from_millis(20);
const STACK_BYTES: usize = 128 * 1024;
/// How long a thread waits for more to do. The last one stays.
const IDLE: Duration = Duration::from_secs(10);

pub enum Job {
    Call(Ticket, FileCall),
    Read {
        stream: u32,
        file: Arc<OwnedFd>,
        room: usize,
    },
    Write {
        stream: u32,
        file: Arc<OwnedFd>,
        chunks: Vec<Vec<u8>>,
    },
    /// Closing can block too.
    Close(Arc<OwnedFd>),
}

pub enum Done {
    Call(Ticket, FileCall, Result<FileValue, Failure>),
    TrustInstalled(Ticket, Result<TrustInstalled, Failure>),
    Read { stream: u32, result: Result<Chunk, Errno> },
    Write { stream: u32, result: Result<usize, Errno> },
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    done: Vec<Done>,
    idle: usize,
    threads: usize,
    /// Jobs begun since the start.
    begun: u64,
}

struct Shared {
    state: Mutex<State>,
    wake: Condvar,
    /// Readable when something is done.
    event: OwnedFd,
    account: Account,
    /// Threads give up root's rights.
    privileged: bool,
}

pub struct Pool {
    shared: Arc<Shared>,
    /// When to look whether jobs are stuck, and how many had begun when that was decided.
    watch: Option<(Instant, u64)>,
}

impl Pool {
    pub fn new(account: Account, privileged: bool) -> rustix::io::Result<Pool> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let (state, wake) = (Mutex::default(), Condvar::new());
        let shared = Arc::new(Shared { state, wake, event, account, privileged });
        Ok(Pool { shared, watch: None })
    }

    /// Becomes readable when [`Pool::take_done`] has something.
    pub fn event(&self) -> &OwnedFd {
        &self.shared.event
    }

    pub fn submit(&mut self, job: Job) {
        let mut state = self.shared.lock();
        state.jobs.push_back(job);
        if state.idle >= state.jobs.len() {
            drop(state);
            self.shared.wake.notify_one();
        } else if state.threads < USUAL_THREADS {
            state.threads += 1;
            drop(state);
            self.start_thread();
        } else if self.watch.is_none() {
            self.watch = Some((Instant::now() + STALL, state.begun));
        }
    }

    /// When [`Pool::keep_moving`] is to be called.
    pub fn next_look(&self) -> Option<Instant> {
        self.watch.map(|(at, _)| at)
    }

    /// Adds a thread if all are blocked while jobs wait.
    pub fn keep_moving(&mut self, now: Instant) {
        let Some((_, begun)) = self.watch.filter(|(at, _)| *at <= now) else { return };
        let mut state = self.shared.lock();
        if state.jobs.is_empty() {
            self.watch = None;
            return;
        }
        self.watch = Some((now + STALL, state.begun));
        if state.begun == begun && state.threads < MAX_THREADS {
            state.threads += 1;
            drop(state);
            self.start_thread();
        }
    }

    fn start_thread(&self) {
        let shared = self.shared.clone();
        let thread = std::thread::Builder::new().stack_size(STACK_BYTES).spawn(move || shared.work());
        if thread.is_err() {
            let mut state = self.shared.lock();
            state.threads -= 1;
            if state.threads == 0 {
                // Nobody is left to do it.
                let refused: Vec<Job> = state.jobs.drain(..).collect();
                state.done.extend(refused.into_iter().filter_map(|job| refuse(job, Errno::AGAIN)));
                drop(state);
                self.shared.signal();
            }
        }
    }

    /// Changes what the guest trusts, in a thread of its own, which keeps our rights.
    pub fn install_trust(&self, ticket: Ticket, trust: Arc<Trust>, params: Box<TrustInstallParams>) {
        let shared = self.shared.clone();
        let thread = std::thread::Builder::new().stack_size(STACK_BYTES).spawn(move || {
            let result = trust.install(&params);
            shared.finish(Done::TrustInstalled(ticket, result));
        });
        if let Err(error) = thread {
            let errno = error.raw_os_error().unwrap_or(libc::EAGAIN);
            let failure = Failure::errno(errno, "start", &Text::from("a thread"));
            self.shared.finish(Done::TrustInstalled(ticket, Err(failure)));
        }
    }

    pub fn take_done(&self) -> Vec<Done> {
        let mut count = [0; 8];
        let _ = rustix::io::read(&self.shared.event, &mut count);
        std::mem::take(&mut self.shared.lock().done)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Panics end the whole process, so no thread can have left the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn signal(&self) {
        let _ = rustix::io::write(&self.event, &1_u64.to_ne_bytes());
    }

    fn work(&self) {
        let mine = if self.privileged { give_up_rights(&self.account) } else { Ok(()) };
        while let Some(job) = self.next_job() {
            let done = match mine {
                Ok(()) => perform(job, &self.account.home),
                Err(errno) => refuse(job, errno),
            };
            if let Some(done) = done {
                self.finish(done);
            }
        }
    }

    fn finish(&self, done: Done) {
        let mut state = self.lock();
        let first = state.done.is_empty();
        state.done.push(done);
        drop(state);
        if first {
            self.signal();
        }
    }

    /// None: there was nothing to do for a while, and the thread ends.
    fn next_job(&self) -> Option<Job> {
        let mut state = self.lock();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                state.begun += 1;
                return Some(job);
            }
            state.idle += 1;
            let (after, waited) = self.wake.wait_timeout(state, IDLE).unwrap_or_else(PoisonError::into_inner);
            state = after;
            state.idle -= 1;
            if waited.timed_out() && state.jobs.is_empty() && state.threads > 1 {
                state.threads -= 1;
                return None;
            }
        }
    }
}

/// Makes the calling thread, and no other, act as the account.
///
/// Each of these is a system call of its own, which changes one thread; the C library's functions of these names change
/// all threads of the process. Source: setresuid(2), "C library/kernel differences".
fn give_up_rights(account: &Account) -> Result<(), Errno> {
    let none = CapabilitySet::empty();
    rustix::thread::set_thread_groups(&account.groups)?;
    rustix::thread::set_thread_res_gid(account.gid, account.gid, account.gid)?;
    rustix::thread::set_thread_res_uid(account.uid, account.uid, account.uid)?;
    rustix::thread::set_capabilities(
        None,
        CapabilitySets { effective: none, permitted: none, inheritable: none },
    )
}

fn perform(job: Job, home: &[u8]) -> Option<Done> {
    match job {
        Job::Call(ticket, call) => {
            let result = files::run(&call, home);
            Some(Done::Call(ticket, call, result))
        }
        Job::Read { stream, file, room } => {
            Some(Done::Read { stream, result: files::read_chunk(&file, room) })
        }
        Job::Write { stream, file, chunks } => {
            Some(Done::Write { stream, result: files::write_chunks(&file, &chunks) })
        }
        Job::Close(file) => {
            drop(file);
            None
        }
    }
}

fn refuse(job: Job, errno: Errno) -> Option<Done> {
    match job {
        Job::Call(ticket, call) => {
            let failure = Failure::errno(errno.raw_os_error(), "work on", &Text::from("files"));
            Some(Done::Call(ticket, call, Err(failure)))
        }
        Job::Read { stream, .. } => Some(Done::Read { stream, result: Err(errno) }),
        Job::Write { stream, .. } => Some(Done::Write { stream, result: Err(errno) }),
        Job::Close(_) => None,
    }
}
