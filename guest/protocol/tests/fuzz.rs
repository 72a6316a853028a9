//! The decoders against bytes that nobody would send: changed golden vectors and noise, from a seed that is printed.
//!
//! `SKERRY_FUZZ_SECONDS` (5) bounds each test, `SKERRY_FUZZ_SEED` repeats one.

mod common;

use std::time::{Duration, Instant, SystemTime};

use common::{METHODS, canonical_frame, from_hex, load, recode_method, to_json};
use skerry_protocol::message::{MAX_MESSAGE, MAX_UNFINISHED, Response};
use skerry_protocol::{Assembler, Envelope, Frame, FrameBuffer};

/// xorshift64*: good enough to choose bytes, and short.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: usize) -> usize {
        ((self.next() >> 32) as usize * limit.max(1)) >> 32
    }

    fn bytes(&mut self, longest: usize) -> Vec<u8> {
        (0..self.below(longest)).map(|_| self.next() as u8).collect()
    }
}

fn start() -> (Random, Instant) {
    let setting = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let clock = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a clock").as_nanos() as u64;
    let seed = setting("SKERRY_FUZZ_SEED").unwrap_or(clock).max(1);
    println!("SKERRY_FUZZ_SEED={seed}");
    (Random(seed), Instant::now() + Duration::from_secs(setting("SKERRY_FUZZ_SECONDS").unwrap_or(5)))
}

/// Every frame of the golden files, good or bad.
fn corpus() -> Vec<Vec<u8>> {
    let golden = load("golden/gen-1.json");
    let all =
        ["valid", "invalid"].into_iter().flat_map(|kind| golden[kind].as_array().expect("vectors").iter());
    all.map(|case| from_hex(&case["hex"])).collect()
}

fn mutate(random: &mut Random, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = corpus[random.below(corpus.len())].clone();
    for _ in 0..=random.below(6) {
        let at = random.below(bytes.len());
        match random.below(9) {
            0..=2 if !bytes.is_empty() => bytes[at] = random.next() as u8,
            3 if !bytes.is_empty() => bytes[at] ^= 1 << random.below(8),
            4 => bytes.truncate(at),
            5 => bytes.splice(at..at, random.bytes(20)).for_each(drop),
            6 if !bytes.is_empty() => drop(bytes.remove(at)),
            7 => bytes.extend_from_slice(&corpus[random.below(corpus.len())]),
            _ => {
                // The length as it should be, so that what is inside is reached.
                let length = (bytes.len().saturating_sub(12) as u32).to_be_bytes();
                bytes.iter_mut().zip(length).for_each(|(byte, length)| *byte = length);
            }
        }
    }
    bytes
}

/// Feeds bytes in parts of random sizes; every frame that comes out must be written as it was read.
fn decode(random: &mut Random, bytes: &[u8], mut take: impl FnMut(Frame<'_>)) {
    let mut buffer = FrameBuffer::default();
    let mut rest = bytes;
    let mut frames = Vec::new();
    'all: while !rest.is_empty() {
        let space = buffer.space();
        assert!(space.len() <= skerry_protocol::frame::MAX_FRAME);
        let (part, after) = rest.split_at((1 + random.below(50)).min(space.len()).min(rest.len()));
        space[..part.len()].copy_from_slice(part);
        buffer.filled(part.len());
        rest = after;
        loop {
            match buffer.next_frame() {
                Ok(Some(frame)) => {
                    frame.encode(&mut frames);
                    take(frame);
                }
                Ok(None) => break,
                Err(_) => break 'all,
            }
        }
    }
    assert!(bytes.starts_with(&frames), "a frame is not written as it was read");
}

#[test]
fn the_decoders_take_any_bytes() {
    let (mut random, end) = start();
    let corpus = corpus();
    let mut frames = 0_u64;
    while Instant::now() < end {
        for _ in 0..200 {
            let bytes = if random.below(20) == 0 { random.bytes(400) } else { mutate(&mut random, &corpus) };
            decode(&mut random, &bytes, |frame| {
                frames += 1;
                if let Ok(typed) = canonical_frame(&frame) {
                    let mut again = FrameBuffer::default();
                    again.space()[..typed.len()].copy_from_slice(&typed);
                    again.filled(typed.len());
                    let read = again.next_frame().expect("our own frame").expect("a whole frame");
                    assert_eq!(canonical_frame(&read).as_ref(), Ok(&typed));
                }
            });
        }
    }
    assert!(frames > 1000, "only {frames} frames were reached");
}

#[test]
fn the_message_types_take_any_bytes() {
    let (mut random, end) = start();
    let corpus: Vec<Vec<u8>> =
        corpus().into_iter().filter_map(|frame| Some(frame.get(12..)?.to_vec())).collect();
    while Instant::now() < end {
        for _ in 0..200 {
            let bytes = mutate(&mut random, &corpus);
            let bytes = bytes.as_slice();
            let _ = to_json(bytes);
            let params = Envelope::parse(bytes).map(|envelope| envelope.params).unwrap_or(bytes);
            let value = Response::parse(bytes).map(|response| response.value).unwrap_or(bytes);
            for method in METHODS {
                for (half, bytes) in [("params", params), ("value", value)] {
                    if let Ok(written) = recode_method(method, half, bytes) {
                        assert_eq!(recode_method(method, half, &written), Ok(written));
                    }
                }
            }
        }
    }
}

#[test]
fn messages_are_put_together_within_their_bounds() {
    let (mut random, end) = start();
    let part = vec![0_u8; 262_132];
    while Instant::now() < end {
        let mut assembler = Assembler::default();
        let mut unfinished = std::collections::HashMap::new();
        for _ in 0..400 {
            let number = random.below(40) as u32;
            let more = random.below(30) != 0;
            let part = &part[..random.below(part.len())];
            let held = unfinished.get(&number).copied().unwrap_or(0) + part.len();
            match assembler.push(number, more, part) {
                Err(_) => break,
                Ok(None) => {
                    assert!(more);
                    unfinished.insert(number, held);
                }
                Ok(Some(message)) => {
                    assert!(!more);
                    assert_eq!(message.len(), held);
                    unfinished.remove(&number);
                }
            }
            assert!(held <= MAX_MESSAGE);
            assert!(unfinished.values().sum::<usize>() <= MAX_UNFINISHED);
        }
    }
}
