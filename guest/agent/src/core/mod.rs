//! What the agent knows and decides, without any I/O: frames and events go in, frames and effects come out.

mod calls;
mod flow;
mod input;
mod journal;
mod outbox;
mod output;
mod processes;
mod requests;
mod streams;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::rc::Rc;

use serde::Serialize;
use skerry_protocol::message::{MAX_MESSAGE, encode_response, from_msgpack, to_msgpack};
use skerry_protocol::{
    Assembler, Envelope, Exit, Failure, Frame, GENERATION, Hello, Text, Token, Violation, Welcome,
};

use outbox::Outbox;
use processes::Processes;
use requests::{Admission, Requests};
use streams::Streams;

pub use calls::{Effect, FileCall, Ticket};

/// Bytes that wait to be written to the connection, beside what the kernel holds.
const WIRE_GOAL: usize = 256 * 1024;
/// Bytes of one stream in one frame. Shorter than allowed, so that streams and answers take turns often.
const LONGEST_DATA: usize = 128 * 1024;
/// RESETs of input streams that are said again after a re-dial, since they may have been lost.
const MAX_RECENT_RESETS: usize = 64;
/// Results of finished file writes that nobody has asked for yet.
const MAX_WRITE_RESULTS: usize = 256;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    Down,
    /// HELLO is on its way, WELCOME has not come.
    Greeting,
    Live,
}

/// Where the bytes of a new process's streams go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessStreams {
    pub stdin: Option<u32>,
    pub stdout: Option<u32>,
    pub stderr: Option<u32>,
}

/// What the driver should do with an input stream after a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InputState {
    /// Wait for more bytes.
    Open,
    /// All is written: close it.
    Complete,
}

pub struct Core {
    hello: Vec<u8>,
    link: Link,
    epoch: Option<u64>,
    /// Counts epochs, so that results of an earlier one are recognised.
    era: u32,
    window_ms: u64,
    requests: Requests,
    assembler: Assembler,
    streams: Streams,
    processes: Processes,
    /// What every process has that is not told otherwise.
    base_environment: BTreeMap<Text, Text>,
    environment: BTreeMap<Text, Text>,
    outbox: Outbox,
    effects: VecDeque<Effect>,
    pings_sent: u64,
    recent_resets: VecDeque<(u32, Failure)>,
    write_results: VecDeque<(u32, Result<u64, Failure>)>,
    /// Requests that wait until a file stream is written.
    closing: HashMap<u32, Vec<Ticket>>,
    load: calls::FileLoad,
}

impl Core {
    pub fn new(agent: &str, boot: [u8; 16], key: [u8; 16]) -> Core {
        let hello = Hello {
            generations: vec![GENERATION],
            agent: agent.to_owned(),
            boot: Token(boot),
            key: Token(key),
        };
        Core {
            hello: to_msgpack(&hello),
            link: Link::Down,
            epoch: None,
            era: 0,
            window_ms: 0,
            requests: Requests::default(),
            assembler: Assembler::default(),
            streams: Streams::default(),
            processes: Processes::default(),
            base_environment: BTreeMap::new(),
            environment: BTreeMap::new(),
            outbox: Outbox::default(),
            effects: VecDeque::new(),
            pings_sent: 0,
            recent_resets: VecDeque::new(),
            write_results: VecDeque::new(),
            closing: HashMap::new(),
            load: calls::FileLoad::default(),
        }
    }

    pub fn with_base_environment(self, base_environment: BTreeMap<Text, Text>) -> Core {
        Core { base_environment, ..self }
    }

    // The connection.

    /// A connection was made.
    pub fn connected(&mut self) {
        self.link = Link::Greeting;
        self.outbox.clear();
        self.assembler.clear();
        self.outbox.frame(Frame::Hello(&self.hello));
    }

    /// The connection is gone, at `now` in milliseconds of the agent's clock.
    pub fn disconnected(&mut self, now: u64) {
        let was_live = self.link == Link::Live;
        self.link = Link::Down;
        self.outbox.clear();
        self.assembler.clear();
        if was_live {
            self.requests.disconnected();
            self.streams.connection_lost(now.saturating_add(self.window_ms));
        }
    }

    pub fn is_live(&self) -> bool {
        self.link == Link::Live
    }

    /// False while the host does not read what it has asked for: then nothing more is read from it.
    pub fn wants_frames(&self) -> bool {
        !self.outbox.is_congested()
    }

    /// Moves what is to be sent to `wire`, up to a bound.
    pub fn fill(&mut self, wire: &mut Vec<u8>) {
        if self.link == Link::Down {
            return;
        }
        if self.link == Link::Live && !self.outbox.has_long_responses() && self.requests.wants_confirmation()
        {
            self.requests.ask_confirmation();
            self.pings_sent += 1;
            self.outbox.frame(Frame::Ping(self.pings_sent.to_be_bytes()));
        }
        if self.outbox.fill(wire, WIRE_GOAL) && self.link == Link::Live {
            self.streams.fill(wire, WIRE_GOAL, LONGEST_DATA);
        }
    }

