//! The core by itself: a host made of frames, a system made of calls, and a clock that is told what time it is.

use skerry_protocol::frame::{FrameType, encode_message};
use skerry_protocol::message::Response;
use skerry_protocol::methods::*;
use skerry_protocol::{FrameBuffer, methods};

use super::output::Reader;
use super::*;

const WINDOW_MS: u32 = 1000;

/// A frame from the agent, taken out of its buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Sent {
    Hello,
    Response { id: u64, ok: bool, value: Vec<u8> },
    Exit(Exit),
    Ping([u8; 8]),
    Pong,
    Data { stream: u32, offset: u64, bytes: Vec<u8> },
    End { stream: u32, total: u64 },
    Reset { stream: u32, code: String },
    Credit { stream: u32, consumed: u64, limit: u64 },
    Attach { stream: u32, from: u64, limit: u64 },
    Gap { stream: u32, from: u64, to: u64 },
}

struct World {
    core: Core,
    now: u64,
    next_id: u64,
    epoch: u64,
}

impl World {
    fn new() -> World {
        let mut world = World { core: Core::new("test", [1; 16], [2; 16]), now: 0, next_id: 1, epoch: 1 };
        world.connect();
        world
    }

    fn connect(&mut self) -> Vec<Sent> {
        self.core.connected();
        assert_eq!(self.sent(), [Sent::Hello]);
        let welcome = Welcome { generation: 1, epoch: self.epoch, reattach_window_ms: WINDOW_MS };
        self.frame(Frame::Welcome(&to_msgpack(&welcome)));
        self.sent()
    }

    fn reconnect(&mut self) -> Vec<Sent> {
        self.core.disconnected(self.now);
        self.connect()
    }

    fn pass(&mut self, ms: u64) {
        self.now += ms;
        self.core.tick(self.now);
    }

    fn frame(&mut self, frame: Frame<'_>) {
        self.core.frame(frame).expect("no violation");
    }

    fn request(&mut self, method: &str, params: &impl Serialize) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        let message = Envelope { id, acked: 0, method, params: &to_msgpack(params) }.encode();
        let mut frames = Vec::new();
        encode_message(FrameType::Request, id as u32, &message, &mut frames);
        each_frame(&frames, |frame| self.frame(frame));
        id
    }

    /// Everything that the agent sends now.
    fn sent(&mut self) -> Vec<Sent> {
        let (mut all, mut assembler) = (Vec::new(), Assembler::default());
        loop {
            let mut wire = Vec::new();
            self.core.fill(&mut wire);
            if wire.is_empty() {
                return all;
            }
            each_frame(&wire, |frame| all.extend(to_sent(frame, &mut assembler)));
        }
    }

    fn effects(&mut self) -> Vec<Effect> {
        std::iter::from_fn(|| self.core.next_effect()).collect()
    }

    /// Spawns a process with only a stdout.
    fn spawn(&mut self, pid: u32, credit: u64) -> u32 {
        self.spawn_with(pid, SpawnParams { stdout: Stdio::Piped, credit, ..SpawnParams::default() })
            .stdout
            .unwrap()
    }

    fn spawn_with(&mut self, pid: u32, params: SpawnParams) -> ProcessStreams {
        self.request(PROCESS_SPAWN, &params);
        match self.effects().pop() {
            Some(Effect::Spawn(ticket, params)) => self.core.spawned(ticket, *params, pid, 0),
            other => panic!("no spawn but {other:?}"),
        }
    }

    fn entry(&self, stream: u32) -> Option<StreamEntry> {
        self.core.streams.list().into_iter().find(|entry| entry.stream == stream)
    }
}

