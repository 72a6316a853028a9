//! Processes: how they start, what they get, how they end.

mod host;

use std::time::Instant;

use host::{Event, Host, PATIENCE, TempDir, command, pattern, shell};
use skerry_protocol::methods::*;
use skerry_protocol::{EnvMap, Frame, Text};

fn env(pairs: &[(&str, &str)]) -> EnvMap {
    EnvMap(pairs.iter().map(|(name, value)| (Text::from(*name), Text::from(*value))).collect())
}

fn is_root() -> bool {
    rustix::process::getuid().is_root()
}

/// Runs a command to its end and answers what it wrote.
fn output_of(host: &mut Host, params: &SpawnParams) -> String {
    let spawned = host.spawn(params);
    let output = host.read_all(spawned.stdout.expect("a stdout"));
    let errors = host.read_all(spawned.stderr.expect("a stderr"));
    assert_eq!(String::from_utf8_lossy(&errors), "");
    host.exit(spawned.pid);
    String::from_utf8(output).expect("UTF-8")
}

/// Waits until a condition holds that no event tells.
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let limit = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < limit, "{what} did not happen");
        std::thread::yield_now();
    }
}

fn exists(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| stat.rsplit(") ").next().is_some_and(|rest| !rest.starts_with(['Z', 'X'])))
}

#[test]
fn a_command_runs_and_its_output_comes() {
    let mut host = Host::start();
    let (exit, stdout, stderr) = host.shell("echo out; echo err >&2; exit 7");
    assert_eq!((exit.code, exit.signal, exit.oom), (7, None, false));
    assert_eq!((stdout.as_str(), stderr.as_str()), ("out\n", "err\n"));
}

#[test]
fn a_terminating_signal_is_told() {
    let mut host = Host::start();
    for (signal, code) in [("SIGTERM", 143), ("SIGKILL", 137), ("SIGSEGV", 139)] {
        let pid = host.spawn(&command("sleep", &["1000"])).pid;
        let kill = KillParams { pid, signal: signal.to_owned(), group: false };
        assert_eq!(host.code_of(PROCESS_KILL, &kill), "ok");
        let exit = host.exit(pid);
        assert_eq!((exit.code, exit.signal.as_deref()), (code, Some(signal)));
        assert_eq!(host.code_of(PROCESS_KILL, &kill), "ESRCH");
    }
}

#[test]
fn wrong_signals_and_processes_are_refused() {
    let mut host = Host::start();
    let pid = host.spawn(&command("sleep", &["1000"])).pid;
    let kill = |pid: u32, signal: &str| KillParams { pid, signal: signal.to_owned(), group: false };
    assert_eq!(host.code_of(PROCESS_KILL, &kill(pid, "SIGNONE")), "BAD_SIGNAL");
    let agent = host.agent_pid();
    for stranger in [0, 1, agent, u32::MAX] {
        assert_eq!(host.code_of(PROCESS_KILL, &kill(stranger, "SIGKILL")), "UNKNOWN_PROCESS");
    }
    assert_eq!(host.code_of(PROCESS_KILL, &kill(pid, "SIGKILL")), "ok");
}

#[test]
fn a_failure_to_start_is_the_requests_error() {
    let mut host = Host::start();
    let directory = TempDir::new();
    std::fs::write(directory.0.join("plain"), "no program").unwrap();
    let cases = [
        (command("no-such-command-here", &[]), "ENOENT"),
        (command("/no/such/file", &[]), "ENOENT"),
        (command("", &[]), "ENOENT"),
        (command("/etc/passwd", &[]), "EACCES"),
        (command("/etc", &[]), "EACCES"),
        (SpawnParams { cwd: Some(Text::from("/no/such/directory")), ..command("true", &[]) }, "ENOENT"),
        (SpawnParams { cwd: Some(Text::from("/etc/passwd")), ..command("true", &[]) }, "ENOTDIR"),
        (
            SpawnParams { env: env(&[("PATH", directory.0.to_str().unwrap())]), ..command("plain", &[]) },
            "EACCES",
        ),
        (command("a\0b", &[]), "BAD_PARAMS"),
        (SpawnParams { env: env(&[("A=B", "x")]), ..command("true", &[]) }, "BAD_PARAMS"),
        (command("echo", &[&"x".repeat(200_000)]), "E2BIG"),
    ];
    for (params, code) in cases {
        assert_eq!(host.code_of(PROCESS_SPAWN, &params), code, "{:?}", params.command);
    }
    assert_eq!(host.call::<ProcessList>(PROCESS_LIST, &()).unwrap().processes, []);
    assert_eq!(host.call::<StreamList>(STREAM_LIST, &()).unwrap().streams, []);
}

