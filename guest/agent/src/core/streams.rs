//! All streams of the agent, and the memory that they share.

use std::collections::{BTreeMap, VecDeque};

use skerry_protocol::methods::{StreamEntry, StreamKind};

use super::input::Input;
use super::output::{JOURNAL_BYTES, Outgoing, Output, Reader, Source};

pub const MAX_STREAMS: usize = 8192;
/// Bytes that all journals hold together.
pub const BUDGET_BYTES: usize = 64 * JOURNAL_BYTES;
/// File reads whose END was sent and whose last bytes were never confirmed.
const MAX_UNCONFIRMED_READS: usize = 64;
/// File reads that were delivered, so that an ATTACH after a broken connection can be answered by END.
const MAX_DELIVERED_READS: usize = 256;

#[derive(Default)]
pub struct Streams {
    last_id: u32,
    outputs: BTreeMap<u32, Output>,
    inputs: BTreeMap<u32, Input>,
    /// Outputs with something to send, in turn.
    turns: VecDeque<u32>,
    /// Outputs whose source waits for room.
    paused: Vec<u32>,
    /// Bytes in all journals, and how many of them could be dropped without loss.
    held: usize,
    delivered: usize,
    /// File reads that were delivered, oldest first, with their lengths.
    delivered_reads: VecDeque<(u32, u64)>,
    unconfirmed_reads: VecDeque<u32>,
    /// No window ends before this time (milliseconds of the agent's clock).
    next_deadline: Option<u64>,
    /// There is no connection; the window of what is made now ends then.
    lost_until: Option<u64>,
}

impl Streams {
    /// A new ID, unless there are too many streams or the IDs are used up.
    fn allocate(&mut self) -> Option<u32> {
        if self.outputs.len() + self.inputs.len() >= MAX_STREAMS {
            return None;
        }
        self.last_id = self.last_id.checked_add(1)?;
        Some(self.last_id)
    }

    pub fn has_room_for(&self, count: usize) -> bool {
        self.outputs.len() + self.inputs.len() + count <= MAX_STREAMS
            && self.last_id.checked_add(count as u32).is_some()
    }

    pub fn add_output(&mut self, source: Source, credit: u64) -> Option<u32> {
        let id = self.allocate()?;
        let mut output = Output::new(source, credit);
        if let Some(until) = self.lost_until {
            output.connection_lost(until);
        }
        self.outputs.insert(id, output);
        Some(id)
    }

    pub fn add_input(&mut self, input: Input) -> Option<u32> {
        let id = self.allocate()?;
        self.inputs.insert(id, input);
        Some(id)
    }

    /// Was this ID ever given out?
    pub fn is_known(&self, id: u32) -> bool {
        id != 0 && id <= self.last_id
    }

    /// Does it still exist?
    pub fn is_present(&self, id: u32) -> bool {
        self.outputs.contains_key(&id) || self.inputs.contains_key(&id)
    }

    pub fn output(&self, id: u32) -> Option<&Output> {
        self.outputs.get(&id)
    }

    pub fn input_mut(&mut self, id: u32) -> Option<&mut Input> {
        self.inputs.get_mut(&id)
    }

    pub fn inputs(&self) -> impl Iterator<Item = (u32, &Input)> {
        self.inputs.iter().map(|(id, input)| (*id, input))
    }

    pub fn remove_input(&mut self, id: u32) -> Option<Input> {
        self.inputs.remove(&id)
    }

    pub fn remove_output(&mut self, id: u32) -> Option<Output> {
        let output = self.outputs.remove(&id)?;
        self.held -= output.journal.len();
        self.delivered -= output.delivered();
        Some(output)
    }

    /// Changes an output and keeps the totals right.
    pub fn change<R>(&mut self, id: u32, change: impl FnOnce(&mut Output) -> R) -> Option<R> {
        let output = self.outputs.get_mut(&id)?;
        self.held -= output.journal.len();
        self.delivered -= output.delivered();
        let result = change(output);
        self.held += output.journal.len();
        self.delivered += output.delivered();
        if !output.queued && output.outgoing(1).is_some() {
            output.queued = true;
            self.turns.push_back(id);
        }
        Some(result)
    }