fn each_frame(bytes: &[u8], mut take: impl FnMut(Frame<'_>)) {
    let mut buffer = FrameBuffer::default();
    let mut rest = bytes;
    while !rest.is_empty() {
        let space = buffer.space();
        let (part, after) = rest.split_at(rest.len().min(space.len()));
        space[..part.len()].copy_from_slice(part);
        buffer.filled(part.len());
        rest = after;
        while let Some(frame) = buffer.next_frame().expect("our own frames") {
            take(frame);
        }
    }
}

fn to_sent(frame: Frame<'_>, assembler: &mut Assembler) -> Option<Sent> {
    Some(match frame {
        Frame::Hello(_) => Sent::Hello,
        Frame::Response { number, more, part } => {
            let message = assembler.push(number, more, part).expect("a message")?;
            let Response { id, ok, value } = Response::parse(&message).expect("a response");
            Sent::Response { id, ok, value: value.to_vec() }
        }
        Frame::Exit(body) => Sent::Exit(from_msgpack(body).expect("EXIT")),
        Frame::Ping(token) => Sent::Ping(token),
        Frame::Pong(_) => Sent::Pong,
        Frame::Data { stream, offset, bytes } => Sent::Data { stream, offset, bytes: bytes.to_vec() },
        Frame::End { stream, total } => Sent::End { stream, total },
        Frame::Reset { stream, body } => {
            Sent::Reset { stream, code: from_msgpack::<Failure>(body).expect("RESET").code.into_owned() }
        }
        Frame::Credit { stream, consumed, limit } => Sent::Credit { stream, consumed, limit },
        Frame::Attach { stream, from, limit } => Sent::Attach { stream, from, limit },
        Frame::Gap { stream, from, to } => Sent::Gap { stream, from, to },
        other => panic!("not from an agent: {other:?}"),
    })
}

fn is_data(sent: &Sent) -> bool {
    matches!(sent, Sent::Data { .. })
}

#[test]
fn nothing_is_accepted_before_welcome() {
    let mut core = Core::new("test", [1; 16], [2; 16]);
    core.connected();
    assert!(core.frame(Frame::Ping([0; 8])).is_err());
    let other = Welcome { generation: 2, epoch: 1, reattach_window_ms: 1 };
    assert!(core.frame(Frame::Welcome(&to_msgpack(&other))).is_err());
    assert!(core.frame(Frame::Welcome(b"\x80")).is_err());
    assert!(!core.is_live());
}

#[test]
fn answers_go_before_data() {
    let mut world = World::new();
    let stream = world.spawn(10, 1 << 20);
    world.sent();
    world.core.output_bytes(stream, &[0; 400_000]);
    let id = world.request(ENV_ALL, &());
    world.frame(Frame::Ping([9; 8]));
    world.core.process_exited(10, 0, None);
    let sent = world.sent();
    assert!(matches!(&sent[0], Sent::Response { id: first, .. } if *first == id));
    assert_eq!(sent[1], Sent::Pong);
    assert!(matches!(&sent[2], Sent::Exit(exit) if exit.pid == 10));
    assert!(sent[3..].iter().all(is_data));
}

#[test]
fn a_long_answer_does_not_delay_short_ones() {
    let mut world = World::new();
    let value: BTreeMap<Text, Text> =
        [(Text::from("A"), Text(vec![b'x'; 900_000])), (Text::from("B"), Text::default())].into();
    world.core.environment = value;
    let long = world.request(ENV_ALL, &());
    let mut wire = Vec::new();
    world.core.fill(&mut wire);
    let short = world.request(PROCESS_LIST, &());
    let ids: Vec<u64> = {
        let mut assembler = Assembler::default();
        let mut ids = Vec::new();
        while !wire.is_empty() {
            each_frame(&wire, |frame| {
                if let Some(Sent::Response { id, .. }) = to_sent(frame, &mut assembler) {
                    ids.push(id);
                }
            });
            wire.clear();
            world.core.fill(&mut wire);
        }
        ids
    };
    assert_eq!(ids, [short, long]);
}

#[test]
fn streams_take_turns() {
    let mut world = World::new();
    let streams: Vec<u32> = (1..=4).map(|pid| world.spawn(pid, 1 << 20)).collect();
    world.sent();
    for stream in &streams {
        world.core.output_bytes(*stream, &vec![0; 1 << 20]);
    }
    let sent = world.sent();
    let order: Vec<u32> = sent
        .iter()
        .filter_map(|sent| match sent {
            Sent::Data { stream, .. } => Some(*stream),
            _ => None,
        })
        .collect();
    for round in order.chunks(4) {
        assert_eq!(round, streams, "a stream had more than its turn");
    }
}

#[test]
fn a_lost_stream_is_detached_when_its_window_ends() {
    let mut world = World::new();
    let stream = world.spawn(10, 1 << 20);
    world.core.output_bytes(stream, &vec![0; 1 << 20]);
    assert_eq!(world.core.room(stream), 0);
    world.core.disconnected(world.now);
    world.pass(u64::from(WINDOW_MS) - 1);
    assert_eq!(world.core.room(stream), 0);
    world.pass(1);
    assert!(world.core.room(stream) > 0, "the pipe is not read");
    world.core.output_bytes(stream, b"abc");
    let entry = world.entry(stream).unwrap();
    assert_eq!((entry.first, entry.next, entry.dropped), (3, (1 << 20) + 3, 3));
}

#[test]
fn the_window_counts_from_the_loss_even_if_a_connection_came_back() {
    let mut world = World::new();
    let attached = world.spawn(10, 1 << 20);
    let never = world.spawn(11, 0);
    world.core.disconnected(world.now);
    world.pass(500);
    world.connect();
    world.reconnect();
    world.pass(500);
    let reader = |world: &World, stream| world.core.streams.output(stream).unwrap().reader;
    assert_eq!(reader(&world, attached), Reader::Detached);
    // One that was never attached waits as long as a connection lives.
    assert_eq!(reader(&world, never), Reader::Orphaned { until: None });
    world.pass(100_000);
    assert_eq!(reader(&world, never), Reader::Orphaned { until: None });
    // A host of another epoch has to come for it in time.
    world.epoch = 2;
    world.reconnect();
    world.pass(1000);
    assert_eq!(reader(&world, never), Reader::Detached);
}

#[test]
fn an_attached_stream_is_kept_over_a_short_loss() {
    let mut world = World::new();
    let stream = world.spawn(10, 100);
    world.core.output_bytes(stream, b"0123456789");
    world.sent();
    world.reconnect();
    world.pass(500);
    assert!(!world.sent().iter().any(is_data), "sent without ATTACH");
    world.frame(Frame::Attach { stream, from: 4, limit: 8 });
    assert_eq!(world.sent(), [Sent::Data { stream, offset: 4, bytes: b"4567".to_vec() }]);
    world.pass(100_000);
    assert_eq!(world.core.streams.output(stream).unwrap().reader, Reader::Attached { limit: 8 });
}

#[test]
fn the_result_of_an_earlier_epoch_is_dropped() {
    let mut world = World::new();
    let read = ReadParams { path: Text::from("/x"), inline_max: 10, credit: 10 };
    world.request(FS_READ, &read);
    let Some(Effect::File(ticket, call)) = world.effects().pop() else { panic!("no file call") };
    world.epoch = 2;
    world.next_id = 1;
    world.reconnect();
    world.request(FS_READ, &read);
    world.core.file_call_over(&call);
    assert_eq!(world.core.read_opened(ticket, 10, 5, Vec::new()), None);
    world.core.answer(ticket, &Ok(()));
    assert_eq!(world.sent(), []);
}

#[test]
fn resets_of_inputs_are_said_again_after_a_redial() {
    let mut world = World::new();
    let stdin = world.spawn_with(10, SpawnParams { stdin: true, ..SpawnParams::default() }).stdin.unwrap();
    let open = world.spawn_with(11, SpawnParams { stdin: true, ..SpawnParams::default() }).stdin.unwrap();
    world.frame(Frame::Data { stream: open, offset: 0, bytes: b"abc" });
    world.core.disconnected(world.now);
    world.core.input_failed(stdin, Failure::new("EPIPE", ""));
    let sent = world.connect();
    assert_eq!(
        sent,
        [
            Sent::Attach { stream: open, from: 3, limit: 262_144 },
            Sent::Reset { stream: stdin, code: "EPIPE".to_owned() }
        ]
    );
    world.epoch = 2;
    assert_eq!(world.reconnect(), [Sent::Attach { stream: open, from: 3, limit: 262_144 }]);
}

#[test]
fn an_input_that_has_ended_is_not_offered_again() {
    let mut world = World::new();
    let stdin = world.spawn_with(10, SpawnParams { stdin: true, ..SpawnParams::default() }).stdin.unwrap();
    world.frame(Frame::Data { stream: stdin, offset: 0, bytes: b"abc" });
    world.frame(Frame::End { stream: stdin, total: 3 });
    world.frame(Frame::End { stream: stdin, total: 3 });
    assert_eq!(world.reconnect(), []);
    assert_eq!(world.core.input_pending(stdin), b"abc");
    assert_eq!(world.core.input_written(stdin, 3), InputState::Complete);
    assert_eq!(world.sent().len(), 1, "no CREDIT for what was written");
}

#[test]
fn what_is_delivered_is_dropped_first_when_memory_is_short() {
    let mut world = World::new();
    let mut streams = Vec::new();
    for pid in 0..64 {
        let stream = world.spawn(pid + 10, 1 << 20);
        world.core.output_bytes(stream, &vec![0; 1 << 20]);
        world.sent();
        streams.push(stream);
    }
    for stream in &streams[..2] {
        world.frame(Frame::Credit { stream: *stream, consumed: 1 << 20, limit: 1 << 20 });
    }
    world.core.output_ended(streams[1]);
    let late = world.spawn(9, 0);
    assert!(world.core.room(late) > 0);
    world.core.output_bytes(late, &vec![0; 1 << 20]);
    let first = |world: &World, stream| world.entry(stream).unwrap().first;
    assert_eq!(
        (first(&world, streams[0]), first(&world, streams[1])),
        (0, 1 << 20),
        "the ended one goes first"
    );
    let later = world.spawn(8, 0);
    world.core.output_bytes(later, &vec![0; 1 << 20]);
    assert_eq!(first(&world, streams[0]), 1 << 20);
    // Now all is undelivered: others wait, except for the reserve of one that is read.
    let unread = world.spawn(7, 0);
    assert_eq!(world.core.room(unread), 0);
    let read = world.spawn(6, 1 << 20);
    assert_eq!(world.core.room(read), output::RESERVED_BYTES);
    // Nor does one that nobody wants grow.
    world.frame(Frame::Detach { stream: unread });
    world.core.output_bytes(unread, &vec![0; 100_000]);
    assert_eq!(world.entry(unread).unwrap().dropped, 100_000);
    // When somebody reads, those that waited go on.
    world.effects();
    let waiting = world.spawn(5, 0);
    assert_eq!(world.core.room(waiting), 0);
    assert_eq!(world.effects().len(), 0);
    world.frame(Frame::Credit { stream: streams[5], consumed: 1 << 20, limit: 1 << 20 });
    let resumed = world.effects();
    assert!(resumed.iter().any(|effect| matches!(effect, Effect::ReadOutput(stream) if *stream == waiting)));
}

#[test]
fn streams_of_forgotten_processes_go() {
    let mut world = World::new();
    let mut streams = Vec::new();
    for pid in 1..=1003 {
        let stream = world.spawn(pid, 100);
        world.core.output_bytes(stream, b"x");
        world.core.output_ended(stream);
        world.sent();
        if pid != 2 {
            world.frame(Frame::Credit { stream, consumed: 1, limit: 100 });
        }
        world.core.process_exited(pid, 0, None);
        streams.push(stream);
    }
    assert!(world.entry(streams[0]).is_none());
    assert!(world.entry(streams[1]).is_some(), "its byte was not confirmed");
    assert!(world.entry(streams[2]).is_none());
    assert!(world.entry(streams[3]).is_some(), "its process is listed");
    world.frame(Frame::Credit { stream: streams[1], consumed: 1, limit: 100 });
    assert!(world.entry(streams[1]).is_none());
    assert_eq!(world.core.processes.list(|_| true).len(), 1000);
}

#[test]
fn too_many_processes_are_refused() {
    let mut world = World::new();
    for pid in 1..=4096 {
        world.spawn_with(pid, SpawnParams::default());
    }
    let id = world.request(PROCESS_SPAWN, &SpawnParams::default());
    let refused =
        world.sent().into_iter().find(|sent| matches!(sent, Sent::Response { id: this, .. } if *this == id));
    let Some(Sent::Response { ok: false, value, .. }) = refused else { panic!("not refused") };
    assert_eq!(from_msgpack::<Failure>(&value).unwrap().code, Failure::BUDGET);
}

#[test]
fn only_so_many_installs_of_trust_wait() {
    let mut world = World::new();
    let params = TrustInstallParams {
        certificate_pem: "x".to_owned(),
        extra_roots_pem: String::new(),
        env: Default::default(),
    };
    let ids: Vec<u64> = (0..9).map(|_| world.request(TRUST_INSTALL, &params)).collect();
    let effects = world.effects();
    assert_eq!(effects.len(), 8);
    let [Sent::Response { id, ok: false, value }] = &world.sent()[..] else { panic!("one is refused") };
    assert_eq!(from_msgpack::<Failure>(value).unwrap().code, Failure::BUDGET);
    assert_eq!(*id, ids[8]);
    for effect in effects {
        let Effect::InstallTrust(ticket, _) = effect else { panic!("no install but {effect:?}") };
        world.core.trust_installed(ticket, Ok(TrustInstalled { system: true }));
    }
    assert_eq!(world.sent().len(), 8);
    world.request(TRUST_INSTALL, &params);
    assert_eq!(world.effects().len(), 1);
}

#[test]
fn inline_answers_have_a_bound_together() {
    let mut world = World::new();
    let read = ReadParams { path: Text::from("/x"), inline_max: methods::MAX_INLINE_READ, credit: 0 };
    let mut limits = Vec::new();
    for _ in 0..6 {
        world.request(FS_READ, &read);
        match world.effects().pop() {
            Some(Effect::File(_, FileCall::Read { inline_max, .. })) => limits.push(inline_max),
            other => panic!("no file call but {other:?}"),
        }
    }
    assert_eq!(limits, [4 << 20, 4 << 20, 4 << 20, 4 << 20, 0, 0]);
}

#[test]
fn the_host_is_asked_what_has_arrived() {
    let mut world = World::new();
    let mut pings = Vec::new();
    for _ in 0..300 {
        world.request(ENV_ALL, &());
        pings.extend(world.sent().into_iter().filter_map(|sent| match sent {
            Sent::Ping(token) => Some(token),
            _ => None,
        }));
    }
    assert_eq!(pings.len(), 1);
    let before = world.core.requests.remembered_bytes();
    world.frame(Frame::Pong([0xff; 8]));
    assert_eq!(world.core.requests.remembered_bytes(), before);
    world.frame(Frame::Pong(pings[0]));
    assert!(world.core.requests.remembered_bytes() < before / 2);
}

/// A small generator, so that a failure can be repeated from its seed.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % limit.max(1)
    }
}

