//! The processes that were spawned: those that run and the last ones that ended.

use std::collections::{BTreeMap, VecDeque};

use skerry_protocol::Text;
use skerry_protocol::methods::{ExitStatus, ProcessEntry};

pub const MAX_RUNNING: usize = 4096;
const MAX_ENDED: usize = 1000;

pub struct Process {
    pub entry: ProcessEntry,
    /// Killed to free memory; so its EXIT says.
    pub reclaimed: bool,
}

#[derive(Default)]
pub struct Processes {
    running: BTreeMap<u32, Process>,
    ended: VecDeque<ProcessEntry>,
}

impl Processes {
    pub fn running(&self) -> usize {
        self.running.len()
    }

    pub fn add(&mut self, entry: ProcessEntry) {
        self.running.insert(entry.pid, Process { entry, reclaimed: false });
    }

    pub fn running_mut(&mut self) -> impl Iterator<Item = &mut Process> {
        self.running.values_mut()
    }

    pub fn is_running(&self, pid: u32) -> bool {
        self.running.contains_key(&pid)
    }

    pub fn has_ended(&self, pid: u32) -> bool {
        self.ended.iter().any(|entry| entry.pid == pid)
    }

    /// A process was reaped. Answers how it ended, unless it is none of ours, and the entry that had to make room.
    pub fn exited(
        &mut self,
        pid: u32,
        code: u8,
        signal: Option<String>,
    ) -> Option<(ExitStatus, Option<ProcessEntry>)> {
        let Process { mut entry, reclaimed } = self.running.remove(&pid)?;
        let oom = reclaimed && signal.as_deref() == Some("SIGKILL");
        let status = ExitStatus { code, signal, oom };
        entry.exit = Some(status.clone());
        self.ended.push_back(entry);
        let forgotten = if self.ended.len() > MAX_ENDED { self.ended.pop_front() } else { None };
        Some((status, forgotten))
    }

    /// Ended ones first, oldest first; `shown` says which streams still exist.
    pub fn list(&self, shown: impl Fn(u32) -> bool) -> Vec<ProcessEntry> {
        let running = self.running.values().map(|process| &process.entry);
        let mut all: Vec<_> = self.ended.iter().chain(running).cloned().collect();
        for entry in &mut all {
            for stream in [&mut entry.stdin, &mut entry.stdout, &mut entry.stderr] {
                *stream = stream.filter(|id| shown(*id));
            }
        }
        all
    }
}

/// What is kept of a command line for `process.list`, so that a thousand huge ones do not stay in memory.
pub fn shortened(command: &Text, args: &[Text]) -> (Text, Vec<Text>) {
    const LONGEST: usize = 512;
    let cut = |text: &Text| {
        let end = match std::str::from_utf8(text.as_bytes()) {
            Ok(valid) => {
                (0..=LONGEST.min(valid.len())).rev().find(|end| valid.is_char_boundary(*end)).unwrap_or(0)
            }
            Err(_) => LONGEST.min(text.as_bytes().len()),
        };
        Text(text.as_bytes()[..end].to_vec())
    };
    let mut left = LONGEST;
    let kept = args.iter().take_while(|arg| {
        let fits = left > 0;
        left = left.saturating_sub(arg.as_bytes().len().max(16));
        fits
    });
    (cut(command), kept.map(cut).collect())
}
