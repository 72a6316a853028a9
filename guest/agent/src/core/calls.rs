//! Requests: their parameters are checked here, what needs the system becomes an effect.

use serde::de::DeserializeOwned;
use skerry_protocol::message::from_msgpack;
use skerry_protocol::methods::{self, *};
use skerry_protocol::{EnvMap, Failure, Text, signal};

use super::input::{Input, Sink};
use super::output::Source;
use super::processes::{MAX_RUNNING, shortened};
use super::{Core, ProcessStreams};

/// File reads and file writes that may be under way, each.
const MAX_FILE_CALLS: usize = 64;
/// Bytes of files that responses may hold together; beyond it a file is sent as a stream.
const MAX_INLINE_BYTES: u64 = 16 * 1024 * 1024;
/// Bytes of `fs.write` requests that wait to be written.
const MAX_WRITE_BYTES: usize = 64 * 1024 * 1024;
/// Names and values of the sandbox's environment together.
const MAX_ENVIRONMENT_BYTES: usize = 1024 * 1024;
/// Calls of `trust.install` under way; each has a thread, and they wait for each other.
const MAX_TRUST_INSTALLS: usize = 8;

/// Which request an answer belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ticket {
    pub era: u32,
    pub id: u64,
}

/// What the driver is to do.
#[derive(Debug)]
pub enum Effect {
    Spawn(Ticket, Box<SpawnParams>),
    Signal {
        ticket: Ticket,
        pid: u32,
        signal: i32,
        group: bool,
    },
    Reclaim(Ticket),
    InstallTrust(Ticket, Box<TrustInstallParams>),
    File(Ticket, FileCall),
    /// The source of an output stream may be read, if it has something.
    ReadOutput(u32),
    /// The source of an output stream is not wanted any more.
    CloseOutput(u32),
    /// There are bytes to write, or the end.
    WriteInput(u32),
    /// Nothing more will be written.
    CloseInput(u32),
}

/// A file method, with the limits that hold for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileCall {
    Read { path: Text, inline_max: u64, credit: u64 },
    Write(WriteParams),
    OpenForWriting(WriteOpenParams),
    ReadDir(Text),
    Mkdir(MkdirParams),
    Remove(RemoveParams),
    Stat(StatParams),
}

/// File calls under way.
#[derive(Default)]
pub struct FileLoad {
    reads: usize,
    writes: usize,
    inline_bytes: u64,
    write_bytes: usize,
    trust_installs: usize,
}

impl FileLoad {
    fn change(&mut self, call: &FileCall, begins: bool) {
        let step = |count: &mut usize, by: usize| *count = if begins { *count + by } else { *count - by };
        match call {
            FileCall::Read { inline_max, .. } => {
                step(&mut self.reads, 1);
                self.inline_bytes =
                    if begins { self.inline_bytes + inline_max } else { self.inline_bytes - inline_max };
            }
            FileCall::Write(params) => {
                step(&mut self.writes, 1);
                step(&mut self.write_bytes, params.data.len());
            }
            FileCall::OpenForWriting(_) => step(&mut self.writes, 1),
            _ => {}
        }
    }
}

fn budget(what: &str) -> Failure {
    Failure::new(Failure::BUDGET, format!("too many {what} at once"))
}

/// Strings that reach a system call must not contain NUL.
fn no_nul<'a>(what: &str, texts: impl IntoIterator<Item = &'a Text>) -> Result<(), Failure> {
    match texts.into_iter().any(|text| text.as_bytes().contains(&0)) {
        true => Err(Failure::new(Failure::BAD_PARAMS, format!("{what} contains a zero byte"))),
        false => Ok(()),
    }
}

fn check_variables(variables: &EnvMap) -> Result<(), Failure> {
    no_nul("the environment", variables.0.iter().flat_map(|(name, value)| [name, value]))?;
    match variables.0.iter().any(|(name, _)| name.as_bytes().is_empty() || name.as_bytes().contains(&b'=')) {
        true => Err(Failure::new(Failure::BAD_PARAMS, "a variable's name is empty or contains '='")),
        false => Ok(()),
    }
}