#[test]
fn the_command_is_found_in_the_path_of_the_new_environment() {
    let mut host = Host::start();
    let directory = TempDir::new();
    std::os::unix::fs::symlink("/bin/echo", directory.0.join("my-echo")).unwrap();
    let path = format!("/no/such:{}", directory.0.display());
    let params = SpawnParams { env: env(&[("PATH", &path)]), ..command("my-echo", &["found"]) };
    assert_eq!(output_of(&mut host, &params), "found\n");
    let cleared = SpawnParams { clear_env: true, ..command("echo", &["default path"]) };
    assert_eq!(output_of(&mut host, &cleared), "default path\n");
}

#[test]
fn the_working_directory_is_the_one_asked_for() {
    let mut host = Host::start();
    let at = |cwd: Option<&str>| SpawnParams { cwd: cwd.map(Text::from), ..command("pwd", &["-P"]) };
    assert_eq!(output_of(&mut host, &at(Some("/usr"))), "/usr\n");
    let home = output_of(
        &mut host,
        &SpawnParams { cwd: None, ..shell("test -d \"$HOME\" && echo $HOME || echo /") },
    );
    assert_eq!(output_of(&mut host, &at(None)), home);
}

#[test]
fn the_environment_is_base_then_sandbox_then_call() {
    let mut host = Host::start();
    let update =
        EnvUpdateParams { set: env(&[("A", "sandbox"), ("B", "sandbox"), ("LANG", "x")]), unset: vec![] };
    assert_eq!(host.code_of(ENV_UPDATE, &update), "ok");
    let mut params = SpawnParams { env: env(&[("B", "call"), ("C", "call")]), ..command("env", &[]) };
    let seen = output_of(&mut host, &params);
    let mut lines: Vec<&str> = seen.lines().collect();
    lines.sort_unstable();
    let names: Vec<&str> = lines.iter().filter_map(|line| line.split('=').next()).collect();
    assert_eq!(names, ["A", "B", "C", "HOME", "LANG", "LOGNAME", "PATH", "SHELL", "USER"]);
    for line in ["A=sandbox", "B=call", "C=call", "LANG=x"] {
        assert!(lines.contains(&line), "{line} is missing");
    }
    params.clear_env = true;
    assert_eq!(output_of(&mut host, &params), "B=call\nC=call\n");
    let unset = EnvUpdateParams { set: env(&[]), unset: vec![Text::from("A"), Text::from("none")] };
    assert_eq!(host.code_of(ENV_UPDATE, &unset), "ok");
    let all = host.call::<EnvAll>(ENV_ALL, &()).unwrap();
    let names: Vec<&[u8]> = all.env.0.iter().map(|(name, _)| name.as_bytes()).collect();
    assert_eq!(names, [&b"B"[..], b"HOME", b"LANG", b"LOGNAME", b"PATH", b"SHELL", b"USER"]);
    for given in env(&[("B", "sandbox"), ("LANG", "x")]).0 {
        assert!(all.env.0.contains(&given), "{given:?} is missing");
    }
}

