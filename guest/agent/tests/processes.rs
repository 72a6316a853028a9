//! Processes: how they start, what they get, how they end.

mod host;

use host::{Host, command, shell};
use skerry_protocol::methods::*;
use skerry_protocol::{EnvMap, Text};

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
