//! The connection itself: handshake, messages, requests that run once, and hosts that misbehave.

mod host;

use host::{Event, Host, TempDir, command, shell};
use skerry_protocol::frame::{FrameType, Header, MAX_PAYLOAD};
use skerry_protocol::message::to_msgpack;
use skerry_protocol::methods::*;
use skerry_protocol::{EnvMap, Frame, Text, Welcome};

fn set_env(name: &str, value: &str) -> EnvUpdateParams {
    EnvUpdateParams { set: EnvMap(vec![(Text::from(name), Text::from(value))]), unset: vec![] }
}

#[test]
fn the_agent_says_hello() {
    let host = Host::start();
    assert_eq!(host.hello.generations, [1]);
    assert_eq!(host.hello.agent, env!("CARGO_PKG_VERSION"));
    let other = Host::start();
    assert_ne!(host.hello.boot, other.hello.boot);
    assert_ne!(host.hello.key, other.hello.key);
}

#[test]
fn pings_are_answered() {
    let mut host = Host::start();
    for token in [*b"12345678", [0; 8], [0xff; 8]] {
        host.frame(Frame::Ping(token));
        let pong = host.event("PONG", |event| match event {
            Event::Pong(token) => Some(*token),
            _ => None,
        });
        assert_eq!(pong, token);
    }
}

#[test]
fn unknown_methods_and_bad_parameters_are_answered() {
    let mut host = Host::start();
    assert_eq!(host.code_of("no.such.method", &()), "UNKNOWN_METHOD");
    assert_eq!(host.code_of(FS_READ, &()), "BAD_PARAMS");
    assert_eq!(host.code_of(FS_READ, &vec![1, 2]), "BAD_PARAMS");
    assert_eq!(host.code_of(PROCESS_KILL, &set_env("a", "b")), "BAD_PARAMS");
    assert_eq!(host.code_of(ENV_UPDATE, &set_env("", "b")), "BAD_PARAMS");
    assert_eq!(host.code_of(ENV_UPDATE, &set_env("A", &"x".repeat(2 << 20))), "TOO_LARGE");
    let failure = host.call::<()>(&"long".repeat(1000), &()).unwrap_err();
    assert!(failure.message.len() <= 1024);
}

#[test]
fn what_a_machine_trusts_that_is_no_sandbox_is_left_alone() {
    let mut host = Host::start();
    let params = |certificate: &str, name: &str, value: &str| TrustInstallParams {
        certificate_pem: certificate.to_owned(),
        extra_roots_pem: String::new(),
        env: set_env(name, value).set,
    };
    for refused in [
        params("", "A", "b"),
        params("x", "", "b"),
        params("x", "1A", "b"),
        params("x", "A-B", "b"),
        params("x", "A", "$b"),
        params("x", "A", "b\n"),
        params("x", "A", "b c"),
    ] {
        assert_eq!(host.code_of(TRUST_INSTALL, &refused), "BAD_PARAMS", "{refused:?}");
    }
    // The agent of these tests is not PID 1.
    assert_eq!(host.code_of(TRUST_INSTALL, &params("x", "A_1", "/b/c-d.pem,e")), "EPERM");
    assert!(!std::path::Path::new("/etc/skerry/ca.pem").exists());
}

#[test]
fn messages_of_many_frames_go_both_ways() {
    let mut host = Host::start();
    let directory = TempDir::new();
    let path = directory.text("file");
    let data = host::pattern(4 << 20);
    let write = WriteParams {
        path: path.clone(),
        data: data.clone().into(),
        append: false,
        create: true,
        create_new: false,
        mode: None,
    };
    assert_eq!(host.code_of(FS_WRITE, &write), "ok");
    let read = ReadParams { path, inline_max: 4 << 20, credit: 0 };
    let ReadValue::Inline { data: back } = host.call(FS_READ, &read).unwrap() else { panic!("not inline") };
    assert!(back.into_vec() == data, "the bytes differ");
}

