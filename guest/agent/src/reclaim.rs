//! Which process group holds the most memory.

use std::collections::{BTreeMap, BTreeSet};

use rustix::process::{Pid, Signal};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ProcessStat {
    pid: u32,
    parent: u32,
    group: u32,
    rss_pages: u64,
}

/// A killed process group.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Victim {
    pub group: Option<u32>,
    pub members: Vec<u32>,
    pub rss_bytes: u64,
}

/// The fields of `/proc/PID/stat` that count here. Source: proc_pid_stat(5).
fn parse(stat: &str) -> Option<ProcessStat> {
    let (pid, rest) = stat.split_once(' ')?;
    // The name is in parentheses and may contain any character, parentheses too.
    let (_, rest) = rest.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    Some(ProcessStat {
        pid: pid.parse().ok()?,
        parent: fields.get(1)?.parse().ok()?,
        group: fields.get(2)?.parse().ok()?,
        rss_pages: fields.get(21)?.parse().ok()?,
    })
}

fn all_processes() -> Vec<ProcessStat> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let is_number = |name: &std::ffi::OsStr| name.as_encoded_bytes().first().is_some_and(u8::is_ascii_digit);
    entries
        .flatten()
        .filter(|entry| is_number(&entry.file_name()))
        .filter_map(|entry| parse(&String::from_utf8_lossy(&std::fs::read(entry.path().join("stat")).ok()?)))
        .collect()
}

/// The group with the most memory, of those that belong to the sandbox.
///
/// As PID 1 that is every group but our own; otherwise those of our descendants, to whom all orphans are added because
/// we are their reaper.
fn largest(processes: &[ProcessStat], me: u32, my_group: u32, page_bytes: u64) -> Victim {
    let parents: BTreeMap<u32, u32> = processes.iter().map(|process| (process.pid, process.parent)).collect();
    let is_descendant = |pid: u32| {
        let ancestors =
            std::iter::successors(Some(pid), |pid| parents.get(pid).copied().filter(|parent| *parent > 0));
        ancestors.take(parents.len() + 1).any(|ancestor| ancestor == me)
    };
    let mut pages: BTreeMap<u32, u64> = BTreeMap::new();
    let mut barred = BTreeSet::from([0, my_group]);
    for process in processes {
        if me != 1 && !is_descendant(process.pid) {
            barred.insert(process.group);
        }
        *pages.entry(process.group).or_default() += process.rss_pages;
    }
    let candidates = pages.into_iter().filter(|(group, pages)| !barred.contains(group) && *pages > 0);
    let Some((group, pages)) = candidates.max_by_key(|(_, pages)| *pages) else { return Victim::default() };
    let members =
        processes.iter().filter(|process| process.group == group).map(|process| process.pid).collect();
    Victim { group: Some(group), members, rss_bytes: pages.saturating_mul(page_bytes) }
}

/// Kills the group that holds the most memory.
pub fn reclaim() -> Victim {
    let me = rustix::process::getpid().as_raw_nonzero().get().unsigned_abs();
    let my_group = rustix::process::getpgrp().as_raw_nonzero().get().unsigned_abs();
    let victim = largest(&all_processes(), me, my_group, rustix::param::page_size() as u64);
    if let Some(group) = victim.group.and_then(|group| Pid::from_raw(group.try_into().ok()?)) {
        // Gone already is as good.
        let _ = rustix::process::kill_process_group(group, Signal::KILL);
    }
    victim
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: u32, parent: u32, group: u32, rss_pages: u64) -> ProcessStat {
        ProcessStat { pid, parent, group, rss_pages }
    }

    #[test]
    fn names_may_contain_anything() {
        let line =
            "42 (a ) 1 (b) R 7 40 40 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 5 10000 321 18446744073709551615";
        assert_eq!(parse(line), Some(process(42, 7, 40, 321)));
        for bad in ["", "42", "42 (x", "42 (x) R", "x (y) R 1 2 3"] {
            assert_eq!(parse(bad), None);
        }
    }

    #[test]
    fn as_pid_1_the_largest_other_group_is_chosen() {
        let all =
            [process(1, 0, 1, 900), process(5, 1, 5, 100), process(6, 5, 5, 150), process(7, 1, 7, 200)];
        let victim = largest(&all, 1, 1, 4096);
        assert_eq!(victim, Victim { group: Some(5), members: vec![5, 6], rss_bytes: 250 * 4096 });
    }

    #[test]
    fn kernel_threads_and_ourselves_are_spared() {
        let all = [process(1, 0, 1, 900), process(2, 0, 0, 0), process(3, 2, 0, 5), process(9, 1, 1, 50)];
        assert_eq!(largest(&all, 1, 1, 4096), Victim::default());
    }

    #[test]
    fn as_another_process_only_descendants_are_touched() {
        let all = [
            process(1, 0, 1, 10),
            process(50, 1, 50, 10_000),
            process(60, 1, 60, 10),
            process(61, 60, 61, 20),
            process(62, 61, 62, 30),
            process(63, 61, 50, 30),
        ];
        assert_eq!(largest(&all, 60, 60, 1).group, Some(62));
    }
}