fn byte_at(offset: u64) -> u8 {
    (offset.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
}

/// What the host of the simulation knows of one stream.
#[derive(Default)]
struct Reading {
    seen: u64,
    limit: u64,
    attached: bool,
    ended: bool,
}

/// Everything that may happen to output streams, in random order: whatever is delivered is right, in order and within
/// its credit, and the totals of the memory are those of the streams.
#[test]
fn random_histories_lose_nothing() {
    for seed in 1..=20 {
        simulate(seed);
    }
}

fn simulate(seed: u64) {
    const LENGTH: u64 = 1_300_000;
    let mut random = Random(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) | 1);
    let mut world = World::new();
    let mut readings: BTreeMap<u32, Reading> = BTreeMap::new();
    for pid in 1..=4 {
        let credit = random.below(2) * 50_000;
        let stream = world.spawn(pid, credit);
        readings.insert(stream, Reading { limit: credit, attached: credit > 0, ..Reading::default() });
    }
    world.sent();
    for step in 0..20_000 {
        let streams: Vec<u32> = readings.keys().copied().collect();
        let stream = streams[random.below(4) as usize];
        match random.below(20) {
            0..=7 => produce(&mut world, stream, random.below(120_000), LENGTH),
            8..=12 => {
                for sent in world.sent() {
                    take(&mut readings, sent, seed, step);
                }
            }
            13..=16 => {
                let reading = readings.get_mut(&stream).unwrap();
                if reading.attached {
                    reading.limit = reading.limit.max(reading.seen + random.below(200_000));
                    world.frame(Frame::Credit { stream, consumed: reading.seen, limit: reading.limit });
                }
            }
            17 | 18 => attach_all(&mut world, &mut readings, &mut random),
            _ => {
                world.now += random.below(u64::from(WINDOW_MS) / 2);
                world.reconnect();
                readings.values_mut().for_each(|reading| reading.attached = false);
                attach_all(&mut world, &mut readings, &mut random);
            }
        }
        check_totals(&world, seed, step);
        if readings.values().all(|reading| reading.ended) {
            return;
        }
    }
    panic!("seed {seed}: streams did not end");
}

