//! Errors of the agent itself go to stderr, few at a time.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// So many lines an hour at most; stderr may be a pipe into a bounded log.
const LINES: u32 = 60;
/// Longer ones are cut, so that a line is written whole or not at all.
const LINE_BYTES: usize = 512;

static WRITTEN: AtomicU32 = AtomicU32::new(0);

/// Writes one line if there is room for it; never waits and never fails.
pub fn error(text: &str) {
    if WRITTEN.fetch_add(1, Ordering::Relaxed) >= LINES {
        return;
    }
    let stderr = rustix::stdio::stderr();
    let at_once = Timespec::try_from(Duration::ZERO).ok();
    let mut descriptors = [PollFd::new(&stderr, PollFlags::OUT)];
    if !matches!(poll(&mut descriptors, at_once.as_ref()), Ok(1))
        || !descriptors[0].revents().contains(PollFlags::OUT)
    {
        return;
    }
    let mut line = format!("skerry-agent: {text}");
    let end = (0..=LINE_BYTES.min(line.len())).rev().find(|end| line.is_char_boundary(*end)).unwrap_or(0);
    line.truncate(end);
    line.push('\n');
    let _ = rustix::io::write(stderr, line.as_bytes());
}

/// An hour has passed.
pub fn allow_more() {
    WRITTEN.store(0, Ordering::Relaxed);
}