#[test]
fn what_is_not_utf_8_arrives_unchanged() {
    let mut host = Host::start();
    let raw = Text(vec![b'a', 0xff, b'b']);
    let params = SpawnParams {
        args: vec![Text::from("%s:%s"), raw.clone()],
        env: EnvMap(vec![(Text::from("X"), raw.clone())]),
        ..command("printf", &[])
    };
    let spawned = host.spawn(&params);
    assert_eq!(host.read_all(spawned.stdout.unwrap()), [raw.as_bytes(), b":"].concat());
    let entry = host.call::<ProcessList>(PROCESS_LIST, &()).unwrap().processes.remove(0);
    assert_eq!(entry.args[1], raw);
}

#[test]
fn a_process_leads_its_own_session_with_clean_signals_and_descriptors() {
    let mut host = Host::start();
    let seen = output_of(&mut host, &command("cut", &["-d", " ", "-f1,5,6", "/proc/self/stat"]));
    let ids: Vec<&str> = seen.split_whitespace().collect();
    assert!(ids.len() == 3 && ids.iter().all(|id| *id == ids[0]), "pid, group, session: {ids:?}");
    let seen = output_of(&mut host, &command("grep", &["-E", "^Sig(Blk|Ign)", "/proc/self/status"]));
    assert!(
        seen.lines().count() == 2 && seen.lines().all(|line| line.ends_with("\t0000000000000000")),
        "{seen}"
    );
    assert_eq!(output_of(&mut host, &shell("umask")), "0022\n");
    // The fourth is what ls reads the directory with.
    assert_eq!(output_of(&mut host, &command("ls", &["/proc/self/fd"])), "0\n1\n2\n3\n");
}

#[test]
fn a_process_runs_as_the_user_or_as_root() {
    let mut host = Host::start();
    let id = |user| SpawnParams { user, ..shell("id -u; grep ^CapEff /proc/self/status; echo $USER") };
    if !is_root() {
        assert_eq!(host.code_of(PROCESS_SPAWN, &id(User::Root)), "EPERM");
        return;
    }
    let seen = output_of(&mut host, &id(User::App));
    assert_eq!(seen, "65534\nCapEff:\t0000000000000000\nnobody\n");
    let seen = output_of(&mut host, &id(User::Root));
    assert!(seen.starts_with("0\n") && seen.ends_with("\nroot\n"), "{seen}");
}

#[test]
fn stdin_is_dev_null_unless_asked_for() {
    let mut host = Host::start();
    assert_eq!(output_of(&mut host, &command("cat", &[])), "");
    let spawned = host.spawn(&SpawnParams { stdin: true, ..command("cat", &[]) });
    let stdin = spawned.stdin.expect("a stdin");
    host.write_all(stdin, b"to the process");
    assert_eq!(host.read_all(spawned.stdout.unwrap()), b"to the process");
    assert_eq!(host.exit(spawned.pid).code, 0);
}

#[test]
fn ten_megabytes_pass_through_cat_with_little_credit() {
    let mut host = Host::start();
    let bytes = pattern(10 << 20);
    let spawned = host.spawn(&SpawnParams { stdin: true, credit: 10_000, ..command("cat", &[]) });
    let (stdin, stdout) = (spawned.stdin.unwrap(), spawned.stdout.unwrap());
    let (mut sent, mut limit, mut back) = (0, 262_144, Vec::with_capacity(bytes.len()));
    while back.len() < bytes.len() {
        let part = bytes.len().min(limit as usize).min(sent + 100_000) - sent;
        if part > 0 {
            host.frame(Frame::Data { stream: stdin, offset: sent as u64, bytes: &bytes[sent..sent + part] });
            sent += part;
            if sent == bytes.len() {
                host.frame(Frame::End { stream: stdin, total: sent as u64 });
            }
            continue;
        }
        match host.event("DATA or CREDIT", |event| Some(event.clone())) {
            Event::Credit { limit: new, .. } => limit = new,
            Event::Data { offset, bytes: part, .. } => {
                assert_eq!(offset, back.len() as u64);
                assert!(part.len() <= 10_000, "more than the credit");
                back.extend_from_slice(&part);
                let consumed = back.len() as u64;
                host.frame(Frame::Credit { stream: stdout, consumed, limit: consumed + 10_000 });
            }
            // EXIT, and END of stderr.
            _ => {}
        }
    }
    assert!(back == bytes, "the bytes differ");
}

