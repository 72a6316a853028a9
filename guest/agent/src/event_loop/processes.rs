//! The ends of processes that the agent holds: their pipes, and their deaths.

use std::os::fd::OwnedFd;
use std::time::SystemTime;

use rustix::event::epoll;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions};
use skerry_protocol::methods::SpawnParams;
use skerry_protocol::{Failure, Text};

use super::{Agent, FIRST_STREAM};
use crate::core::{InputState, ProcessStreams, Ticket};
use crate::spawn::Ends;

/// Bytes read from one pipe in its turn.
pub(super) const PIPE_READ_BYTES: usize = 128 * 1024;
/// A pipe whose default 64 KiB were full once gets room for more, so that a busy writer waits less often.
const BUSY_PIPE_BYTES: usize = 256 * 1024;
const DEFAULT_PIPE_BYTES: usize = 64 * 1024;
/// Our end of a process's stdout or stderr.
pub(super) struct PipeSource {
    pipe: OwnedFd,
    /// Something may be there.
    readable: bool,
    /// All writers are gone: read until the end.
    hung_up: bool,
    /// Waits in `Agent::ready`.
    queued: bool,
    widened: bool,
}

impl Agent {
    pub(super) fn spawned(&mut self, ticket: Ticket, params: SpawnParams, ends: Ends) {
        let started = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let started_ms = started.as_millis().try_into().unwrap_or(u64::MAX);
        let ProcessStreams { stdin, stdout, stderr } =
            self.core.spawned(ticket, params, ends.pid, started_ms);
        for (stream, pipe) in [(stdout, ends.stdout), (stderr, ends.stderr)] {
            let (Some(stream), Some(pipe)) = (stream, pipe) else { continue };
            let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
            if let Err(errno) = self.watch(&pipe, stream, flags) {
                self.core
                    .output_failed(stream, &Failure::errno(errno.raw_os_error(), "watch", &Text::default()));
                continue;
            }
            let source = PipeSource { pipe, readable: false, hung_up: false, queued: false, widened: false };
            self.sources.insert(stream, source);
        }
        if let (Some(stream), Some(pipe)) = (stdin, ends.stdin) {
            // Only that the readers are gone is told now; a full pipe asks for more later.
            let watched = self.watch(&pipe, stream, epoll::EventFlags::ET);
            self.stdins.insert(stream, pipe);
            if let Err(errno) = watched {
                self.stdin_failed(stream, errno);
            }
        }
    }

    fn watch(&self, pipe: &OwnedFd, stream: u32, flags: epoll::EventFlags) -> rustix::io::Result<()> {
        epoll::add(&self.epoll, pipe, epoll::EventData::new_u64(FIRST_STREAM + u64::from(stream)), flags)
    }

    /// Collects children that have ended: those that were spawned, and as their reaper all orphans.
    ///
    /// This thread alone starts and collects children, so none of ours is collected before it is known.
    pub(super) fn reap(&mut self) {
        let mut discarded = [0; 1024];
        let _ = rustix::io::read(&self.signals, &mut discarded);
        loop {
            match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) => {
                    let pid = pid.as_raw_nonzero().get().unsigned_abs();
                    let signal = status.terminating_signal();
                    let code =
                        signal.map_or_else(|| status.exit_status().unwrap_or(0), |signal| 128 + signal);
                    self.core.process_exited(pid, code.to_le_bytes()[0], signal);
                }
                Err(Errno::INTR) => {}
                Ok(None) | Err(_) => return,
            }
        }
    }

    // Output of processes.

    /// Something happened to the pipe of a stream.
    pub(super) fn pipe_event(&mut self, stream: u32, flags: epoll::EventFlags) {
        if let Some(source) = self.sources.get_mut(&stream) {
            source.readable = true;
            source.hung_up |= flags.intersects(epoll::EventFlags::HUP | epoll::EventFlags::ERR);
            self.queue_source(stream);
        } else if flags.contains(epoll::EventFlags::ERR) {
            self.stdin_failed(stream, Errno::PIPE);
        } else {
            self.write_stdin(stream);
        }
    }

    pub(super) fn queue_source(&mut self, stream: u32) {
        if let Some(source) = self.sources.get_mut(&stream) {
            if source.readable && !source.queued {
                source.queued = true;
                self.ready.push_back(stream);
            }
        }
    }

    /// Reads a pipe once, and queues it again if there may be more.
    pub(super) fn read_source(&mut self, stream: u32) {
        let Some(source) = self.sources.get_mut(&stream) else { return };
        source.queued = false;
        let room = self.core.room(stream).min(self.scratch.len());
        if room == 0 {
            return;
        }
        match rustix::io::read(&source.pipe, &mut self.scratch[..room]) {
            Ok(0) => {
                self.sources.remove(&stream);
                self.core.output_ended(stream);
                return;
            }
            Ok(count) => {
                // A short read has emptied the pipe; the next bytes make a new event.
                source.readable = source.hung_up || count == room;
                if count >= DEFAULT_PIPE_BYTES && !source.widened {
                    source.widened = true;
                    let _ = rustix::pipe::fcntl_setpipe_size(&source.pipe, BUSY_PIPE_BYTES);
                }
                self.core.output_bytes(stream, &self.scratch[..count]);
            }
            Err(Errno::AGAIN) => source.readable = false,
            Err(Errno::INTR) => {}
            Err(errno) => {
                self.core
                    .output_failed(stream, &Failure::errno(errno.raw_os_error(), "read", &Text::default()));
                return;
            }
        }
        self.queue_source(stream);
    }

    // Input of processes.

    pub(super) fn write_stdin(&mut self, stream: u32) {
        let Some(pipe) = self.stdins.get(&stream) else { return };
        loop {
            let pending = self.core.input_pending(stream);
            let written = if pending.is_empty() { Ok(0) } else { rustix::io::write(pipe, pending) };
            match written {
                Ok(count) => {
                    if self.core.input_written(stream, count) == InputState::Complete {
                        self.stdins.remove(&stream);
                        return;
                    }
                    if count == 0 {
                        return;
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    let token = epoll::EventData::new_u64(FIRST_STREAM + u64::from(stream));
                    let flags = epoll::EventFlags::OUT | epoll::EventFlags::ET;
                    if let Err(errno) = epoll::modify(&self.epoll, pipe, token, flags) {
                        self.stdin_failed(stream, errno);
                    }
                    return;
                }
                Err(errno) => {
                    self.stdin_failed(stream, errno);
                    return;
                }
            }
        }
    }

    pub(super) fn stdin_failed(&mut self, stream: u32, errno: Errno) {
        if self.stdins.remove(&stream).is_some() {
            let failure = Failure::errno(errno.raw_os_error(), "write to", &Text::from("stdin"));
            self.core.input_failed(stream, failure);
        }
    }
}

pub(super) fn send_signal(pid: u32, signal: i32, group: bool) -> Result<(), Failure> {
    let failed = |errno: i32| Failure::errno(errno, "signal", &Text(pid.to_string().into_bytes()));
    let target = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or_else(|| failed(libc::ESRCH))?;
    let signal = Signal::from_named_raw(signal).ok_or_else(|| failed(libc::EINVAL))?;
    let sent = if group {
        rustix::process::kill_process_group(target, signal)
    } else {
        rustix::process::kill_process(target, signal)
    };
    sent.map_err(|errno| failed(errno.raw_os_error()))
}