#[test]
fn a_request_sent_again_runs_once() {
    let mut host = Host::start();
    let directory = TempDir::new();
    let script = format!("echo ran >> {}", directory.0.join("log").display());
    let (first, bytes) = host.request(PROCESS_SPAWN, &shell(&script));
    host.raw(&bytes);
    host.raw(&bytes);
    let spawned: Spawned = host.response(first).unwrap();
    host.exit(spawned.pid);
    host.redial();
    host.raw(&bytes);
    assert_eq!(host.response::<Spawned>(first).unwrap(), spawned);
    let (second, bytes) = host.request(PROCESS_SPAWN, &shell(&script));
    host.raw(&bytes);
    host.hang_up();
    host.accept_again();
    host.raw(&bytes);
    let spawned: Spawned = host.response(second).unwrap();
    // It may have ended while there was no connection to tell it.
    while host
        .call::<ProcessList>(PROCESS_LIST, &())
        .unwrap()
        .processes
        .iter()
        .any(|entry| entry.exit.is_none())
    {}
    assert_eq!(std::fs::read_to_string(directory.0.join("log")).unwrap(), "ran\nran\n");
    let pids: Vec<u32> = host
        .call::<ProcessList>(PROCESS_LIST, &())
        .unwrap()
        .processes
        .iter()
        .map(|entry| entry.pid)
        .collect();
    assert_eq!(pids.len(), 2);
    assert!(pids.contains(&spawned.pid));
}

#[test]
fn a_response_that_comes_without_a_connection_is_given_after_the_next() {
    let mut host = Host::start();
    let directory = TempDir::new();
    let open = WriteOpenParams {
        path: directory.text("file"),
        append: false,
        create: true,
        create_new: false,
        mode: None,
    };
    let StreamRef { stream } = host.call(FS_WRITE_OPEN, &open).unwrap();
    let (closing, bytes) = host.request(FS_WRITE_CLOSE, &StreamRef { stream });
    host.raw(&bytes);
    host.frame(Frame::End { stream, total: 0 });
    host.redial();
    host.raw(&bytes);
    if !host.has_response(closing) {
        // END may have been lost with the connection; then the agent says what it lacks.
        host.frame(Frame::End { stream, total: 0 });
    }
    assert_eq!(host.response::<WrittenSize>(closing).unwrap().size, 0);
}

#[test]
fn a_new_epoch_starts_with_the_first_request_again() {
    let mut host = Host::start();
    assert_eq!(host.code_of(ENV_UPDATE, &set_env("A", "1")), "ok");
    host.redial_with_new_epoch();
    // The same number as the update, but another request.
    let all = host.call::<EnvAll>(ENV_ALL, &()).unwrap();
    let value =
        |name: &str| all.env.0.iter().find(|(key, _)| *key == Text::from(name)).map(|(_, value)| value);
    assert_eq!(value("A"), Some(&Text::from("1")));
    assert!(value("PATH").is_some() && value("HOME").is_some(), "the base is told too");
}

#[test]
fn one_slow_request_among_thousands_costs_no_memory() {
    let mut host = Host::start();
    let directory = TempDir::new();
    let open = WriteOpenParams {
        path: directory.text("file"),
        append: false,
        create: true,
        create_new: false,
        mode: None,
    };
    let StreamRef { stream } = host.call(FS_WRITE_OPEN, &open).unwrap();
    let slow = host.send(FS_WRITE_CLOSE, &StreamRef { stream });
    for _ in 0..2000 {
        assert_eq!(host.code_of(ENV_ALL, &()), "ok");
    }
    assert!(host.pings >= 2, "the agent did not ask what has arrived");
    host.frame(Frame::End { stream, total: 0 });
    assert_eq!(host.response::<WrittenSize>(slow).unwrap().size, 0);
}

