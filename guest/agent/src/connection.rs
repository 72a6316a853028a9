//! The connection to the host: bytes in, bytes out, and what waits between.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType};
use skerry_protocol::{Frame, FrameBuffer, Violation};

/// A buffer that a large transfer has made larger than this is given back when it is empty.
const KEPT_BYTES: usize = 64 * 1024;

/// After a live connection broke; it may have been a hiccup.
const REDIAL_FIRST: Duration = Duration::from_millis(10);
const REDIAL_SHORTEST: Duration = Duration::from_millis(20);
/// An attempt in vain costs a millisecond in gVisor, and a hundred agents may be waiting on the machine that the host
/// restarts on.
const REDIAL_LONGEST: Duration = Duration::from_millis(500);

/// When to dial: soon after a connection broke, then less often the longer there is none.
pub struct Redial {
    /// When the last live connection was lost, or the agent started.
    since: Instant,
    next: Option<Instant>,
}

impl Redial {
    pub fn at_once(now: Instant) -> Redial {
        Redial { since: now, next: Some(now) }
    }

    /// When to dial; None while there is a connection.
    pub fn next(&self) -> Option<Instant> {
        self.next
    }

    pub fn connected(&mut self) {
        self.next = None;
    }

    pub fn lost(&mut self, now: Instant, was_live: bool) {
        if was_live {
            self.since = now;
            self.next = Some(now + REDIAL_FIRST);
        } else {
            self.failed(now);
        }
    }

    /// Nobody listens, or the host hung up before WELCOME: wait for an eighth of the time that this has lasted.
    pub fn failed(&mut self, now: Instant) {
        let lasted = now.saturating_duration_since(self.since);
        self.next = Some(now + (lasted / 8).clamp(REDIAL_SHORTEST, REDIAL_LONGEST));
    }
}

const WATCHED: EventFlags = EventFlags::IN.union(EventFlags::RDHUP).union(EventFlags::ET);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received {
    /// Some bytes or none.
    Some,
    Closed,
}

pub struct Connection {
    socket: OwnedFd,
    incoming: FrameBuffer,
    readable: bool,
    hung_up: bool,
    outgoing: Vec<u8>,
    sent: usize,
    /// The kernel takes no more; an event tells when it does.
    blocked: bool,
    /// The event was asked for.
    watches_room: bool,
}

impl Connection {
    pub fn dial(address: &SocketAddrUnix) -> rustix::io::Result<Connection> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        rustix::net::connect(&socket, address)?;
        Ok(Connection {
            socket,
            incoming: FrameBuffer::default(),
            readable: false,
            hung_up: false,
            outgoing: Vec::new(),
            sent: 0,
            blocked: false,
            watches_room: false,
        })
    }

    pub fn watch(&self, epoll: &OwnedFd, token: u64) -> rustix::io::Result<()> {
        epoll::add(epoll, &self.socket, EventData::new_u64(token), WATCHED)
    }

    /// There was an event.
    pub fn woken(&mut self, flags: EventFlags) {
        self.readable |= flags != EventFlags::OUT;
        self.hung_up |= flags.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR);
        self.blocked &= !flags.intersects(EventFlags::OUT | EventFlags::ERR | EventFlags::HUP);
    }

    /// Looks again whether anything can be received or sent, although no event said so.
    pub fn look_again(&mut self) {
        self.readable = true;
        self.blocked = false;
    }

    pub fn may_receive(&self) -> bool {
        self.readable
    }

    /// Reads once. Plain reading drops descriptors that were sent along.
    pub fn receive(&mut self) -> Received {
        let space = self.incoming.space();
        let room = space.len();
        match rustix::io::read(&self.socket, space) {
            Ok(0) => Received::Closed,
            Ok(count) => {
                self.incoming.filled(count);
                // A short read leaves nothing behind, but the end may be there already.
                self.readable = count == room || self.hung_up;
                Received::Some
            }
            Err(Errno::INTR) => Received::Some,
            Err(Errno::AGAIN) => {
                self.readable = false;
                Received::Some
            }
            Err(_) => Received::Closed,
        }
    }

    pub fn next_frame(&mut self) -> Result<Option<Frame<'_>>, Violation> {
        self.incoming.next_frame()
    }

    /// Sends what waits and what `fill` adds, until there is nothing more or the kernel takes no more.
    pub fn send(
        &mut self,
        epoll: &OwnedFd,
        token: u64,
        mut fill: impl FnMut(&mut Vec<u8>),
    ) -> rustix::io::Result<()> {
        while !self.blocked {
            if self.sent == self.outgoing.len() {
                self.outgoing.clear();
                self.sent = 0;
                fill(&mut self.outgoing);
                if self.outgoing.is_empty() {
                    if self.outgoing.capacity() > KEPT_BYTES {
                        self.outgoing = Vec::new();
                    }
                    return self.watch_room(epoll, token, false);
                }
            }
            match rustix::net::send(&self.socket, &self.outgoing[self.sent..], SendFlags::NOSIGNAL) {
                Ok(count) => self.sent += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    self.blocked = true;
                    self.watch_room(epoll, token, true)?;
                }
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }

    /// Asks to be told when the kernel takes bytes again. It would tell each time the host has read, so this is taken back
    /// when nothing waits any more.
    fn watch_room(&mut self, epoll: &OwnedFd, token: u64, wanted: bool) -> rustix::io::Result<()> {
        if self.watches_room == wanted {
            return Ok(());
        }
        self.watches_room = wanted;
        let flags = if wanted { WATCHED | EventFlags::OUT } else { WATCHED };
        epoll::modify(epoll, &self.socket, EventData::new_u64(token), flags)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longer_nobody_listens_the_less_often_is_dialled() {
        let start = Instant::now();
        let mut redial = Redial::at_once(start);
        assert_eq!(redial.next(), Some(start));
        let waits = [(0, 20), (100, 20), (800, 100), (4000, 500), (1_000_000, 500)];
        for (lasted, wait) in
            waits.map(|(lasted, wait)| (Duration::from_millis(lasted), Duration::from_millis(wait)))
        {
            redial.failed(start + lasted);
            assert_eq!(redial.next(), Some(start + lasted + wait));
        }
    }

    #[test]
    fn a_live_connection_that_broke_is_dialled_again_at_once() {
        let start = Instant::now();
        let mut redial = Redial::at_once(start);
        redial.connected();
        assert_eq!(redial.next(), None);
        let later = start + Duration::from_secs(100);
        redial.lost(later, true);
        assert_eq!(redial.next(), Some(later + REDIAL_FIRST));
        redial.failed(later + REDIAL_FIRST);
        assert_eq!(redial.next(), Some(later + REDIAL_FIRST + REDIAL_SHORTEST));
        // A host that hangs up before WELCOME is not there yet.
        redial.lost(later + Duration::from_secs(8), false);
        assert_eq!(redial.next(), Some(later + Duration::from_secs(8) + REDIAL_LONGEST));
    }
}