    /// How many bytes the source of `id` may give now; when none, the source is called later through
    /// [`Streams::take_resumable`].
    pub fn room(&mut self, id: u32) -> usize {
        let free = BUDGET_BYTES.saturating_sub(self.held - self.delivered);
        let Some(output) = self.outputs.get_mut(&id) else { return 0 };
        let room = output.room(free);
        if room == 0 && !output.ended && !output.paused {
            output.paused = true;
            self.paused.push(id);
        }
        room
    }

    /// Outputs that waited for room and have it now.
    pub fn take_resumable(&mut self) -> Vec<u32> {
        if self.paused.is_empty() {
            return Vec::new();
        }
        let free = BUDGET_BYTES.saturating_sub(self.held - self.delivered);
        let mut resumable = Vec::new();
        self.paused.retain(|id| match self.outputs.get_mut(id) {
            Some(output) if !output.ended && output.room(free) == 0 => true,
            Some(output) => {
                output.paused = false;
                resumable.push(*id);
                false
            }
            None => false,
        });
        resumable
    }

    /// Bytes came from the source of `id`.
    pub fn append(&mut self, id: u32, bytes: &[u8]) {
        self.change(id, |output| {
            output.journal.append(bytes);
            output.trim();
        });
        self.keep_budget(id);
    }

    /// A whole chunk came from the source of `id`.
    pub fn adopt(&mut self, id: u32, chunk: Vec<u8>) {
        self.change(id, |output| {
            output.journal.adopt(chunk);
            output.trim();
        });
        self.keep_budget(id);
    }

    /// Drops delivered bytes, of ended streams first, when there are too many; then those of `newest`, if nobody wants
    /// them.
    fn keep_budget(&mut self, newest: u32) {
        for ended in [true, false] {
            if self.held <= BUDGET_BYTES || self.delivered == 0 {
                break;
            }
            let mut excess = self.held - BUDGET_BYTES;
            for output in self.outputs.values_mut().filter(|output| output.ended == ended) {
                let dropped = output.drop_delivered(excess);
                self.held -= dropped;
                self.delivered -= dropped;
                excess -= dropped;
                if excess == 0 {
                    break;
                }
            }
        }
        let excess = self.held.saturating_sub(BUDGET_BYTES);
        if excess > 0 {
            self.change(newest, |output| {
                if output.reader == Reader::Detached {
                    output.drop_oldest(excess);
                }
            });
        }
    }

    /// Appends frames to `wire`, each stream in its turn, until it holds about `goal` bytes.
    pub fn fill(&mut self, wire: &mut Vec<u8>, goal: usize, longest: usize) {
        while wire.len() < goal {
            let Some(id) = self.turns.pop_front() else { return };
            let Some(output) = self.outputs.get_mut(&id) else { continue };
            output.queued = false;
            let Some(next) = output.outgoing(longest) else { continue };
            write_frame(id, output, next, wire);
            output.advance(next);
            if matches!(next, Outgoing::End { .. }) && output.source == Source::File {
                self.end_of_read_sent(id);
            }
            self.change(id, |_| ());
        }
    }

    fn end_of_read_sent(&mut self, id: u32) {
        self.unconfirmed_reads.push_back(id);
        self.forget_delivered(id);
        if self.unconfirmed_reads.len() > MAX_UNCONFIRMED_READS {
            if let Some(oldest) = self.unconfirmed_reads.pop_front() {
                self.forget_read(oldest);
            }
        }
    }

    /// Forgets a file read that is delivered.
    pub fn forget_delivered(&mut self, id: u32) {
        let delivered = |output: &&Output| output.source == Source::File && output.is_delivered();
        if self.outputs.get(&id).filter(delivered).is_some() {
            self.unconfirmed_reads.retain(|other| *other != id);
            self.forget_read(id);
        }
    }

    fn forget_read(&mut self, id: u32) {
        let Some(output) = self.remove_output(id) else { return };
        self.delivered_reads.push_back((id, output.journal.next()));
        if self.delivered_reads.len() > MAX_DELIVERED_READS {
            self.delivered_reads.pop_front();
        }
    }

