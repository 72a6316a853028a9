//! The one thread that talks to the host: waits for events, feeds the core, does what it asks for.

mod files;
mod processes;

use std::collections::{HashMap, VecDeque};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use rustix::net::SocketAddrUnix;
use skerry_protocol::{Failure, Text};

use crate::connection::{Connection, Received, Redial};
use crate::core::{Core, Effect};
use crate::log;
use crate::pool::{Job, Pool};
use crate::reclaim::reclaim;
use crate::spawn::{Spawner, base_environment};
use crate::trust::Trust;
use files::OpenFile;
use processes::{PIPE_READ_BYTES, PipeSource, send_signal};

/// How long the host may take to say WELCOME.
const WELCOME_WAIT: Duration = Duration::from_secs(5);
/// gVisor loses an event about once in a thousand transfers: so for a while after each event the agent looks by itself
/// whether there is more to do.
const WATCHFUL: Duration = Duration::from_secs(1);
const LOOK_AGAIN: Duration = Duration::from_millis(20);
const LOG_PERIOD: Duration = Duration::from_secs(3600);

/// Turns of work before the next look at events, and pipes that are read in each: at most 4 MiB, so that hundreds of busy
/// processes do not make a request wait.
const TURNS: usize = 4;
const PIPES_PER_TURN: usize = 8;

// What an epoll event is about; streams have their ID above these.
const CONNECTION: u64 = 0;
const SIGNALS: u64 = 1;
const POOL: u64 = 2;
const FIRST_STREAM: u64 = 16;

pub struct Agent {
    socket: SocketAddrUnix,
    started: Instant,
    core: Core,
    /// None: its system is no sandbox.
    trust: Option<Arc<Trust>>,
    epoll: OwnedFd,
    signals: OwnedFd,
    pool: Pool,
    spawner: Spawner,
    connection: Option<Connection>,
    redial: Redial,
    /// Until then events may have been lost.
    watchful_until: Instant,
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

/// Rounded up to whole milliseconds, which is what `epoll_wait` takes, and not longer than it can wait.
fn in_milliseconds(left: Duration) -> Timespec {
    const LONGEST_MS: u128 = 3_600_000;
    let ms = left.as_nanos().div_ceil(1_000_000).min(LONGEST_MS) as i64;
    Timespec { tv_sec: ms / 1000, tv_nsec: ms % 1000 * 1_000_000 }
}

impl Agent {
    pub fn new(
        socket: &str,
        signals: OwnedFd,
        spawner: Spawner,
        privileged: bool,
        trust: Option<Arc<Trust>>,
    ) -> rustix::io::Result<Agent> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let pool = Pool::new(spawner.app().clone(), privileged)?;
        let watch = |source: &OwnedFd, token| {
            epoll::add(&epoll, source, epoll::EventData::new_u64(token), epoll::EventFlags::IN)
        };
        watch(&signals, SIGNALS)?;
        watch(pool.event(), POOL)?;
        let text = |bytes: &[u8]| Text(bytes.to_vec());
        let base = base_environment(spawner.app()).map(|(name, value)| (text(name), text(value))).into();
        let now = Instant::now();
        Ok(Agent {
            socket: SocketAddrUnix::new(socket)?,
            started: now,
            core: Core::new(env!("CARGO_PKG_VERSION"), random_16()?, random_16()?)
                .with_base_environment(base),
            trust,
            epoll,
            signals,
            pool,
            spawner,
            connection: None,
            redial: Redial::at_once(now),
            welcome_by: None,
            watchful_until: now,
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
            let timeout = timeout.map(in_milliseconds);
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), timeout.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return errno,
            }
            if events.is_empty() {
                self.look_again();
            } else {
                self.watchful_until = Instant::now() + WATCHFUL;
            }
            for epoll::Event { flags, data } in events.drain(..) {
                self.event(data.u64(), flags);
            }
        }
    }

    /// Does what an event would have asked for, had it not been lost.
    fn look_again(&mut self) {
        if let Some(connection) = &mut self.connection {
            connection.look_again();
        }
        for done in self.pool.take_done() {
            self.job_done(done);
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
        if self.redial.next().is_some_and(|at| at <= now) {
            self.dial(now);
        }
        self.pool.keep_moving(now);
        if self.more_log_at <= now {
            self.more_log_at = now + LOG_PERIOD;
            log::allow_more();
        }
    }

    fn time_left(&self) -> Option<Duration> {
        let window_end = self.core.next_deadline().map(|at| self.started + Duration::from_millis(at));
        let now = Instant::now();
        let look_again = (now < self.watchful_until).then_some(now + LOOK_AGAIN);
        let next = [self.redial.next(), self.welcome_by, self.pool.next_look(), window_end, look_again]
            .into_iter()
            .flatten()
            .min()?;
        Some(next.saturating_duration_since(now))
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
                self.redial.connected();
                self.welcome_by = Some(now + WELCOME_WAIT);
                self.core.connected();
            }
            Err(_) => self.redial.failed(now),
        }
    }

    fn lose_connection(&mut self, why: &str) {
        if self.connection.take().is_some() {
            if !why.is_empty() {
                log::error(&format!("connection closed: {why}"));
            }
            let was_live = self.core.is_live();
            self.core.disconnected(self.now_ms());
            self.welcome_by = None;
            self.redial.lost(Instant::now(), was_live);
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
                if let Ok(stream) = u32::try_from(token - FIRST_STREAM) {
                    self.pipe_event(stream, flags);
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
            for _ in 0..self.ready.len().min(PIPES_PER_TURN) {
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
                Effect::InstallTrust(ticket, params) => match &self.trust {
                    Some(trust) => self.pool.install_trust(ticket, trust.clone(), params),
                    None => {
                        let what = Text::from("what a system trusts that is no sandbox's");
                        let failure = Failure::errno(libc::EPERM, "change", &what);
                        self.core.trust_installed(ticket, Err(failure));
                    }
                },
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
}
