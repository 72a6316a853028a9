//! Streams: credit, journals, gaps, and what survives a broken connection.

mod host;

use host::{Event, Host, TempDir, command, pattern, shell};
use skerry_protocol::Frame;
use skerry_protocol::methods::*;

const MIB: u64 = 1 << 20;

fn streams(host: &mut Host) -> Vec<StreamEntry> {
    host.call::<StreamList>(STREAM_LIST, &()).unwrap().streams
}

fn stream(host: &mut Host, id: u32) -> StreamEntry {
    streams(host).into_iter().find(|entry| entry.stream == id).expect("the stream is listed")
}

/// A process that writes a file, and the file's bytes.
fn writer(host: &mut Host, directory: &TempDir, length: usize, credit: u64) -> (Spawned, Vec<u8>) {
    let bytes = pattern(length);
    let path = directory.0.join("source");
    std::fs::write(&path, &bytes).unwrap();
    let params = SpawnParams { credit, stderr: Stdio::Null, ..command("cat", &[path.to_str().unwrap()]) };
    (host.spawn(&params), bytes)
}

fn attach(host: &mut Host, stream: u32, from: u64, limit: u64) {
    host.frame(Frame::Attach { stream, from, limit });
}

#[test]
fn nothing_is_sent_beyond_the_credit() {
    let mut host = Host::start();
    let spawned = host.spawn(&SpawnParams { credit: 3, ..shell("printf 0123456789") });
    let stdout = spawned.stdout.unwrap();
    assert_eq!(host.next_of(stdout), Event::Data { stream: stdout, offset: 0, bytes: b"012".to_vec() });
    host.exit(spawned.pid);
    assert_eq!(host.code_of(ENV_ALL, &()), "ok");
    assert!(
        !host.events.iter().any(|event| matches!(event, Event::Data { stream, .. } if *stream == stdout))
    );
    // A limit that shrinks changes nothing.
    host.frame(Frame::Credit { stream: stdout, consumed: 1, limit: 2 });
    host.frame(Frame::Credit { stream: stdout, consumed: 3, limit: 100 });
    assert_eq!(host.next_of(stdout), Event::Data { stream: stdout, offset: 3, bytes: b"3456789".to_vec() });
    assert_eq!(host.next_of(stdout), Event::End { stream: stdout, total: 10 });
}

#[test]
fn an_offset_that_the_stream_has_not_reached_is_refused() {
    let mut host = Host::start();
    let spawned = host.spawn(&SpawnParams { stdin: true, ..shell("echo one; read x; echo two") });
    let stdout = spawned.stdout.unwrap();
    assert_eq!(host.next_of(stdout), Event::Data { stream: stdout, offset: 0, bytes: b"one\n".to_vec() });
    attach(&mut host, stdout, 5, MIB);
    assert_eq!(host.reset(stdout).code, "EINVAL");
    // The stream itself goes on.
    host.write_all(spawned.stdin.unwrap(), b"\n");
    host.exit(spawned.pid);
    attach(&mut host, stdout, 4, MIB);
    assert_eq!(host.read_from(stdout, 4, MIB), b"two\n");
}

#[test]
fn a_slow_reader_stalls_only_its_own_process() {
    let mut host = Host::start();
    let stuck = host.spawn(&SpawnParams { credit: 1, ..shell("cat /dev/zero") });
    for _ in 0..20 {
        let (exit, stdout, _) = host.shell("echo hello");
        assert_eq!((exit.code, stdout.as_str()), (0, "hello\n"));
    }
    let entry = stream(&mut host, stuck.stdout.unwrap());
    assert!(entry.next <= MIB && !entry.ended, "{entry:?}");
}

#[test]
fn what_nobody_reads_yet_waits_in_the_journal_and_then_in_the_process() {
    let mut host = Host::start();
    let directory = TempDir::new();
    let (spawned, bytes) = writer(&mut host, &directory, 3 << 20, 0);
    let stdout = spawned.stdout.unwrap();
    while stream(&mut host, stdout).next < MIB {}
    attach(&mut host, stdout, 0, 100_000);
    assert!(host.read_from(stdout, 0, 500_000) == bytes, "the bytes differ");
    assert_eq!(host.exit(spawned.pid).code, 0);
    assert_eq!(stream(&mut host, stdout).dropped, 0);
}

#[test]
fn the_last_bytes_can_be_read_again() {
    let mut host = Host::start();
    let directory = TempDir::new();
    let (spawned, bytes) = writer(&mut host, &directory, 3 << 20, MIB);
    let stdout = spawned.stdout.unwrap();
    assert!(host.read_all(stdout) == bytes, "the bytes differ");
    let entry = stream(&mut host, stdout);
    assert_eq!((entry.first, entry.next, entry.ended, entry.dropped), (2 * MIB, 3 * MIB, true, 0));
    attach(&mut host, stdout, 0, 4 * MIB);
    assert_eq!(host.next_of(stdout), Event::Gap { stream: stdout, from: 0, to: 2 * MIB });
    assert!(host.read_from(stdout, 2 * MIB, MIB) == bytes[2 << 20..], "the bytes differ");
}

