//! One output stream: what it holds, how far it was sent, who reads it.

use skerry_protocol::Violation;

use super::journal::Journal;

/// Each process output keeps its last bytes up to here, and is not read while so many are undelivered.
pub const JOURNAL_BYTES: usize = 1024 * 1024;
/// An attached stream may hold so much even when the budget of all journals is used up, so that streams which nobody
/// reads cannot stop one that is read.
pub const RESERVED_BYTES: usize = 16 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    Process,
    File,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    /// Bytes below `limit` may be sent.
    Attached {
        limit: u64,
    },
    /// Nobody reads now; from `until` (milliseconds of the agent's clock) on it counts as detached.
    Orphaned {
        until: Option<u64>,
    },
    Detached,
}

/// The next thing to send for a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outgoing {
    Gap { from: u64, to: u64 },
    Data { offset: u64, length: usize },
    End { total: u64 },
}

pub struct Output {
    pub source: Source,
    pub journal: Journal,
    pub reader: Reader,
    /// Was a reader attached at some time?
    pub was_attached: bool,
    /// Everything below was delivered for good.
    consumed: u64,
    /// Next offset to send to the attached reader.
    sent: u64,
    pub ended: bool,
    end_sent: bool,
    /// Its process is still listed; if not, the stream goes when it is settled.
    pub owned: bool,
    /// Bytes dropped before anybody had them.
    pub dropped: u64,
    /// The driver was told that there is no room, and waits to be called.
    pub paused: bool,
    /// Waits for its turn in the outbox.
    pub queued: bool,
}

impl Output {
    pub fn new(source: Source, credit: u64) -> Output {
        let reader = match credit {
            0 => Reader::Orphaned { until: None },
            limit => Reader::Attached { limit },
        };
        Output {
            source,
            journal: Journal::default(),
            reader,
            was_attached: credit > 0,
            consumed: 0,
            sent: 0,
            ended: false,
            end_sent: false,
            owned: true,
            dropped: 0,
            paused: false,
            queued: false,
        }
    }

    /// Bytes held that nobody has confirmed to have.
    pub fn undelivered(&self) -> usize {
        (self.journal.next() - self.consumed.max(self.journal.first())) as usize
    }

    /// Bytes held that could be dropped without loss.
    pub fn delivered(&self) -> usize {
        self.journal.len() - self.undelivered()
    }

    /// How many bytes may be taken from the source now, when all journals together have room for `free`.
    pub fn room(&self, free: usize) -> usize {
        if self.ended {
            return 0;
        }
        let undelivered = self.undelivered();
        let wanted = JOURNAL_BYTES.saturating_sub(undelivered);
        match self.reader {
            Reader::Detached => JOURNAL_BYTES,
            Reader::Orphaned { .. } => wanted.min(free),
            Reader::Attached { limit } => {
                // A file can be read when its reader wants it; a pipe's writer should not have to wait for that.
                let wanted = match self.source {
                    Source::File => wanted.min(limit.saturating_sub(self.journal.next()) as usize),
                    Source::Process => wanted,
                };
                wanted.min(free.max(RESERVED_BYTES.saturating_sub(undelivered)))
            }
        }
    }

    /// Drops what exceeds the journal's size: delivered bytes, and for a detached stream the oldest ones.
    pub fn trim(&mut self) {
        let excess = self.journal.len().saturating_sub(JOURNAL_BYTES);
        let oldest_kept = match (self.source, self.reader) {
            (Source::File, _) => self.consumed,
            (Source::Process, Reader::Detached) => self.journal.first() + excess as u64,
            (Source::Process, _) => (self.journal.first() + excess as u64).min(self.consumed),
        };
        self.drop_below(oldest_kept);
    }

    /// Drops up to `wanted` delivered bytes, oldest first.
    pub fn drop_delivered(&mut self, wanted: usize) -> usize {
        let drop = self.delivered().min(wanted);
        self.journal.drop_below(self.journal.first() + drop as u64)
    }

    /// Drops the `wanted` oldest bytes, counting those that nobody had.
    pub fn drop_oldest(&mut self, wanted: usize) {
        self.drop_below(self.journal.first() + wanted as u64);
    }

    fn drop_below(&mut self, offset: u64) {
        let lost_from = self.consumed.max(self.journal.first());
        let dropped = self.journal.drop_below(offset);
        if dropped > 0 {
            self.dropped += self.journal.first().saturating_sub(lost_from);
        }
    }

    /// The reader went away, while its connection lives.
    pub fn release(&mut self) {
        if matches!(self.reader, Reader::Attached { .. }) {
            self.reader = Reader::Orphaned { until: None };
        }
    }

    /// ATTACH: somebody reads from `from` on, which is no later than the last byte, and may be sent bytes below `limit`.
    pub fn attach(&mut self, from: u64, limit: u64) {
        self.reader = Reader::Attached { limit };
        self.was_attached = true;
        self.sent = from;
        // What this reader wants to see again counts as undelivered again.
        self.consumed = from;
        self.end_sent = false;
        if self.source == Source::File {
            self.trim();
        }
    }

    /// CREDIT. Nothing happens while nobody is attached, as when it crossed a DETACH.
    pub fn credit(&mut self, consumed: u64, new_limit: u64) -> Result<(), Violation> {
        let Reader::Attached { limit } = &mut self.reader else { return Ok(()) };
        if consumed > self.sent {
            return Err(Violation("CREDIT for bytes that were not sent"));
        }
        *limit = new_limit.max(*limit);
        self.consumed = self.consumed.max(consumed);
        self.trim();
        Ok(())
    }

    /// The connection broke at a time when `until` was the end of its window.
    pub fn connection_lost(&mut self, until: u64) {
        match self.reader {
            // One that was lost before and is not attached again keeps its own window.
            Reader::Detached | Reader::Orphaned { until: Some(_) } => {}
            Reader::Attached { .. } | Reader::Orphaned { until: None } => {
                self.reader = Reader::Orphaned { until: Some(until) };
            }
        }
    }

    /// What is to be sent next, if anything; see [`Output::advance`].
    pub fn outgoing(&self, longest: usize) -> Option<Outgoing> {
        let Reader::Attached { limit } = self.reader else { return None };
        if self.sent < self.journal.first() {
            return Some(Outgoing::Gap { from: self.sent, to: self.journal.first() });
        }
        let sendable = self.journal.next().min(limit).saturating_sub(self.sent);
        if sendable > 0 {
            return Some(Outgoing::Data { offset: self.sent, length: longest.min(sendable as usize) });
        }
        let finished = self.ended && self.sent == self.journal.next() && !self.end_sent;
        finished.then_some(Outgoing::End { total: self.journal.next() })
    }

    /// What [`Output::outgoing`] said was sent.
    pub fn advance(&mut self, sent: Outgoing) {
        match sent {
            Outgoing::Gap { to, .. } => self.sent = to,
            Outgoing::Data { offset, length } => self.sent = offset + length as u64,
            Outgoing::End { .. } => self.end_sent = true,
        }
    }

    /// END was sent and every byte confirmed.
    pub fn is_delivered(&self) -> bool {
        self.end_sent && self.consumed == self.journal.next()
    }

    /// Ended, and nobody waits for its bytes.
    pub fn is_settled(&self) -> bool {
        self.ended && (self.undelivered() == 0 || self.reader == Reader::Detached)
    }

    /// END was sent, whether or not every byte was confirmed.
    pub fn is_end_sent(&self) -> bool {
        self.end_sent
    }
}
