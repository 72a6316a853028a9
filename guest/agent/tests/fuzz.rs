//! A host that sends rubbish to a real agent: it hangs up and dials again, and its processes live.
//!
//! `SKERRY_FUZZ_SECONDS` (5) bounds the test, `SKERRY_FUZZ_SEED` repeats it.

mod host;

use std::io::Write;
use std::time::{Duration, Instant, SystemTime};

use host::{Host, TempDir, command, shell};
use skerry_protocol::frame::{FrameType, MAX_PAYLOAD, encode_message};
use skerry_protocol::message::to_msgpack;
use skerry_protocol::methods::*;
use skerry_protocol::{Envelope, Frame, Text};

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: u64) -> u64 {
        (self.next() >> 16) % limit.max(1)
    }

    fn number(&mut self) -> u64 {
        match self.below(4) {
            0 => self.below(10),
            1 => self.below(300_000),
            2 => u64::MAX - self.below(3),
            _ => self.next() >> self.below(64),
        }
    }
}

/// A frame that makes some sense; `directory` is the only place that calls may change.
fn frame(random: &mut Random, next_id: &mut u64, directory: &TempDir) -> Vec<u8> {
    let mut out = Vec::new();
    let (stream, a, b) = (1 + random.below(12) as u32, random.number(), random.number());
    let bytes = vec![7; random.below(3000) as usize + 1];
    let failure = to_msgpack(&skerry_protocol::Failure::new("RESET", "x"));
    match random.below(9) {
        0 => Frame::Ping(a.to_be_bytes()).encode(&mut out),
        1 => Frame::Pong(a.to_be_bytes()).encode(&mut out),
        2 => Frame::Data { stream, offset: random.below(2) * a, bytes: &bytes }.encode(&mut out),
        3 => Frame::End { stream, total: random.below(2) * a }.encode(&mut out),
        4 => Frame::Credit { stream, consumed: random.below(2) * a, limit: b }.encode(&mut out),
        5 => Frame::Attach { stream, from: random.below(2) * a, limit: b }.encode(&mut out),
        6 => Frame::Detach { stream }.encode(&mut out),
        7 => Frame::Reset { stream, body: &failure }.encode(&mut out),
        _ => {
            *next_id += 1;
            let (method, params) = call(random, directory);
            let envelope = Envelope { id: *next_id, acked: 0, method, params: &params };
            encode_message(FrameType::Request, *next_id as u32, &envelope.encode(), &mut out);
        }
    }
    out
}

fn call(random: &mut Random, directory: &TempDir) -> (&'static str, Vec<u8>) {
    let names = ["file", "file/below", "a/b/c", "", "fifo", "../x", "link"];
    let path = match random.below(8) {
        0 => Text::from("/dev/zero"),
        1 => Text::from("/dev/full"),
        _ => directory.text(names[random.below(5) as usize]),
    };
    let stdio = [Stdio::Piped, Stdio::Null];
    match random.below(11) {
        0 => {
            let spawn = SpawnParams {
                stdin: random.below(2) == 0,
                stdout: stdio[random.below(2) as usize],
                credit: random.number(),
                ..shell(
                    ["cat", "true", "head -c 3000000 /dev/zero", "exec no-such"][random.below(4) as usize],
                )
            };
            (PROCESS_SPAWN, to_msgpack(&spawn))
        }
        1 => (PROCESS_LIST, to_msgpack(&())),
        2 => (STREAM_LIST, to_msgpack(&())),
        3 => {
            let read = ReadParams { path, inline_max: random.number() % (5 << 20), credit: random.number() };
            (FS_READ, to_msgpack(&read))
        }
        4 => {
            let open =
                WriteOpenParams { path, append: false, create: true, create_new: false, mode: Some(0o666) };
            (FS_WRITE_OPEN, to_msgpack(&open))
        }
        5 => (FS_WRITE_CLOSE, to_msgpack(&StreamRef { stream: random.below(12) as u32 })),
        6 => (FS_MKDIR, to_msgpack(&MkdirParams { path, recursive: true, mode: Some(0o777) })),
        7 => (FS_READ_DIR, to_msgpack(&PathParams { path })),
        8 => {
            let remove =
                RemoveParams { path: directory.text(names[random.below(3) as usize]), recursive: true };
            (FS_REMOVE, to_msgpack(&remove))
        }
        9 => (FS_STAT, to_msgpack(&StatParams { path, follow: random.below(2) == 0 })),
        _ => ("x", vec![0xc0]),
    }
}

/// Changes some bytes of what is to be sent.
fn damage(random: &mut Random, bytes: &mut [u8]) {
    if !bytes.is_empty() && bytes.len() < MAX_PAYLOAD && random.below(3) == 0 {
        let at = random.below(bytes.len() as u64) as usize;
        bytes[at] ^= 1 << random.below(8);
    }
}

#[test]
fn nothing_that_a_host_sends_ends_the_agent() {
    let setting = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let clock = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a clock").as_nanos() as u64;
    let seed = setting("SKERRY_FUZZ_SEED").unwrap_or(clock).max(1);
    println!("SKERRY_FUZZ_SEED={seed}");
    let mut random = Random(seed);
    let end = Instant::now() + Duration::from_secs(setting("SKERRY_FUZZ_SECONDS").unwrap_or(5));

    let mut host = Host::start();
    let directory = TempDir::new();
    let witness =
        host.spawn(&SpawnParams { stdout: Stdio::Null, stderr: Stdio::Null, ..command("sleep", &["1000"]) });
    let mut next_id = 1_000_000;
    while Instant::now() < end {
        let mut bytes = Vec::new();
        for _ in 0..random.below(30) {
            bytes.extend(frame(&mut random, &mut next_id, &directory));
        }
        damage(&mut random, &mut bytes);
        // The agent may hang up in the middle.
        let mut socket = host.socket();
        let _ = socket.write_all(&bytes);
        host.hang_up();
        host.accept_again();
    }
    host.redial_with_new_epoch();
    let list = host.call::<ProcessList>(PROCESS_LIST, &()).expect("the agent answers").processes;
    let sleeping = list.iter().find(|entry| entry.pid == witness.pid).expect("the process is listed");
    assert_eq!(sleeping.exit, None);
    // What the random calls have started goes with its agent's streams, or here.
    for entry in list {
        let kill = KillParams { pid: entry.pid, signal: "SIGKILL".to_owned(), group: true };
        host.code_of(PROCESS_KILL, &kill);
    }
}
