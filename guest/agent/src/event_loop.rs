//! The one thread that talks to the host: waits for events, feeds the core, does what it asks for.

use std::collections::{HashMap, VecDeque};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions};
use skerry_protocol::{Failure, Text};

use crate::connection::{Connection, Received};
use crate::core::{Core, Effect, FileCall, InputState, ProcessStreams, Ticket};
use crate::files::FileValue;
use crate::log;
use crate::pool::{Done, Job, Pool};
use crate::reclaim::reclaim;
use crate::spawn::Spawner;

/// After a broken connection, and between attempts.
const REDIAL_FIRST: Duration = Duration::from_millis(10);
const REDIAL_NEXT: Duration = Duration::from_millis(20);
/// How long the host may take to say WELCOME.
const WELCOME_WAIT: Duration = Duration::from_secs(5);
const LOG_PERIOD: Duration = Duration::from_secs(3600);

/// Bytes read from one pipe in its turn.
const PIPE_READ_BYTES: usize = 128 * 1024;
/// A pipe whose default 64 KiB were full once gets room for more, so that a busy writer waits less often.
const BUSY_PIPE_BYTES: usize = 256 * 1024;
const DEFAULT_PIPE_BYTES: usize = 64 * 1024;
/// Turns of work before the next look at events.
const TURNS: usize = 8;

// What an epoll event is about; streams have their ID above these.
const CONNECTION: u64 = 0;
const SIGNALS: u64 = 1;
const POOL: u64 = 2;
const FIRST_STREAM: u64 = 16;

/// Our end of a process's stdout or stderr.
struct PipeSource {
    pipe: OwnedFd,
    /// Something may be there.
    readable: bool,
    /// All writers are gone: read until the end.
    hung_up: bool,
    /// Waits in `Agent::ready`.
    queued: bool,
    widened: bool,
}

/// An open file at the agent's end of a stream.
struct OpenFile {
    file: Arc<OwnedFd>,
    /// A thread works on it.
    busy: bool,
}

pub struct Agent {
    socket: String,
    started: Instant,
    core: Core,
    epoll: OwnedFd,
    signals: OwnedFd,
    pool: Pool,
    spawner: Spawner,
    connection: Option<Connection>,
    redial_at: Option<Instant>,
    welcome_by: Option<Instant>,
    more_log_at: Instant,
    sources: HashMap<u32, PipeSource>,
    /// Sources to read, in turn.
    ready: VecDeque<u32>,
    stdins: HashMap<u32, OwnedFd>,
    readers: HashMap<u32, OpenFile>,
    writers: HashMap<u32, OpenFile>,
    scratch: Vec<u8>,
}

fn random_16() -> rustix::io::Result<[u8; 16]> {
    let mut bytes = [0; 16];
    let mut filled = 0;
    while filled < bytes.len() {
        filled += rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty())?;
    }
    Ok(bytes)
}