#[test]
fn a_detached_stream_keeps_its_last_bytes_and_counts_the_others() {
    let mut host = Host::start();
    let directory = TempDir::new();
    let (spawned, bytes) = writer(&mut host, &directory, 3 << 20, 0);
    let stdout = spawned.stdout.unwrap();
    host.frame(Frame::Detach { stream: stdout });
    assert_eq!(host.exit(spawned.pid).code, 0);
    let entry = loop {
        let entry = stream(&mut host, stdout);
        if entry.ended {
            break entry;
        }
    };
    assert_eq!((entry.first, entry.next, entry.dropped), (2 * MIB, 3 * MIB, 2 * MIB));
    attach(&mut host, stdout, 0, MIB);
    assert_eq!(host.next_of(stdout), Event::Gap { stream: stdout, from: 0, to: 2 * MIB });
    attach(&mut host, stdout, 2 * MIB, 3 * MIB);
    assert!(host.read_from(stdout, 2 * MIB, MIB) == bytes[2 << 20..], "the bytes differ");
}

#[test]
fn output_goes_on_without_loss_after_broken_connections() {
    let mut host = Host::start();
    let directory = TempDir::new();
    let (spawned, bytes) = writer(&mut host, &directory, 20 << 20, 256 * 1024);
    let stdout = spawned.stdout.unwrap();
    let mut back = Vec::new();
    let mut break_at = 1_000_000;
    loop {
        match host.next_of(stdout) {
            Event::Data { offset, bytes: part, .. } => {
                assert_eq!(offset, back.len() as u64);
                back.extend_from_slice(&part);
            }
            Event::End { total, .. } => {
                assert_eq!(total, bytes.len() as u64);
                break;
            }
            other => panic!("not expected: {other:?}"),
        }
        let seen = back.len() as u64;
        if back.len() >= break_at {
            break_at += 3_000_000;
            host.redial();
            host.events.clear();
            attach(&mut host, stdout, seen, seen + 300_000);
        } else {
            host.frame(Frame::Credit { stream: stdout, consumed: seen, limit: seen + 300_000 });
        }
    }
    assert!(back == bytes, "the bytes differ");
}

#[test]
fn input_goes_on_without_loss_after_broken_connections() {
    let mut host = Host::start();
    let directory = TempDir::new();
    let bytes = pattern(5 << 20);
    let target = directory.0.join("target");
    let script = format!("cat > {}", target.display());
    let spawned = host.spawn(&SpawnParams { stdin: true, ..shell(&script) });
    let stdin = spawned.stdin.unwrap();
    let (mut sent, mut limit, mut break_at) = (0_usize, 262_144_u64, 1_000_000);
    while sent < bytes.len() {
        let part = bytes.len().min(limit as usize).min(sent + 77_777) - sent;
        if part > 0 {
            host.frame(Frame::Data { stream: stdin, offset: sent as u64, bytes: &bytes[sent..sent + part] });
            sent += part;
        }
        if sent >= break_at {
            break_at += 1_000_000;
            host.redial();
            host.events.clear();
            (sent, limit) = host.event("ATTACH", |event| match event {
                Event::Attach { stream, from, limit } if *stream == stdin => Some((*from as usize, *limit)),
                _ => None,
            });
        } else if part == 0 {
            limit = host.event("CREDIT", |event| match event {
                Event::Credit { stream, limit, .. } if *stream == stdin => Some(*limit),
                _ => None,
            });
        }
    }
    host.frame(Frame::End { stream: stdin, total: sent as u64 });
    assert_eq!(host.exit(spawned.pid).code, 0);
    assert!(std::fs::read(target).unwrap() == bytes, "the bytes differ");
}

#[test]
fn without_a_host_for_longer_than_the_window_output_is_detached() {
    let mut host = Host::start();
    let directory = TempDir::new();
    host.window_ms = 1;
    host.redial();
    let (spawned, bytes) = writer(&mut host, &directory, 3 << 20, 0);
    let stdout = spawned.stdout.unwrap();
    host.hang_up();
    // Nobody accepts until the process has written all, which it can only when nobody needs it.
    let proc_path = format!("/proc/{}", spawned.pid);
    while std::path::Path::new(&proc_path).exists() {
        std::thread::yield_now();
    }
    host.accept_again();
    attach(&mut host, stdout, 0, MIB);
    let Event::Gap { from: 0, to, .. } = host.next_of(stdout) else { panic!("no gap") };
    assert_eq!(to, 2 * MIB);
    attach(&mut host, stdout, to, to + MIB);
    assert!(host.read_from(stdout, to, MIB) == bytes[to as usize..], "the bytes differ");
}