#[test]
fn a_closed_stdin_resets_its_stream() {
    let mut host = Host::start();
    let spawned = host.spawn(&SpawnParams { stdin: true, ..shell("exec 0<&-; echo closed; sleep 1000") });
    let stdin = spawned.stdin.unwrap();
    assert_eq!(host.reset(stdin).code, "EPIPE");
    // What crossed the RESET does no harm.
    host.frame(Frame::Data { stream: stdin, offset: 0, bytes: b"late" });
    host.frame(Frame::End { stream: stdin, total: 4 });
    assert_eq!(host.code_of(ENV_ALL, &()), "ok");
}

#[test]
fn a_group_is_killed_whole() {
    let mut host = Host::start();
    let spawned = host.spawn(&shell("sleep 1000 & echo $!; wait"));
    let Event::Data { bytes, .. } = host.next_of(spawned.stdout.unwrap()) else { panic!("no output") };
    let grandchild: u32 = String::from_utf8(bytes).unwrap().trim().parse().unwrap();
    assert!(exists(grandchild));
    let kill = KillParams { pid: spawned.pid, signal: "SIGKILL".to_owned(), group: true };
    assert_eq!(host.code_of(PROCESS_KILL, &kill), "ok");
    assert_eq!(host.exit(spawned.pid).code, 137);
    eventually("the end of the grandchild", || !exists(grandchild));
}

#[test]
fn output_may_end_after_its_process_when_a_grandchild_holds_the_pipe() {
    let mut host = Host::start();
    let directory = TempDir::new();
    let fifo = directory.0.join("go");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::from_raw_mode(0o666)).unwrap();
    std::fs::set_permissions(&fifo, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
    let script = format!("(read x < {0}; echo late) & echo early", fifo.display());
    let spawned = host.spawn(&shell(&script));
    assert_eq!(host.exit(spawned.pid).code, 0);
    std::fs::write(&fifo, "x\n").unwrap();
    assert_eq!(host.read_all(spawned.stdout.unwrap()), b"early\nlate\n");
}

#[test]
fn orphans_are_reaped_and_do_not_disturb() {
    let mut host = Host::start();
    let spawned = host.spawn(&shell("(setsid sleep 0.05 & echo $!) ; exit 3"));
    let Event::Data { bytes, .. } = host.next_of(spawned.stdout.unwrap()) else { panic!("no output") };
    let orphan: u32 = String::from_utf8(bytes).unwrap().trim().parse().unwrap();
    assert_eq!(host.exit(spawned.pid).code, 3);
    eventually("the end of the orphan", || !std::path::Path::new(&format!("/proc/{orphan}")).exists());
    assert_eq!(host.code_of(ENV_ALL, &()), "ok");
}

#[test]
fn the_list_has_running_and_ended_processes() {
    let mut host = Host::start();
    let running = host.spawn(&command("sleep", &["1000"]));
    let ended = host.spawn(&shell("exit 5"));
    host.exit(ended.pid);
    let list = host.call::<ProcessList>(PROCESS_LIST, &()).unwrap().processes;
    assert_eq!(list.len(), 2);
    assert_eq!((list[0].pid, list[0].exit.as_ref().map(|exit| exit.code)), (ended.pid, Some(5)));
    assert_eq!((list[1].pid, list[1].exit.as_ref()), (running.pid, None));
    assert_eq!((list[1].stdout, list[1].stderr, list[1].stdin), (running.stdout, running.stderr, None));
    assert_eq!((&list[1].command, &list[1].args[..]), (&Text::from("sleep"), &[Text::from("1000")][..]));
}