    /// The length of a file read that was delivered not long ago.
    pub fn delivered_read(&self, id: u32) -> Option<u64> {
        self.delivered_reads.iter().find(|(read, _)| *read == id).map(|(_, length)| *length)
    }

    /// File reads that are not at their end yet.
    pub fn reads_under_way(&self) -> usize {
        self.outputs.values().filter(|output| output.source == Source::File && !output.is_end_sent()).count()
    }

    pub fn writes_under_way(&self) -> usize {
        self.inputs.values().filter(|input| input.sink == super::input::Sink::File).count()
    }

    /// The connection is gone: nothing is attached any more.
    pub fn connection_lost(&mut self, until: u64) {
        self.next_deadline = Some(self.next_deadline.map_or(until, |next| next.min(until)));
        self.lost_until = Some(until);
        self.turns.clear();
        for output in self.outputs.values_mut() {
            output.queued = false;
            output.connection_lost(until);
        }
    }

    /// A connection lives. If it is of the same epoch, what was never attached waits without end again; a new epoch has
    /// the rest of the window to attach it.
    pub fn connection_back(&mut self, same_epoch: bool) {
        self.lost_until = None;
        for output in self.outputs.values_mut().filter(|output| same_epoch && !output.was_attached) {
            if matches!(output.reader, Reader::Orphaned { .. }) {
                output.reader = Reader::Orphaned { until: None };
            }
        }
    }

    /// When to call [`Streams::take_expired`]; perhaps earlier than any window really ends.
    pub fn next_deadline(&self) -> Option<u64> {
        self.next_deadline
    }

    /// Outputs whose window has ended by `now`.
    pub fn take_expired(&mut self, now: u64) -> Vec<u32> {
        let mut expired = Vec::new();
        self.next_deadline = None;
        for (id, output) in &self.outputs {
            let Reader::Orphaned { until: Some(until) } = output.reader else { continue };
            if until <= now {
                expired.push(*id);
            } else {
                self.next_deadline = Some(self.next_deadline.map_or(until, |next| next.min(until)));
            }
        }
        expired
    }

    #[cfg(test)]
    pub fn totals(&self) -> (usize, usize) {
        (self.held, self.delivered)
    }

    pub fn list(&self) -> Vec<StreamEntry> {
        let outputs = self.outputs.iter().map(|(id, output)| StreamEntry {
            stream: *id,
            kind: match output.source {
                Source::Process => StreamKind::Output,
                Source::File => StreamKind::File,
            },
            first: output.journal.first(),
            next: output.journal.next(),
            ended: output.ended,
            dropped: output.dropped,
        });
        let inputs = self.inputs.iter().map(|(id, input)| StreamEntry {
            stream: *id,
            kind: StreamKind::Input,
            first: input.written(),
            next: input.received(),
            ended: input.has_ended(),
            dropped: 0,
        });
        let mut all: Vec<_> = outputs.chain(inputs).collect();
        all.sort_by_key(|entry| entry.stream);
        all
    }

    /// The process of an output is no longer listed; true if the stream is gone with it.
    pub fn disown(&mut self, id: u32) -> bool {
        self.change(id, |output| output.owned = false);
        self.forget_settled(id)
    }

    /// Removes an output that nobody can ask for and nobody waits for.
    pub fn forget_settled(&mut self, id: u32) -> bool {
        let is_over = self.outputs.get(&id).is_some_and(|output| !output.owned && output.is_settled());
        is_over && self.remove_output(id).is_some()
    }
}

fn write_frame(id: u32, output: &Output, next: Outgoing, wire: &mut Vec<u8>) {
    use skerry_protocol::frame::{Frame, data_prefix};
    match next {
        Outgoing::Gap { from, to } => Frame::Gap { stream: id, from, to }.encode(wire),
        Outgoing::Data { offset, length } => {
            wire.extend_from_slice(&data_prefix(id, offset, length));
            output.journal.copy_to(offset, length, wire);
        }
        Outgoing::End { total } => Frame::End { stream: id, total }.encode(wire),
    }
}