#[test]
fn violations_close_the_connection_and_nothing_else() {
    let mut host = Host::start();
    let process = host.spawn(&command("sleep", &["1000"]));
    let header = |kind: u8, flags: u8, length: u32, stream: u32| {
        let mut bytes = Header { length: 0, kind: FrameType::Ping, more: false, stream }.to_bytes().to_vec();
        bytes[..4].copy_from_slice(&length.to_be_bytes());
        bytes[4] = kind;
        bytes[5] = flags;
        bytes
    };
    let frame = |frame: Frame<'_>| {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        bytes
    };
    let welcome = to_msgpack(&Welcome { generation: 1, epoch: 1, reattach_window_ms: 1 });
    let unknown = process.stderr.unwrap() + 1;
    let bad = [
        header(0, 0, 0, 0),
        header(15, 0, 0, 1),
        header(6, 2, 8, 0),
        header(8, 1, 9, 1),
        header(3, 0, MAX_PAYLOAD as u32 + 1, 1),
        header(3, 0, u32::MAX, 1),
        header(6, 0, 7, 0).into_iter().chain([0; 7]).collect(),
        frame(Frame::Welcome(&welcome)),
        frame(Frame::Hello(b"\x80")),
        frame(Frame::Response { number: 1, more: false, part: &[0x93, 1, 0xc3, 0xc0] }),
        frame(Frame::Gap { stream: process.stdout.unwrap(), from: 1, to: 2 }),
        frame(Frame::Request { number: 1, more: false, part: b"" }),
        frame(Frame::Request { number: 1, more: false, part: &[0xc1] }),
        frame(Frame::Request { number: 1, more: true, part: b"" }),
        frame(Frame::Request { number: 1, more: false, part: &[0x94, 0, 0, 0xa1, b'x', 0xc0] }),
        frame(Frame::Request { number: 1, more: false, part: &[0x94, 5, 5, 0xa1, b'x', 0xc0] }),
        frame(Frame::Data { stream: unknown, offset: 0, bytes: b"x" }),
        frame(Frame::Data { stream: process.stdout.unwrap(), offset: 0, bytes: b"x" }),
        frame(Frame::Credit { stream: unknown, consumed: 0, limit: 1 }),
        frame(Frame::Credit { stream: process.stdout.unwrap(), consumed: 1, limit: 1 }),
        frame(Frame::Attach { stream: unknown, from: 0, limit: 1 }),
        frame(Frame::Detach { stream: unknown }),
        frame(Frame::Reset { stream: process.stdout.unwrap(), body: b"" }),
    ];
    for bytes in bad {
        // What CREDIT may say depends on whether somebody is attached.
        host.frame(Frame::Attach { stream: process.stdout.unwrap(), from: 0, limit: 10 });
        host.raw(&bytes);
        while host.try_receive() {}
        host.accept_again();
        assert_eq!(host.code_of(ENV_ALL, &()), "ok", "after {bytes:?}");
    }
    let list = host.call::<ProcessList>(PROCESS_LIST, &()).unwrap().processes;
    assert_eq!((list.len(), list[0].exit.as_ref()), (1, None));
}

#[test]
fn an_input_stream_takes_only_what_it_granted() {
    let mut host = Host::start();
    let spawned = host.spawn(&SpawnParams { stdin: true, ..command("sleep", &["1000"]) });
    let stream = spawned.stdin.unwrap();
    let block = vec![7; 131_072];
    // The pipe of a process that does not read takes 64 KiB, the agent 256 KiB more.
    for offset in [0, 131_072] {
        host.frame(Frame::Data { stream, offset, bytes: &block });
    }
    assert_eq!(host.code_of(ENV_ALL, &()), "ok");
    host.frame(Frame::Data { stream, offset: 262_144, bytes: &block });
    while host.try_receive() {}
    host.accept_again();
    let from = host.event("ATTACH", |event| match event {
        Event::Attach { stream: this, from, .. } if *this == stream => Some(*from),
        _ => None,
    });
    assert_eq!(from, 262_144);
    // So are bytes at another offset than the next.
    host.frame(Frame::Data { stream, offset: 0, bytes: b"x" });
    while host.try_receive() {}
    host.accept_again();
    assert_eq!(host.code_of(ENV_ALL, &()), "ok");
}