fn is_plain_name(name: &Text) -> bool {
    let name = name.as_bytes();
    name.first().is_some_and(|first| !first.is_ascii_digit())
        && name.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
}

/// Words that shells, sudo and pam_env(8) all take as they are.
fn is_plain_value(value: &Text) -> bool {
    value.as_bytes().iter().all(|byte| byte.is_ascii_alphanumeric() || b"_-./,:+@".contains(byte))
}

impl Core {
    /// Runs a request that was not seen before.
    pub(super) fn call(&mut self, ticket: Ticket, method: &str, params: &[u8]) {
        let outcome = match method {
            PROCESS_SPAWN => self.with(params, |core, params| core.spawn(ticket, params)),
            PROCESS_KILL => self.with(params, |core, params| core.kill(ticket, params)),
            PROCESS_LIST => {
                let processes = self.processes.list(|stream| self.streams.is_present(stream));
                self.answer(ticket, &Ok(ProcessList { processes }));
                Ok(())
            }
            STREAM_LIST => {
                let streams = self.streams.list();
                self.answer(ticket, &Ok(StreamList { streams }));
                Ok(())
            }
            ENV_UPDATE => self.with(params, |core, params| core.update_environment(ticket, params)),
            ENV_ALL => {
                let mut all = self.base_environment.clone();
                all.extend(self.environment.clone());
                let env = EnvMap(all.into_iter().collect());
                self.answer(ticket, &Ok(EnvAll { env }));
                Ok(())
            }
            FS_READ => self.with(params, |core, params: ReadParams| {
                let inline_max = core.inline_limit(params.inline_max)?;
                let ReadParams { path, credit, .. } = params;
                core.file_call(ticket, FileCall::Read { path, inline_max, credit })
            }),
            FS_WRITE => self.with(params, |core, params| core.file_call(ticket, FileCall::Write(params))),
            FS_WRITE_OPEN => {
                self.with(params, |core, params| core.file_call(ticket, FileCall::OpenForWriting(params)))
            }
            FS_WRITE_CLOSE => self.with(params, |core, params| core.write_close(ticket, params)),
            FS_READ_DIR => self.with(params, |core, params: PathParams| {
                core.file_call(ticket, FileCall::ReadDir(params.path))
            }),
            FS_MKDIR => self.with(params, |core, params| core.file_call(ticket, FileCall::Mkdir(params))),
            FS_REMOVE => self.with(params, |core, params| core.file_call(ticket, FileCall::Remove(params))),
            FS_STAT => self.with(params, |core, params| core.file_call(ticket, FileCall::Stat(params))),
            SYSTEM_RECLAIM => {
                self.effects.push_back(Effect::Reclaim(ticket));
                Ok(())
            }
            TRUST_INSTALL => self.with(params, |core, params| core.install_trust(ticket, params)),
            _ => Err(Failure::new(Failure::UNKNOWN_METHOD, format!("no method {method:?}"))),
        };
        if let Err(failure) = outcome {
            self.fail(ticket, failure);
        }
    }

    fn with<P: DeserializeOwned>(
        &mut self,
        params: &[u8],
        run: impl FnOnce(&mut Core, P) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        match from_msgpack(params) {
            Ok(params) => run(self, params),
            Err(error) => Err(Failure::new(Failure::BAD_PARAMS, error.to_string())),
        }
    }

    fn spawn(&mut self, ticket: Ticket, params: SpawnParams) -> Result<(), Failure> {
        no_nul("the command line", std::iter::once(&params.command).chain(&params.args).chain(&params.cwd))?;
        check_variables(&params.env)?;
        if self.processes.running() >= MAX_RUNNING {
            return Err(budget("processes"));
        }
        if !self.streams.has_room_for(3) {
            return Err(budget("streams"));
        }
        self.effects.push_back(Effect::Spawn(ticket, Box::new(params)));
        Ok(())
    }

    /// The sandbox's own environment, which later spawns get.
    pub fn environment(&self) -> impl Iterator<Item = (&Text, &Text)> {
        self.environment.iter()
    }

