//! One input stream: bytes from the host on their way to a pipe or a file.

use std::collections::VecDeque;

use skerry_protocol::Violation;

/// What a host may send before the first CREDIT.
pub const INITIAL_LIMIT: u64 = 262_144;
/// Files take more at once, so that the host and the disk work at the same time.
const FILE_WINDOW: u64 = 1024 * 1024;
/// Less than this need not be confirmed before END.
const CONFIRM_BYTES: u64 = 4096;
/// So that many tiny frames do not cost much more memory than their bytes.
const SMALLEST_CHUNK_BYTES: usize = 512;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sink {
    Stdin,
    File,
}

pub struct Input {
    pub sink: Sink,
    chunks: VecDeque<Vec<u8>>,
    /// Bytes of the front chunk that are written already.
    skipped: usize,
    received: u64,
    written: u64,
    limit: u64,
    /// `written` when the last CREDIT went out.
    credited: u64,
    ended: bool,
}

impl Input {
    pub fn new(sink: Sink) -> Input {
        Input {
            sink,
            chunks: VecDeque::new(),
            skipped: 0,
            received: 0,
            written: 0,
            limit: INITIAL_LIMIT,
            credited: 0,
            ended: false,
        }
    }

    pub fn received(&self) -> u64 {
        self.received
    }

    pub fn written(&self) -> u64 {
        self.written
    }

    pub fn limit(&self) -> u64 {
        self.limit
    }

    pub fn has_ended(&self) -> bool {
        self.ended
    }

    pub fn is_complete(&self) -> bool {
        self.ended && self.written == self.received
    }

    pub fn data(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Violation> {
        if self.ended {
            return Err(Violation("DATA after END"));
        }
        if offset != self.received {
            return Err(Violation("DATA at another offset than expected"));
        }
        if offset + bytes.len() as u64 > self.limit {
            return Err(Violation("DATA beyond the limit"));
        }
        self.received += bytes.len() as u64;
        match self.chunks.back_mut().filter(|last| last.capacity() - last.len() >= bytes.len()) {
            Some(last) => last.extend_from_slice(bytes),
            None => {
                let mut chunk = Vec::with_capacity(bytes.len().max(SMALLEST_CHUNK_BYTES));
                chunk.extend_from_slice(bytes);
                self.chunks.push_back(chunk);
            }
        }
        Ok(())
    }

    /// END; a second one with the same total is what a host sends that does not know whether the first arrived.
    pub fn end(&mut self, total: u64) -> Result<(), Violation> {
        if total != self.received {
            return Err(Violation("END at another offset than expected"));
        }
        self.ended = true;
        Ok(())
    }

    /// The oldest bytes that are not written yet.
    pub fn pending(&self) -> &[u8] {
        self.chunks.front().map_or(&[], |front| &front[self.skipped..])
    }

    /// Hands all pending bytes over; they are reported by [`Input::wrote`] when they are written.
    pub fn take_pending(&mut self) -> Vec<Vec<u8>> {
        debug_assert_eq!(self.skipped, 0);
        self.chunks.drain(..).collect()
    }

    /// `count` pending bytes were written.
    pub fn wrote(&mut self, count: usize) {
        self.written += count as u64;
        self.skipped += count;
        while let Some(front) = self.chunks.front() {
            if self.skipped < front.len() {
                break;
            }
            self.skipped -= front.len();
            self.chunks.pop_front();
        }
    }

    /// `count` bytes that had been taken by [`Input::take_pending`] were written.
    pub fn wrote_taken(&mut self, count: usize) {
        self.written += count as u64;
    }

    /// The CREDIT to send: when the host is halfway to its limit, and when everything is written. The latter because
    /// a host that is short of memory stops long before its limit, until what it sent is confirmed.
    pub fn credit_due(&mut self) -> Option<(u64, u64)> {
        let window = match self.sink {
            Sink::Stdin => INITIAL_LIMIT,
            Sink::File => FILE_WINDOW,
        };
        let unconfirmed = self.written - self.credited;
        let halfway = self.limit - self.received <= window / 2;
        let idle = self.written == self.received && (self.ended || unconfirmed >= CONFIRM_BYTES);
        if unconfirmed == 0 || !(halfway || idle) {
            return None;
        }
        self.credited = self.written;
        self.limit = self.limit.max(self.written.saturating_add(window));
        Some((self.written, self.limit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_next_bytes_below_the_limit_are_taken() {
        let mut input = Input::new(Sink::Stdin);
        assert!(input.data(0, b"abc").is_ok());
        assert!(input.data(0, b"abc").is_err());
        assert!(input.data(4, b"x").is_err());
        assert!(input.data(3, &vec![0; INITIAL_LIMIT as usize - 3]).is_ok());
        assert!(input.data(INITIAL_LIMIT, b"x").is_err());
        assert!(input.end(5).is_err());
        assert!(input.end(INITIAL_LIMIT).is_ok());
        assert!(input.data(INITIAL_LIMIT, b"x").is_err());
    }

    #[test]
    fn credit_follows_what_is_written() {
        let mut input = Input::new(Sink::Stdin);
        let half = INITIAL_LIMIT as usize / 2;
        input.data(0, &vec![1; half]).unwrap();
        assert_eq!(input.credit_due(), None);
        let mut written = 0;
        while !input.pending().is_empty() {
            let part = input.pending().len().min(50_000);
            written += part;
            input.wrote(part);
        }
        assert_eq!(written, half);
        assert_eq!(input.credit_due(), Some((half as u64, half as u64 + INITIAL_LIMIT)));
        assert_eq!(input.credit_due(), None);
    }

    #[test]
    fn a_host_that_sends_less_than_it_may_is_confirmed_too() {
        let mut input = Input::new(Sink::Stdin);
        input.data(0, &[1; 4095]).unwrap();
        input.wrote(4095);
        assert_eq!(input.credit_due(), None);
        input.data(4095, &[1; 4096]).unwrap();
        input.wrote(4095);
        assert_eq!(input.credit_due(), None);
        input.wrote(1);
        assert_eq!(input.credit_due(), Some((8191, 8191 + INITIAL_LIMIT)));
    }

    #[test]
    fn the_end_is_confirmed_however_little_was_sent() {
        let mut input = Input::new(Sink::File);
        input.data(0, b"abc").unwrap();
        assert_eq!(input.take_pending(), [b"abc".to_vec()]);
        input.end(3).unwrap();
        assert!(!input.is_complete());
        input.wrote_taken(3);
        assert!(input.is_complete());
        assert_eq!(input.credit_due(), Some((3, 3 + FILE_WINDOW)));
    }

    #[test]
    fn tiny_frames_share_chunks() {
        let mut input = Input::new(Sink::Stdin);
        for offset in 0..10_000 {
            input.data(offset, b"x").unwrap();
        }
        assert!(input.chunks.len() <= 10_000 / SMALLEST_CHUNK_BYTES + 1);
    }
}
