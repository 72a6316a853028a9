//! Frames on their way to the host: what answers goes before what flows.

use std::collections::VecDeque;
use std::rc::Rc;

use skerry_protocol::Frame;
use skerry_protocol::frame::MAX_PAYLOAD;
use skerry_protocol::message::to_msgpack;

/// Responses up to this size keep their place among the other short frames; longer ones go after those, a frame at a
/// time, so that a large answer does not delay small ones.
const SHORT_RESPONSE: usize = 32 * 1024;
/// While so many bytes of short frames wait, no more is read from the host: it does not read what it asks for.
const CONGESTED_BYTES: usize = 1024 * 1024;

struct LongResponse {
    number: u32,
    message: Rc<[u8]>,
    sent: usize,
}

#[derive(Default)]
pub struct Outbox {
    short: Vec<u8>,
    long: VecDeque<LongResponse>,
    next_number: u32,
}

impl Outbox {
    pub fn frame(&mut self, frame: Frame<'_>) {
        frame.encode(&mut self.short);
    }

    pub fn response(&mut self, message: &Rc<[u8]>) {
        self.next_number = self.next_number.wrapping_add(1);
        let number = self.next_number;
        if message.len() <= SHORT_RESPONSE {
            self.frame(Frame::Response { number, more: false, part: message });
        } else if !self.long.iter().any(|queued| Rc::ptr_eq(&queued.message, message)) {
            self.long.push_back(LongResponse { number, message: message.clone(), sent: 0 });
        }
    }

    pub fn reset(&mut self, stream: u32, failure: &skerry_protocol::Failure) {
        self.frame(Frame::Reset { stream, body: &to_msgpack(failure) });
    }

    pub fn has_long_responses(&self) -> bool {
        !self.long.is_empty()
    }

    pub fn is_congested(&self) -> bool {
        self.short.len() > CONGESTED_BYTES
    }

    /// Moves frames to `wire` until it holds about `goal` bytes. Returns false if some are left.
    pub fn fill(&mut self, wire: &mut Vec<u8>, goal: usize) -> bool {
        if wire.is_empty() {
            std::mem::swap(wire, &mut self.short);
        } else {
            wire.append(&mut self.short);
        }
        while let Some(response) = self.long.front_mut() {
            if wire.len() >= goal {
                return false;
            }
            let rest = &response.message[response.sent..];
            let part = &rest[..rest.len().min(MAX_PAYLOAD)];
            let more = part.len() < rest.len();
            Frame::Response { number: response.number, more, part }.encode(wire);
            response.sent += part.len();
            if !more {
                self.long.pop_front();
            }
        }
        true
    }

    pub fn clear(&mut self) {
        self.short.clear();
        self.long.clear();
    }
}