    /// Takes one frame from the host. After a violation the connection must be closed.
    pub fn frame(&mut self, frame: Frame<'_>) -> Result<(), Violation> {
        if self.link != Link::Live {
            return match frame {
                Frame::Welcome(body) if self.link == Link::Greeting => self.welcome(body),
                _ => Err(Violation("the first frame is not WELCOME")),
            };
        }
        match frame {
            Frame::Request { number, more, part } => match self.assembler.push(number, more, part)? {
                Some(message) => self.request(&message),
                None => Ok(()),
            },
            Frame::Ping(token) => {
                self.outbox.frame(Frame::Pong(token));
                Ok(())
            }
            Frame::Pong(token) => {
                if token == self.pings_sent.to_be_bytes() {
                    self.requests.confirmed();
                }
                Ok(())
            }
            Frame::Data { stream, offset, bytes } => {
                self.input_frame(stream, |input| input.data(offset, bytes))
            }
            Frame::End { stream, total } => self.input_frame(stream, |input| input.end(total)),
            Frame::Reset { stream, body } => {
                from_msgpack::<Failure>(body).map_err(|_| Violation("RESET is not {code, message}"))?;
                self.reset_by_host(stream)
            }
            Frame::Credit { stream, consumed, limit } => {
                self.output_frame(stream, |output| output.credit(consumed, limit))
            }
            Frame::Attach { stream, from, limit } => self.attach(stream, from, limit),
            Frame::Detach { stream } => self.detach(stream),
            Frame::Hello(_)
            | Frame::Welcome(_)
            | Frame::Response { .. }
            | Frame::Exit(_)
            | Frame::Gap { .. } => Err(Violation("a frame that only the agent sends, or WELCOME again")),
        }
    }

    fn welcome(&mut self, body: &[u8]) -> Result<(), Violation> {
        let welcome: Welcome = from_msgpack(body).map_err(|_| Violation("WELCOME is malformed"))?;
        if welcome.generation != GENERATION {
            return Err(Violation("WELCOME names another generation"));
        }
        self.link = Link::Live;
        self.window_ms = u64::from(welcome.reattach_window_ms);
        let same_epoch = self.epoch == Some(welcome.epoch);
        self.streams.connection_back(same_epoch);
        if !same_epoch {
            self.epoch = Some(welcome.epoch);
            self.era += 1;
            self.requests = Requests::default();
            self.recent_resets.clear();
            self.closing.clear();
        }
        for (stream, input) in self.streams.inputs().filter(|(_, input)| !input.has_ended()) {
            self.outbox.frame(Frame::Attach { stream, from: input.received(), limit: input.limit() });
        }
        for (stream, failure) in &self.recent_resets {
            self.outbox.reset(*stream, failure);
        }
        Ok(())
    }

    fn request(&mut self, message: &[u8]) -> Result<(), Violation> {
        let Envelope { id, acked, method, params } = Envelope::parse(message)?;
        match self.requests.admit(id, acked)? {
            Admission::Run => self.call(Ticket { era: self.era, id }, method, params),
            Admission::Ignore => {}
            Admission::Repeat(response) => self.outbox.response(&response),
        }
        Ok(())
    }

    /// Answers a request; a result of an earlier epoch is dropped.
    pub fn answer<T: Serialize>(&mut self, ticket: Ticket, result: &Result<T, Failure>) {
        if ticket.era != self.era {
            return;
        }
        let mut message = encode_response(ticket.id, result);
        if message.len() > MAX_MESSAGE {
            let failure = Failure::new(Failure::TOO_LARGE, "the answer is longer than a message may be");
            message = encode_response::<()>(ticket.id, &Err(failure));
        }
        let message: Rc<[u8]> = message.into();
        let sent = self.link == Link::Live;
        if self.requests.finish(ticket.id, message.clone(), sent) && sent {
            self.outbox.response(&message);
        }
    }

    pub fn fail(&mut self, ticket: Ticket, failure: Failure) {
        self.answer::<()>(ticket, &Err(failure));
    }

    // Processes and time.

    /// A child was reaped; nothing happens when it is none that was spawned on request.
    pub fn process_exited(&mut self, pid: u32, code: u8, signal: Option<i32>) {
        let signal = signal.map(skerry_protocol::signal::name);
        let Some((status, forgotten)) = self.processes.exited(pid, code, signal) else { return };
        if self.is_live() {
            let exit = Exit { pid, code: status.code, signal: status.signal, oom: status.oom };
            self.outbox.frame(Frame::Exit(&to_msgpack(&exit)));
        }
        for stream in forgotten.into_iter().flat_map(|entry| [entry.stdout, entry.stderr]).flatten() {
            if self.streams.disown(stream) {
                self.effects.push_back(Effect::CloseOutput(stream));
            }
        }
    }

    pub fn next_deadline(&self) -> Option<u64> {
        self.streams.next_deadline()
    }

    /// `now` milliseconds of the agent's clock have passed.
    pub fn tick(&mut self, now: u64) {
        if self.streams.next_deadline().is_some_and(|deadline| deadline <= now) {
            for stream in self.streams.take_expired(now) {
                self.nobody_reads(stream);
            }
        }
    }

    pub fn next_effect(&mut self) -> Option<Effect> {
        if self.effects.is_empty() {
            self.effects.extend(self.streams.take_resumable().into_iter().map(Effect::ReadOutput));
        }
        self.effects.pop_front()
    }
}

#[cfg(test)]
mod tests;