#[test]
fn too_long_messages_are_refused() {
    let mut host = Host::start();
    let part = vec![0; MAX_PAYLOAD];
    let mut bytes = Vec::new();
    for _ in 0..33 {
        Frame::Request { number: 9, more: true, part: &part }.encode(&mut bytes);
    }
    // The agent closes before it has read all of it, so writing may fail.
    let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| host.raw(&bytes)));
    while host.try_receive() {}
    host.accept_again();
    assert_eq!(host.code_of(ENV_ALL, &()), "ok");
}

#[test]
fn a_host_that_does_not_read_is_not_read_either() {
    use std::io::Write;
    use std::os::unix::net::UnixListener;

    let directory = TempDir::new();
    let socket = directory.0.join("agent.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let mut agent = host::agent_command(&socket).spawn().unwrap();
    let (mut connection, _) = listener.accept().unwrap();
    let mut bytes = Vec::new();
    Frame::Welcome(&to_msgpack(&Welcome { generation: 1, epoch: 1, reattach_window_ms: 1 }))
        .encode(&mut bytes);
    connection.write_all(&bytes).unwrap();
    connection.set_write_timeout(Some(std::time::Duration::from_millis(500))).unwrap();
    let mut pings = Vec::new();
    (0..10_000_u64).for_each(|n| Frame::Ping(n.to_be_bytes()).encode(&mut pings));
    let mut written = 0;
    while written < 64 << 20 && connection.write_all(&pings).is_ok() {
        written += pings.len();
    }
    assert!(written < 16 << 20, "the agent took {written} bytes that it could not answer");
    let status = std::fs::read_to_string(format!("/proc/{}/status", agent.id())).unwrap();
    let memory = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
    let peak = memory("VmHWM:").or(memory("VmRSS:")).unwrap();
    let peak_kib: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(peak_kib < 32 * 1024, "the agent used {peak_kib} KiB");
    agent.kill().unwrap();
    agent.wait().unwrap();
}

#[test]
fn descriptors_that_are_sent_along_are_dropped() {
    use std::io::IoSlice;

    let mut host = Host::start();
    let count = |host: &Host| std::fs::read_dir(format!("/proc/{}/fd", host.agent_pid())).unwrap().count();
    let before = count(&host);
    let mut ping = Vec::new();
    Frame::Ping(*b"withdesc").encode(&mut ping);
    for _ in 0..50 {
        let null = std::fs::File::open("/dev/null").unwrap();
        let descriptors = [rustix::fd::AsFd::as_fd(&null)];
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = rustix::net::SendAncillaryBuffer::new(&mut space);
        assert!(control.push(rustix::net::SendAncillaryMessage::ScmRights(&descriptors)));
        let flags = rustix::net::SendFlags::empty();
        rustix::net::sendmsg(host.socket(), &[IoSlice::new(&ping)], &mut control, flags).unwrap();
        host.event("PONG", |event| matches!(event, Event::Pong(_)).then_some(()));
    }
    assert_eq!(count(&host), before);
}

#[test]
fn the_agent_goes_on_after_it_was_stopped() {
    let mut host = Host::start();
    let pid = rustix::process::Pid::from_raw(host.agent_pid().try_into().unwrap()).unwrap();
    let process = host.spawn(&shell("exit 4"));
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    let waiting = host.send(ENV_ALL, &());
    rustix::process::kill_process(pid, rustix::process::Signal::CONT).unwrap();
    assert!(host.response::<EnvAll>(waiting).is_ok());
    assert_eq!(host.exit(process.pid).code, 4);
}

#[test]
fn bad_arguments_end_the_agent_with_an_error() {
    let run = |arguments: &[&str]| {
        std::process::Command::new(env!("CARGO_BIN_EXE_skerry-agent")).args(arguments).output().unwrap()
    };
    let version = run(&["--version"]);
    assert!(version.status.success());
    assert_eq!(
        String::from_utf8(version.stdout).unwrap(),
        format!("skerry-agent {}\n", env!("CARGO_PKG_VERSION"))
    );
    for bad in [&["--socket"][..], &["--nonsense"], &["x"]] {
        let output = run(bad);
        assert_eq!(output.status.code(), Some(2));
        assert!(String::from_utf8(output.stderr).unwrap().contains("usage:"));
    }
}