#[test]
fn a_thousand_processes_in_a_row() {
    let mut host = Host::start();
    let mut times = Vec::new();
    for _ in 0..1000 {
        let start = Instant::now();
        let spawned = host.spawn(&command("true", &[]));
        assert_eq!(host.exit(spawned.pid).code, 0);
        times.push(start.elapsed());
        for stream in [spawned.stdout, spawned.stderr] {
            assert_eq!(host.read_all(stream.unwrap()), b"");
        }
    }
    times.sort_unstable();
    println!("spawn + exit: p50 {:?}, p99 {:?}", times[500], times[990]);
    let list = host.call::<ProcessList>(PROCESS_LIST, &()).unwrap().processes;
    assert_eq!(list.len(), 1000);
    let descriptors = std::fs::read_dir(format!("/proc/{}/fd", host.agent_pid())).unwrap().count();
    assert!(descriptors < 20, "{descriptors} descriptors are left");
}

#[test]
fn many_processes_at_once_end_each_with_its_own_code() {
    let mut host = Host::start();
    let quiet = |code: u32| SpawnParams {
        stdout: Stdio::Null,
        stderr: Stdio::Null,
        ..shell(&format!("exit {code}"))
    };
    let ids: Vec<u64> = (0..200).map(|code| host.send(PROCESS_SPAWN, &quiet(code))).collect();
    for (code, id) in ids.into_iter().enumerate() {
        let spawned: Spawned = host.response(id).unwrap();
        assert_eq!(usize::from(host.exit(spawned.pid).code), code);
    }
}

#[test]
fn memory_is_reclaimed_from_our_own_processes_only() {
    let mut host = Host::start();
    assert_eq!(host.call::<Reclaimed>(SYSTEM_RECLAIM, &()).unwrap(), Reclaimed { pid: None, rss_bytes: 0 });
    let small = host.spawn(&command("sleep", &["1000"]));
    // The memory is held by a child of ours, in its group.
    let large =
        host.spawn(&shell("head -c 50000000 /dev/zero | tail -c 40000000 | (sleep 1000; cat) & echo; wait"));
    let large_group = || {
        let stat = |entry: std::fs::DirEntry| std::fs::read_to_string(entry.path().join("stat")).ok();
        let rss = std::fs::read_dir("/proc").unwrap().flatten().filter_map(stat).filter_map(|stat| {
            let fields: Vec<&str> = stat.rsplit(") ").next()?.split(' ').collect();
            (fields[2] == large.pid.to_string()).then(|| fields[21].parse::<u64>().ok())?
        });
        rss.sum::<u64>() * 4096
    };
    eventually("the use of memory", || large_group() > 40_000_000);
    let reclaimed = host.call::<Reclaimed>(SYSTEM_RECLAIM, &()).unwrap();
    assert_eq!(reclaimed.pid, Some(large.pid));
    assert!(reclaimed.rss_bytes > 40_000_000);
    let exit = host.exit(large.pid);
    assert_eq!((exit.code, exit.signal.as_deref(), exit.oom), (137, Some("SIGKILL"), true));
    assert!(exists(small.pid));
    let kill = KillParams { pid: small.pid, signal: "SIGKILL".to_owned(), group: false };
    assert_eq!(host.code_of(PROCESS_KILL, &kill), "ok");
    assert!(!host.exit(small.pid).oom);
}

#[test]
fn a_process_limit_fails_the_spawn_only() {
    if !is_root() {
        return;
    }
    let mut host = Host::start();
    let pid = rustix::process::Pid::from_raw(host.agent_pid().try_into().unwrap());
    let limit = rustix::process::Rlimit { current: Some(0), maximum: Some(0) };
    // Root may pass it, so it is found when the user's program is executed; only processes that are there count.
    host.spawn(&command("sleep", &["1000"]));
    rustix::process::prlimit(pid, rustix::process::Resource::Nproc, limit).unwrap();
    assert_eq!(host.code_of(PROCESS_SPAWN, &command("true", &[])), "EAGAIN");
    assert_eq!(host.code_of(ENV_ALL, &()), "ok");
}