    /// A spawn succeeded. Answers it and says where the bytes of its streams go.
    pub fn spawned(
        &mut self,
        ticket: Ticket,
        params: SpawnParams,
        pid: u32,
        started_ms: u64,
    ) -> ProcessStreams {
        let SpawnParams { command, args, stdin, stdout, stderr, credit, .. } = params;
        let mut output = |stdio| match stdio {
            Stdio::Piped => self.streams.add_output(Source::Process, credit),
            Stdio::Null => None,
        };
        let (stdout, stderr) = (output(stdout), output(stderr));
        let stdin = if stdin { self.streams.add_input(Input::new(Sink::Stdin)) } else { None };
        let (command, args) = shortened(&command, &args);
        self.processes.add(ProcessEntry {
            pid,
            command,
            args,
            started_ms,
            exit: None,
            stdin,
            stdout,
            stderr,
        });
        self.answer(ticket, &Ok(Spawned { pid, stdin, stdout, stderr }));
        ProcessStreams { stdin, stdout, stderr }
    }

    fn kill(&mut self, ticket: Ticket, params: KillParams) -> Result<(), Failure> {
        let KillParams { pid, signal, group } = params;
        let Some(signal) = signal::number(&signal) else {
            return Err(Failure::new(Failure::BAD_SIGNAL, format!("no signal {signal:?}")));
        };
        let running = self.processes.is_running(pid);
        if !running && !self.processes.has_ended(pid) {
            return Err(Failure::new(
                Failure::UNKNOWN_PROCESS,
                format!("process {pid} was not started here"),
            ));
        }
        if !running && !group {
            return Err(Failure::new("ESRCH", format!("process {pid} has ended")));
        }
        self.effects.push_back(Effect::Signal { ticket, pid, signal, group });
        Ok(())
    }

    fn update_environment(&mut self, ticket: Ticket, params: EnvUpdateParams) -> Result<(), Failure> {
        check_variables(&params.set)?;
        let mut environment = self.environment.clone();
        environment.extend(params.set.0);
        for name in &params.unset {
            environment.remove(name);
        }
        let size: usize =
            environment.iter().map(|(name, value)| name.as_bytes().len() + value.as_bytes().len()).sum();
        if size > MAX_ENVIRONMENT_BYTES {
            return Err(Failure::new(Failure::TOO_LARGE, "the environment is larger than 1 MiB"));
        }
        self.environment = environment;
        self.answer(ticket, &Ok(()));
        Ok(())
    }

    /// The memory of the group that a reclaim killed. Processes of ours in it (`members`) end as out of memory.
    pub fn reclaimed(&mut self, ticket: Ticket, group: Option<u32>, members: &[u32], rss_bytes: u64) {
        for process in self.processes.running_mut() {
            let pid = process.entry.pid;
            process.reclaimed |= Some(pid) == group || members.contains(&pid);
        }
        self.answer(ticket, &Ok(Reclaimed { pid: group, rss_bytes }));
    }

    // The system.

    fn install_trust(&mut self, ticket: Ticket, params: TrustInstallParams) -> Result<(), Failure> {
        if params.certificate_pem.is_empty() && params.extra_roots_pem.is_empty() {
            return Err(Failure::new(Failure::BAD_PARAMS, "no certificate"));
        }
        if params.env.0.iter().any(|(name, value)| !is_plain_name(name) || !is_plain_value(value)) {
            return Err(Failure::new(
                Failure::BAD_PARAMS,
                "a variable has signs that mean something to a shell",
            ));
        }
        if self.load.trust_installs >= MAX_TRUST_INSTALLS {
            return Err(budget("installs of trust"));
        }
        self.load.trust_installs += 1;
        self.effects.push_back(Effect::InstallTrust(ticket, Box::new(params)));
        Ok(())
    }

    /// The answer to every [`Effect::InstallTrust`].
    pub fn trust_installed(&mut self, ticket: Ticket, result: Result<TrustInstalled, Failure>) {
        self.load.trust_installs -= 1;
        self.answer(ticket, &result);
    }

