//! The agent inside a sandbox: it dials the host and runs processes and reads and writes files on its behalf.

mod accounts;
mod connection;
mod core;
mod event_loop;
mod files;
mod log;
mod pool;
mod reclaim;
mod remove;
mod resolver;
mod spawn;
mod sys;
mod system_files;
#[cfg(test)]
mod test_directory;
mod trust;

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};

use accounts::Account;
use event_loop::Agent;
use spawn::Spawner;
use trust::Trust;

const VERSION: &str = env!("CARGO_PKG_VERSION");
const DEFAULT_SOCKET: &str = "/run/skerry/agent.sock";
const DEFAULT_USER: &str = "app";
const USAGE: &str = "usage: skerry-agent [--socket PATH] [--user NAME] [--version]";

struct Options {
    socket: String,
    user: String,
}

fn parse_options(arguments: impl Iterator<Item = String>) -> Result<Option<Options>, String> {
    let mut options = Options { socket: DEFAULT_SOCKET.to_owned(), user: DEFAULT_USER.to_owned() };
    let mut arguments = arguments.skip(1);
    while let Some(argument) = arguments.next() {
        let value = match argument.as_str() {
            "--version" => return Ok(None),
            "--socket" => &mut options.socket,
            "--user" => &mut options.user,
            other => return Err(format!("unknown argument {other:?}")),
        };
        *value = arguments.next().ok_or_else(|| format!("{argument} needs a value"))?;
    }
    Ok(Some(options))
}

/// Descriptors 0 to 2 must exist, or pipes would get their numbers.
fn fill_standard_descriptors() {
    for _ in 0..3 {
        match rustix::fs::open("/dev/null", OFlags::RDWR, Mode::empty()) {
            Ok(opened) if rustix::fd::AsRawFd::as_raw_fd(&opened) <= 2 => std::mem::forget(opened),
            _ => return,
        }
    }
}

fn start(options: &Options) -> rustix::io::Result<Agent> {
    fill_standard_descriptors();
    sys::use_one_arena();
    sys::close_inherited_on_exec();
    let signals = sys::take_signals()?;
    rustix::process::umask(Mode::from_raw_mode(0o022));
    let is_init = rustix::process::getpid() == rustix::process::Pid::INIT;
    if !is_init {
        // As PID 1 we get the orphans anyhow.
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    }
    let read = |path| std::fs::read(path).unwrap_or_default();
    let (passwd, group) = (read("/etc/passwd"), read("/etc/group"));
    let (uid, gid) = (rustix::process::getuid(), rustix::process::getgid());
    let privileged = uid.is_root();
    // As an ordinary process it shares its files with a machine that is none of ours.
    let trust = if is_init && privileged { Some(prepare_system()) } else { None };
    let app = match privileged {
        true => Account::by_name(&options.user, &passwd, &group),
        false => Account::by_uid(uid, gid, &passwd, &group),
    };
    let root = Account::by_name("root", &passwd, &group);
    Agent::new(&options.socket, signals, Spawner::new(app, root, privileged)?, privileged, trust)
}

/// Makes the files of the sandbox's system fit it.
fn prepare_system() -> Arc<Trust> {
    let root = Path::new("/");
    resolver::prepare(root);
    let trust = Arc::new(Trust::new(root));
    let preparing = trust.clone();
    // Nothing needs it soon; without the thread the first install takes longer.
    let _ = std::thread::Builder::new().stack_size(64 * 1024).spawn(move || preparing.prepare());
    trust
}

fn main() -> ExitCode {
    let options = match parse_options(std::env::args()) {
        Ok(Some(options)) => options,
        Ok(None) => {
            println!("skerry-agent {VERSION}");
            return ExitCode::SUCCESS;
        }
        Err(problem) => {
            log::error(&format!("{problem}; {USAGE}"));
            return ExitCode::from(2);
        }
    };
    match start(&options) {
        Ok(mut agent) => {
            let error = agent.run();
            log::error(&format!("cannot wait for events: {error}"));
        }
        Err(error) => log::error(&format!("cannot start: {error}")),
    }
    ExitCode::FAILURE
}