/// The source gives bytes as far as there is room, and at last its end.
fn produce(world: &mut World, stream: u32, wanted: u64, length: u64) {
    let next = world.entry(stream).unwrap().next;
    let room = world.core.room(stream) as u64;
    let count = wanted.min(room).min(length - next);
    let bytes: Vec<u8> = (next..next + count).map(byte_at).collect();
    world.core.output_bytes(stream, &bytes);
    if next + count == length {
        world.core.output_ended(stream);
    }
}

fn attach_all(world: &mut World, readings: &mut BTreeMap<u32, Reading>, random: &mut Random) {
    for (stream, reading) in readings.iter_mut().filter(|(_, reading)| !reading.attached) {
        reading.limit = reading.seen + random.below(200_000);
        reading.attached = true;
        reading.ended = false;
        world.frame(Frame::Attach { stream: *stream, from: reading.seen, limit: reading.limit });
    }
}

fn take(readings: &mut BTreeMap<u32, Reading>, sent: Sent, seed: u64, step: u32) {
    match sent {
        Sent::Data { stream, offset, bytes } => {
            let reading = readings.get_mut(&stream).unwrap();
            assert!(reading.attached, "seed {seed}, step {step}: sent to nobody");
            assert_eq!(offset, reading.seen, "seed {seed}, step {step}: wrong offset");
            reading.seen += bytes.len() as u64;
            assert!(reading.seen <= reading.limit, "seed {seed}, step {step}: beyond the credit");
            let right = bytes.iter().zip(offset..).all(|(byte, offset)| *byte == byte_at(offset));
            assert!(right, "seed {seed}, step {step}: wrong bytes");
        }
        Sent::End { stream, total } => {
            let reading = readings.get_mut(&stream).unwrap();
            assert_eq!(total, reading.seen, "seed {seed}, step {step}: END too early");
            assert!(!reading.ended, "seed {seed}, step {step}: END twice");
            reading.ended = true;
        }
        Sent::Gap { .. } => panic!("seed {seed}, step {step}: bytes were lost"),
        _ => {}
    }
}

fn check_totals(world: &World, seed: u64, step: u32) {
    let streams = &world.core.streams;
    let outputs = || streams.list().into_iter().filter_map(|entry| streams.output(entry.stream));
    let held: usize = outputs().map(|output| output.journal.len()).sum();
    let delivered: usize = outputs().map(output::Output::delivered).sum();
    assert_eq!(streams.totals(), (held, delivered), "seed {seed}, step {step}");
}