    // Files.

    /// How much of a file may be in the response itself, so that remembered responses stay small together.
    fn inline_limit(&self, asked: u64) -> Result<u64, Failure> {
        if asked > methods::MAX_INLINE_READ {
            return Err(Failure::new(Failure::BAD_PARAMS, "inline_max is larger than 4 MiB"));
        }
        let promised = self.load.inline_bytes + self.requests.remembered_bytes() as u64;
        Ok(if promised + asked > MAX_INLINE_BYTES { 0 } else { asked })
    }

    fn file_call(&mut self, ticket: Ticket, call: FileCall) -> Result<(), Failure> {
        let path = match &call {
            FileCall::Read { path, .. } | FileCall::ReadDir(path) => path,
            FileCall::Write(params) => &params.path,
            FileCall::OpenForWriting(params) => &params.path,
            FileCall::Mkdir(params) => &params.path,
            FileCall::Remove(params) => &params.path,
            FileCall::Stat(params) => &params.path,
        };
        no_nul("the path", [path])?;
        if path.as_bytes().is_empty() {
            return Err(Failure::new("ENOENT", "the path is empty"));
        }
        match &call {
            FileCall::Read { .. } if self.load.reads + self.streams.reads_under_way() >= MAX_FILE_CALLS => {
                return Err(budget("file reads"));
            }
            FileCall::Write(_) | FileCall::OpenForWriting(_)
                if self.load.writes + self.streams.writes_under_way() >= MAX_FILE_CALLS =>
            {
                return Err(budget("file writes"));
            }
            FileCall::Write(params) if self.load.write_bytes + params.data.len() > MAX_WRITE_BYTES => {
                return Err(budget("bytes to write"));
            }
            FileCall::Read { .. } | FileCall::OpenForWriting(_) if !self.streams.has_room_for(1) => {
                return Err(budget("streams"));
            }
            _ => {}
        }
        self.load.change(&call, true);
        self.effects.push_back(Effect::File(ticket, call));
        Ok(())
    }

    /// The system is done with a file call, however it went; the answer follows.
    pub fn file_call_over(&mut self, call: &FileCall) {
        self.load.change(call, false);
    }

    /// A file was opened that is sent as a stream, and its first bytes were read. None: nobody asks for it any more.
    pub fn read_opened(&mut self, ticket: Ticket, credit: u64, size: u64, head: Vec<u8>) -> Option<u32> {
        if ticket.era != self.era {
            return None;
        }
        let Some(stream) = self.streams.add_output(Source::File, credit) else {
            self.fail(ticket, budget("streams"));
            return None;
        };
        self.answer(ticket, &Ok(ReadValue::Stream { stream, size }));
        self.streams.adopt(stream, head);
        Some(stream)
    }

    /// A file was opened for an input stream. None: nobody asks for it any more.
    pub fn write_opened(&mut self, ticket: Ticket) -> Option<u32> {
        if ticket.era != self.era {
            return None;
        }
        let Some(stream) = self.streams.add_input(Input::new(Sink::File)) else {
            self.fail(ticket, budget("streams"));
            return None;
        };
        self.answer(ticket, &Ok(StreamRef { stream }));
        Some(stream)
    }

    fn write_close(&mut self, ticket: Ticket, params: StreamRef) -> Result<(), Failure> {
        let stream = params.stream;
        let result =
            self.write_results.iter().find(|(id, _)| *id == stream).map(|(_, result)| result.clone());
        if let Some(result) = result {
            self.answer_write_close(ticket, &result);
            return Ok(());
        }
        match self.streams.input_mut(stream) {
            Some(input) if input.sink == Sink::File => {
                self.closing.entry(stream).or_default().push(ticket);
                Ok(())
            }
            _ => Err(Failure::new(Failure::UNKNOWN_STREAM, format!("stream {stream} writes no file"))),
        }
    }

    pub(super) fn answer_write_close(&mut self, ticket: Ticket, result: &Result<u64, Failure>) {
        self.answer(ticket, &result.clone().map(|size| WrittenSize { size }));
    }
}
