//! The last bytes of an output stream, addressed by their offset in it.

use std::collections::VecDeque;

/// Chunks grow up to this size; a chunk taken over from a file read may be larger.
const CHUNK_BYTES: usize = 64 * 1024;
/// Smallest allocation of a chunk.
const FIRST_CHUNK_BYTES: usize = 256;

/// Bytes `first..next` of a stream, in chunks, so that an idle stream holds no memory.
#[derive(Default)]
pub struct Journal {
    chunks: VecDeque<Vec<u8>>,
    /// Bytes of the front chunk that are dropped already.
    skipped: usize,
    first: u64,
    next: u64,
}

impl Journal {
    /// Offset of the oldest byte held.
    pub fn first(&self) -> u64 {
        self.first
    }

    /// Offset that the next appended byte gets.
    pub fn next(&self) -> u64 {
        self.next
    }

    pub fn len(&self) -> usize {
        (self.next - self.first) as usize
    }

    pub fn append(&mut self, mut bytes: &[u8]) {
        self.next += bytes.len() as u64;
        if let Some(last) = self.chunks.back_mut() {
            let spare = last.capacity() - last.len();
            let (fits, rest) = bytes.split_at(bytes.len().min(spare));
            last.extend_from_slice(fits);
            bytes = rest;
        }
        while !bytes.is_empty() {
            // Each chunk doubles the one before, so that many small writes make few chunks.
            let grown = self.chunks.back().map_or(FIRST_CHUNK_BYTES, |last| last.capacity() * 2);
            let (part, rest) = bytes.split_at(bytes.len().min(CHUNK_BYTES));
            let mut chunk = Vec::with_capacity(grown.min(CHUNK_BYTES).max(part.len()));
            chunk.extend_from_slice(part);
            self.chunks.push_back(chunk);
            bytes = rest;
        }
    }

    /// Takes a whole chunk over without copying it.
    pub fn adopt(&mut self, chunk: Vec<u8>) {
        if !chunk.is_empty() {
            self.next += chunk.len() as u64;
            self.chunks.push_back(chunk);
        }
    }

    /// Drops the bytes below `offset`; says how many.
    pub fn drop_below(&mut self, offset: u64) -> usize {
        let goal = offset.clamp(self.first, self.next);
        let dropped = (goal - self.first) as usize;
        self.first = goal;
        self.skipped += dropped;
        while let Some(front) = self.chunks.front() {
            if self.skipped < front.len() {
                break;
            }
            self.skipped -= front.len();
            self.chunks.pop_front();
        }
        dropped
    }

    /// Appends bytes `from..from + length` to `out`; what is not held is left out.
    pub fn copy_to(&self, from: u64, length: usize, out: &mut Vec<u8>) {
        let Some(ahead) = from.checked_sub(self.first) else { return };
        let mut ahead = ahead as usize + self.skipped;
        let mut length = length;
        for chunk in &self.chunks {
            if ahead >= chunk.len() {
                ahead -= chunk.len();
                continue;
            }
            let part = &chunk[ahead..chunk.len().min(ahead + length)];
            out.extend_from_slice(part);
            length -= part.len();
            ahead = 0;
            if length == 0 {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{CHUNK_BYTES, Journal};

    fn held(journal: &Journal) -> Vec<u8> {
        let mut out = Vec::new();
        journal.copy_to(journal.first(), journal.len(), &mut out);
        out
    }

    #[test]
    fn an_empty_journal_holds_no_memory() {
        let journal = Journal::default();
        assert_eq!((journal.first(), journal.next(), journal.len()), (0, 0, 0));
        assert_eq!(journal.chunks.capacity(), 0);
    }

    #[test]
    fn bytes_keep_their_offsets_across_chunks() {
        let mut journal = Journal::default();
        let bytes: Vec<u8> = (0..3 * CHUNK_BYTES + 17).map(|i| (i % 251) as u8).collect();
        for part in bytes.chunks(1000) {
            journal.append(part);
        }
        assert_eq!(held(&journal), bytes);
        assert_eq!(journal.drop_below(70_000), 70_000);
        assert_eq!(held(&journal), &bytes[70_000..]);
        let mut middle = Vec::new();
        journal.copy_to(130_000, 5000, &mut middle);
        assert_eq!(middle, &bytes[130_000..135_000]);
    }

    #[test]
    fn one_byte_at_a_time_makes_few_chunks() {
        let mut journal = Journal::default();
        for i in 0..200_000_u32 {
            journal.append(&[i as u8]);
        }
        assert!(journal.chunks.len() < 16, "{} chunks", journal.chunks.len());
    }

    #[test]
    fn adopted_chunks_and_appended_bytes_mix() {
        let mut journal = Journal::default();
        journal.append(b"ab");
        journal.adopt(b"cdef".to_vec());
        journal.append(b"gh");
        assert_eq!(held(&journal), b"abcdefgh");
        journal.drop_below(3);
        assert_eq!(held(&journal), b"defgh");
        journal.drop_below(100);
        assert_eq!((journal.first(), journal.next(), journal.len()), (8, 8, 0));
        assert!(journal.chunks.is_empty());
    }

    #[test]
    fn what_is_gone_cannot_be_copied() {
        let mut journal = Journal::default();
        journal.append(b"0123456789");
        journal.drop_below(4);
        let mut out = Vec::new();
        journal.copy_to(2, 3, &mut out);
        assert!(out.is_empty());
        journal.copy_to(8, 100, &mut out);
        assert_eq!(out, b"89");
    }
}