impl Agent {
    pub fn new(
        socket: &str,
        signals: OwnedFd,
        spawner: Spawner,
        privileged: bool,
    ) -> rustix::io::Result<Agent> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let pool = Pool::new(spawner.app().clone(), privileged)?;
        let watch = |source: &OwnedFd, token| {
            epoll::add(&epoll, source, epoll::EventData::new_u64(token), epoll::EventFlags::IN)
        };
        watch(&signals, SIGNALS)?;
        watch(pool.event(), POOL)?;
        let now = Instant::now();
        Ok(Agent {
            socket: socket.to_owned(),
            started: now,
            core: Core::new(env!("CARGO_PKG_VERSION"), random_16()?, random_16()?),
            epoll,
            signals,
            pool,
            spawner,
            connection: None,
            redial_at: Some(now),
            welcome_by: None,
            more_log_at: now + LOG_PERIOD,
            sources: HashMap::new(),
            ready: VecDeque::new(),
            stdins: HashMap::new(),
            readers: HashMap::new(),
            writers: HashMap::new(),
            scratch: vec![0; PIPE_READ_BYTES],
        })
    }

    /// Runs for ever; answers why that ended.
    pub fn run(&mut self) -> Errno {
        let mut events = Vec::with_capacity(64);
        // A child may have ended before anybody listened.
        self.reap();
        loop {
            self.keep_time();
            let more = self.work();
            let timeout = if more { Some(Duration::ZERO) } else { self.time_left() };
            events.clear();
            let timeout = timeout.map(|left| Timespec {
                tv_sec: left.as_millis().div_euclid(1000).try_into().unwrap_or(i64::from(i32::MAX)),
                // Whole milliseconds, rounded up, because that is what epoll_wait takes.
                tv_nsec: i64::from(left.subsec_millis() + u32::from(left.subsec_micros() % 1000 != 0))
                    .min(999)
                    * 1_000_000,
            });
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), timeout.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return errno,
            }
            for epoll::Event { flags, data } in events.drain(..) {
                self.event(data.u64(), flags);
            }
        }
    }

    fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis().try_into().unwrap_or(u64::MAX)
    }

    // Time.

    fn keep_time(&mut self) {
        let now = Instant::now();
        if self.core.next_deadline().is_some() {
            self.core.tick(self.now_ms());
        }
        if self.welcome_by.is_some_and(|by| by <= now) {
            self.lose_connection("no WELCOME");
        }
        if self.redial_at.is_some_and(|at| at <= now) {
            self.dial(now);
        }
        if self.more_log_at <= now {
            self.more_log_at = now + LOG_PERIOD;
            log::allow_more();
        }
    }

    fn time_left(&self) -> Option<Duration> {
        let window_end = self.core.next_deadline().map(|at| self.started + Duration::from_millis(at));
        let next = [self.redial_at, self.welcome_by, window_end].into_iter().flatten().min()?;
        Some(next.saturating_duration_since(Instant::now()))
    }

    // The connection.

    fn dial(&mut self, now: Instant) {
        let dialled = Connection::dial(&self.socket).and_then(|connection| {
            connection.watch(&self.epoll, CONNECTION)?;
            Ok(connection)
        });
        match dialled {
            Ok(connection) => {
                self.connection = Some(connection);
                self.redial_at = None;
                self.welcome_by = Some(now + WELCOME_WAIT);
                self.core.connected();
            }
            Err(_) => self.redial_at = Some(now + REDIAL_NEXT),
        }
    }

    fn lose_connection(&mut self, why: &str) {
        if self.connection.take().is_some() {
            if !why.is_empty() {
                log::error(&format!("connection closed: {why}"));
            }
            self.core.disconnected(self.now_ms());
            self.welcome_by = None;
            self.redial_at = Some(Instant::now() + REDIAL_FIRST);
        }
    }

    /// True if the host may have sent something that is to be taken now.
    fn may_receive(&self) -> bool {
        self.core.wants_frames() && self.connection.as_ref().is_some_and(Connection::may_receive)
    }

    /// Takes what the host has sent.
    fn receive(&mut self) {
        let Some(connection) = &mut self.connection else { return };
        let received = connection.receive();
        loop {
            match connection.next_frame().and_then(|frame| match frame {
                Some(frame) => self.core.frame(frame).map(|()| true),
                None => Ok(false),
            }) {
                Ok(true) => {}
                Ok(false) => break,
                Err(violation) => return self.lose_connection(violation.0),
            }
        }
        if self.core.is_live() {
            self.welcome_by = None;
        }
        if received == Received::Closed {
            self.lose_connection("");
        }
    }

    fn send(&mut self) {
        let Some(connection) = &mut self.connection else { return };
        let core = &mut self.core;
        if connection.send(&self.epoll, CONNECTION, |wire| core.fill(wire)).is_err() {
            self.lose_connection("");
        }
    }

    // Events and effects.

    fn event(&mut self, token: u64, flags: epoll::EventFlags) {
        match token {
            CONNECTION => {
                if let Some(connection) = &mut self.connection {
                    connection.woken(flags);
                }
            }
            SIGNALS => self.reap(),
            POOL => {
                for done in self.pool.take_done() {
                    self.job_done(done);
                }
            }
            token => {
                let Ok(stream) = u32::try_from(token - FIRST_STREAM) else { return };
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
        }
    }

    /// Does what can be done without waiting; true if there is more of it.
    fn work(&mut self) -> bool {
        for _ in 0..TURNS {
            if self.may_receive() {
                self.receive();
            }
            self.do_effects();
            for _ in 0..self.ready.len() {
                let Some(stream) = self.ready.pop_front() else { break };
                self.read_source(stream);
            }
            self.do_effects();
            self.send();
            if self.ready.is_empty() && !self.may_receive() {
                return false;
            }
        }
        true
    }

    fn do_effects(&mut self) {
        while let Some(effect) = self.core.next_effect() {
            match effect {
                Effect::Spawn(ticket, params) => match self.spawner.spawn(&params, self.core.environment()) {
                    Ok(ends) => self.spawned(ticket, *params, ends),
                    Err(failure) => self.core.fail(ticket, failure),
                },
                Effect::Signal { ticket, pid, signal, group } => {
                    let result = send_signal(pid, signal, group);
                    self.core.answer(ticket, &result);
                }
                Effect::Reclaim(ticket) => {
                    let victim = reclaim();
                    self.core.reclaimed(ticket, victim.group, &victim.members, victim.rss_bytes);
                }
                Effect::File(ticket, call) => self.pool.submit(Job::Call(ticket, call)),
                Effect::ReadOutput(stream) => {
                    if self.sources.contains_key(&stream) {
                        self.queue_source(stream);
                    } else {
                        self.read_file(stream);
                    }
                }
                Effect::CloseOutput(stream) => {
                    self.sources.remove(&stream);
                    if let Some(reader) = self.readers.remove(&stream) {
                        self.pool.submit(Job::Close(reader.file));
                    }
                }
                Effect::WriteInput(stream) => {
                    if self.stdins.contains_key(&stream) {
                        self.write_stdin(stream);
                    } else {
                        self.write_file(stream);
                    }
                }
                Effect::CloseInput(stream) => self.close_input(stream),
            }
        }
    }

    fn close_input(&mut self, stream: u32) {
        self.stdins.remove(&stream);
        if let Some(writer) = self.writers.remove(&stream) {
            self.pool.submit(Job::Close(writer.file));
        }
    }

    // Processes.

    fn spawned(
        &mut self,
        ticket: Ticket,
        params: skerry_protocol::methods::SpawnParams,
        ends: crate::spawn::Ends,
    ) {
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
    fn reap(&mut self) {
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

    fn queue_source(&mut self, stream: u32) {
        if let Some(source) = self.sources.get_mut(&stream) {
            if source.readable && !source.queued {
                source.queued = true;
                self.ready.push_back(stream);
            }
        }
    }

    /// Reads a pipe once, and queues it again if there may be more.
    fn read_source(&mut self, stream: u32) {
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

    fn write_stdin(&mut self, stream: u32) {
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

    fn stdin_failed(&mut self, stream: u32, errno: Errno) {
        if self.stdins.remove(&stream).is_some() {
            let failure = Failure::errno(errno.raw_os_error(), "write to", &Text::from("stdin"));
            self.core.input_failed(stream, failure);
        }
    }

    // Files.

    fn read_file(&mut self, stream: u32) {
        let Some(reader) = self.readers.get_mut(&stream).filter(|reader| !reader.busy) else { return };
        let room = self.core.room(stream);
        if room > 0 {
            reader.busy = true;
            self.pool.submit(Job::Read { stream, file: reader.file.clone(), room });
        }
    }

    fn write_file(&mut self, stream: u32) {
        let Some(writer) = self.writers.get_mut(&stream).filter(|writer| !writer.busy) else { return };
        let chunks = self.core.take_input(stream);
        if !chunks.is_empty() {
            writer.busy = true;
            self.pool.submit(Job::Write { stream, file: writer.file.clone(), chunks });
        } else if self.core.input_written(stream, 0) == InputState::Complete {
            self.close_input(stream);
        }
    }

    fn job_done(&mut self, done: Done) {
        match done {
            Done::Call(ticket, call, result) => self.call_done(ticket, call, result),
            Done::Read { stream, result } => {
                let Some(reader) = self.readers.get_mut(&stream) else { return };
                reader.busy = false;
                match result {
                    Ok(chunk) => {
                        self.core.output_chunk(stream, chunk.bytes);
                        if chunk.at_end {
                            self.core.output_ended(stream);
                            if let Some(reader) = self.readers.remove(&stream) {
                                self.pool.submit(Job::Close(reader.file));
                            }
                        }
                        self.read_file(stream);
                    }
                    Err(errno) => {
                        let failure = Failure::errno(errno.raw_os_error(), "read", &Text::from("the file"));
                        self.core.output_failed(stream, &failure);
                    }
                }
            }
            Done::Write { stream, result } => {
                let Some(writer) = self.writers.get_mut(&stream) else { return };
                writer.busy = false;
                match result {
                    Ok(count) if self.core.input_written(stream, count) == InputState::Open => {
                        self.write_file(stream);
                    }
                    Ok(_) => self.close_input(stream),
                    Err(errno) => {
                        let failure = Failure::errno(errno.raw_os_error(), "write", &Text::from("the file"));
                        self.core.input_failed(stream, failure);
                        self.close_input(stream);
                    }
                }
            }
        }
    }

    fn call_done(&mut self, ticket: Ticket, call: FileCall, result: Result<FileValue, Failure>) {
        use skerry_protocol::methods::{DirEntries, ReadValue};

        self.core.file_call_over(&call);
        let value = match result {
            Ok(value) => value,
            Err(failure) => return self.core.fail(ticket, failure),
        };
        match value {
            FileValue::Nothing => self.core.answer(ticket, &Ok(())),
            FileValue::Data(data) => self.core.answer(ticket, &Ok(ReadValue::Inline { data: data.into() })),
            FileValue::Entries(entries) => self.core.answer(ticket, &Ok(DirEntries { entries })),
            FileValue::Stat(stat) => self.core.answer(ticket, &Ok(stat)),
            FileValue::Opened { file, size, head } => {
                let credit = if let FileCall::Read { credit, .. } = call { credit } else { 0 };
                let file = Arc::new(file);
                match self.core.read_opened(ticket, credit, size, head) {
                    Some(stream) => {
                        self.readers.insert(stream, OpenFile { file, busy: false });
                        self.read_file(stream);
                    }
                    None => self.pool.submit(Job::Close(file)),
                }
            }
            FileValue::OpenedForWriting(file) => {
                let file = Arc::new(file);
                match self.core.write_opened(ticket) {
                    Some(stream) => {
                        self.writers.insert(stream, OpenFile { file, busy: false });
                    }
                    None => self.pool.submit(Job::Close(file)),
                }
            }
        }
    }
}

fn send_signal(pid: u32, signal: i32, group: bool) -> Result<(), Failure> {
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