#[test]
fn a_reset_by_the_host_closes_the_pipe() {
    let mut host = Host::start();
    let spawned = host.spawn(&command("yes", &[]));
    let stdout = spawned.stdout.unwrap();
    host.next_of(stdout);
    let failure = skerry_protocol::Failure::new("RESET", "enough");
    host.frame(Frame::Reset { stream: stdout, body: &skerry_protocol::message::to_msgpack(&failure) });
    assert_eq!(host.exit(spawned.pid).signal.as_deref(), Some("SIGPIPE"));
    host.events.clear();
    host.frame(Frame::Credit { stream: stdout, consumed: 0, limit: MIB });
    attach(&mut host, stdout, 0, MIB);
    assert_eq!(host.reset(stdout).code, "UNKNOWN_STREAM");
}

#[test]
fn a_reset_of_stdin_ends_it() {
    let mut host = Host::start();
    let spawned = host.spawn(&SpawnParams { stdin: true, ..command("cat", &[]) });
    let stdin = spawned.stdin.unwrap();
    host.frame(Frame::Data { stream: stdin, offset: 0, bytes: b"some" });
    let stdout = spawned.stdout.unwrap();
    assert_eq!(host.next_of(stdout), Event::Data { stream: stdout, offset: 0, bytes: b"some".to_vec() });
    let failure = skerry_protocol::Failure::new("RESET", "enough");
    host.frame(Frame::Reset { stream: stdin, body: &skerry_protocol::message::to_msgpack(&failure) });
    assert_eq!(host.exit(spawned.pid).code, 0);
}

#[test]
fn a_host_of_a_new_epoch_is_offered_the_open_inputs_and_can_read_the_output() {
    let mut host = Host::start();
    let spawned = host.spawn(&SpawnParams { stdin: true, ..shell("echo before; cat; echo after") });
    let (stdin, stdout) = (spawned.stdin.unwrap(), spawned.stdout.unwrap());
    host.next_of(stdout);
    host.redial_with_new_epoch();
    let from = host.event("ATTACH", |event| match event {
        Event::Attach { stream, from, .. } if *stream == stdin => Some(*from),
        _ => None,
    });
    assert_eq!(from, 0);
    let listed = host.call::<ProcessList>(PROCESS_LIST, &()).unwrap().processes.remove(0);
    assert_eq!((listed.pid, listed.stdout), (spawned.pid, Some(stdout)));
    attach(&mut host, stdout, 0, MIB);
    host.write_all(stdin, b"middle\n");
    assert_eq!(host.read_all(stdout), b"before\nmiddle\nafter\n");
}

#[test]
fn many_streams_flow_at_once() {
    let mut host = Host::start();
    let many: Vec<u32> = (0..8)
        .map(|_| {
            host.spawn(&SpawnParams { credit: 64 << 20, stderr: Stdio::Null, ..shell("cat /dev/zero") })
                .stdout
                .unwrap()
        })
        .collect();
    let mut seen = std::collections::HashMap::new();
    while !many.iter().all(|stream| seen.get(stream).is_some_and(|bytes| *bytes > 256 * 1024)) {
        let (stream, end) = host.event("DATA", |event| match event {
            Event::Data { stream, offset, bytes } => Some((*stream, *offset as usize + bytes.len())),
            _ => None,
        });
        seen.insert(stream, end);
        host.frame(Frame::Credit { stream, consumed: end as u64, limit: 64 << 20 });
    }
    // Answers do not wait behind all that.
    assert_eq!(host.code_of(ENV_ALL, &()), "ok");
}

#[test]
fn the_memory_of_all_journals_has_a_bound() {
    let mut host = Host::start();
    let spawn = |host: &mut Host| {
        let params = SpawnParams { credit: 0, stderr: Stdio::Null, ..shell("head -c 1200000 /dev/zero") };
        host.spawn(&params).stdout.unwrap()
    };
    for _ in 0..80 {
        spawn(&mut host);
    }
    let held = |host: &mut Host| streams(host).iter().map(|entry| entry.next - entry.first).sum::<u64>();
    while held(&mut host) < 64 * MIB {}
    for _ in 0..100 {
        assert!(held(&mut host) <= 64 * MIB, "more than the budget");
    }
    // A stream that is read is served all the same.
    let (exit, stdout, _) = host.shell("seq 100000 | tail -n 1");
    assert_eq!((exit.code, stdout.as_str()), (0, "100000\n"));
}
