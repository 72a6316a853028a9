//! A small host: listens on a unix socket, starts the real agent, speaks the protocol one step at a time.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::collections::{HashMap, VecDeque};
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;
use skerry_protocol::frame::{FrameType, encode_message};
use skerry_protocol::message::{Response, from_msgpack, to_msgpack};
use skerry_protocol::methods::{self, SpawnParams, Spawned};
use skerry_protocol::{Assembler, Envelope, Exit, Failure, Frame, FrameBuffer, Hello, Text, Welcome};

/// Nothing that these tests wait for takes so long on a machine that works.
pub const PATIENCE: Duration = Duration::from_secs(30);
pub const WINDOW_MS: u32 = 60_000;

/// A directory that goes away with its owner.
pub struct TempDir(pub PathBuf);

impl TempDir {
    pub fn new() -> TempDir {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("skerry-agent-test-{}-{number}", std::process::id()));
        std::fs::create_dir(&path).expect("a new temporary directory");
        // The agent works in it as another user.
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o777))
            .expect("its owner");
        TempDir(path)
    }

    pub fn text(&self, name: &str) -> Text {
        Text::from(self.0.join(name).to_str().expect("a UTF-8 path"))
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What the agent sent, other than what `Host` keeps for itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    Exit(Exit),
    Data { stream: u32, offset: u64, bytes: Vec<u8> },
    End { stream: u32, total: u64 },
    Reset { stream: u32, failure: Failure },
    Credit { stream: u32, consumed: u64, limit: u64 },
    Attach { stream: u32, from: u64, limit: u64 },
    Gap { stream: u32, from: u64, to: u64 },
    Pong([u8; 8]),
}

pub struct Host {
    listener: UnixListener,
    agent: Option<Child>,
    connection: UnixStream,
    incoming: FrameBuffer,
    assembler: Assembler,
    pub hello: Hello,
    pub epoch: u64,
    pub window_ms: u32,
    next_id: u64,
    responses: HashMap<u64, (bool, Vec<u8>)>,
    /// Everything up to here was answered.
    acked: u64,
    answered: std::collections::BTreeSet<u64>,
    pub events: VecDeque<Event>,
    pub pings: u32,
    _directory: Option<TempDir>,
}

/// The agent that cargo built for these tests.
pub fn agent_command(socket: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_skerry-agent"));
    command.arg("--socket").arg(socket).arg("--user").arg("nobody").stdin(Stdio::null());
    command
}

impl Host {
    /// Starts an agent and greets it.
    pub fn start() -> Host {
        let directory = TempDir::new();
        let socket = directory.0.join("agent.sock");
        let listener = UnixListener::bind(&socket).expect("a socket to listen on");
        let agent = agent_command(&socket).spawn().expect("the agent starts");
        let mut host = Host::accept_on(listener);
        host.agent = Some(agent);
        host._directory = Some(directory);
        host
    }

    /// Waits for an agent that somebody else starts.
    pub fn accept_on(listener: UnixListener) -> Host {
        let (connection, _) = listener.accept().expect("the agent dials");
        let mut host = Host {
            listener,
            agent: None,
            connection,
            incoming: FrameBuffer::default(),
            assembler: Assembler::default(),
            hello: Hello {
                generations: Vec::new(),
                agent: String::new(),
                boot: skerry_protocol::Token([0; 16]),
                key: skerry_protocol::Token([0; 16]),
            },
            epoch: 1,
            window_ms: WINDOW_MS,
            next_id: 1,
            responses: HashMap::new(),
            acked: 0,
            answered: std::collections::BTreeSet::new(),
            events: VecDeque::new(),
            pings: 0,
            _directory: None,
        };
        host.greet();
        host
    }

    pub fn agent_pid(&self) -> u32 {
        self.agent.as_ref().expect("an agent of our own").id()
    }

    pub fn socket(&self) -> &UnixStream {
        &self.connection
    }

    fn greet(&mut self) {
        self.connection.set_read_timeout(Some(PATIENCE)).expect("a time limit");
        self.hello = loop {
            let mut space = [0; 1024];
            let count = self.connection.read(&mut space).expect("HELLO");
            assert!(count > 0, "the agent hung up before HELLO");
            self.incoming.space()[..count].copy_from_slice(&space[..count]);
            self.incoming.filled(count);
            if let Some(frame) = self.incoming.next_frame().expect("a frame") {
                let Frame::Hello(body) = frame else { panic!("not HELLO: {frame:?}") };
                break from_msgpack(body).expect("HELLO");
            }
        };
        let welcome = Welcome { generation: 1, epoch: self.epoch, reattach_window_ms: self.window_ms };
        self.frame(Frame::Welcome(&to_msgpack(&welcome)));
    }

    /// Breaks the connection; the agent does not know why.
    pub fn hang_up(&mut self) {
        self.connection.shutdown(std::net::Shutdown::Both).expect("a connection to break");
    }

    /// Takes the agent's next connection and greets it.
    pub fn accept_again(&mut self) {
        let before = self.hello.clone();
        self.connection = self.listener.accept().expect("the agent dials again").0;
        self.incoming.clear();
        self.assembler.clear();
        self.greet();
        assert_eq!((before.boot, before.key), (self.hello.boot, self.hello.key), "the agent is another one");
    }

    pub fn redial(&mut self) {
        self.hang_up();
        self.accept_again();
    }

    /// Like a new host process: nothing is known of the old requests.
    pub fn redial_with_new_epoch(&mut self) {
        self.hang_up();
        self.epoch += 1;
        self.next_id = 1;
        self.acked = 0;
        self.answered.clear();
        self.responses.clear();
        self.accept_again();
    }

    pub fn raw(&mut self, bytes: &[u8]) {
        self.connection.write_all(bytes).expect("the agent reads");
    }

    pub fn frame(&mut self, frame: Frame<'_>) {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        self.raw(&bytes);
    }

    /// The bytes of a request, not sent yet.
    pub fn request(&mut self, method: &str, params: &impl Serialize) -> (u64, Vec<u8>) {
        let id = self.next_id;
        self.next_id += 1;
        let envelope = Envelope { id, acked: self.acked, method, params: &to_msgpack(params) };
        let mut bytes = Vec::new();
        encode_message(FrameType::Request, id as u32, &envelope.encode(), &mut bytes);
        (id, bytes)
    }

    pub fn send(&mut self, method: &str, params: &impl Serialize) -> u64 {
        let (id, bytes) = self.request(method, params);
        self.raw(&bytes);
        id
    }

    /// Waits for the response to `id`.
    pub fn response<T: DeserializeOwned>(&mut self, id: u64) -> Result<T, Failure> {
        let limit = Instant::now() + PATIENCE;
        let (ok, value) = loop {
            if let Some(response) = self.responses.remove(&id) {
                break response;
            }
            assert!(Instant::now() < limit, "no response to {id}");
            self.receive();
        };
        if ok {
            Ok(from_msgpack(&value).expect("a value of the right form"))
        } else {
            Err(from_msgpack(&value).expect("a failure"))
        }
    }

    pub fn has_response(&self, id: u64) -> bool {
        self.responses.contains_key(&id)
    }

    pub fn call<T: DeserializeOwned>(&mut self, method: &str, params: &impl Serialize) -> Result<T, Failure> {
        let id = self.send(method, params);
        self.response(id)
    }

    pub fn code_of(&mut self, method: &str, params: &impl Serialize) -> String {
        match self.call::<serde::de::IgnoredAny>(method, params) {
            Ok(_) => "ok".to_owned(),
            Err(failure) => failure.code.into_owned(),
        }
    }

    pub fn spawn(&mut self, params: &SpawnParams) -> Spawned {
        self.call(methods::PROCESS_SPAWN, params).expect("the process starts")
    }

    /// Takes what the agent has sent; panics when nothing comes, or it hangs up.
    pub fn receive(&mut self) {
        assert!(self.try_receive(), "the agent hung up");
    }

    /// False: the agent hung up.
    pub fn try_receive(&mut self) -> bool {
        let count = match self.connection.read(self.incoming.space()) {
            Ok(count) => count,
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => 0,
            Err(error) => panic!("nothing came from the agent: {error}"),
        };
        self.incoming.filled(count);
        let mut pongs = Vec::new();
        while let Some(frame) = self.incoming.next_frame().expect("the agent keeps to the protocol") {
            let event = match frame {
                Frame::Response { number, more, part } => {
                    if let Some(message) = self.assembler.push(number, more, part).expect("a message") {
                        let Response { id, ok, value } = Response::parse(&message).expect("a response");
                        self.responses.insert(id, (ok, value.to_vec()));
                        self.answered.insert(id);
                        while self.answered.remove(&(self.acked + 1)) {
                            self.acked += 1;
                        }
                    }
                    continue;
                }
                Frame::Ping(token) => {
                    self.pings += 1;
                    pongs.push(token);
                    continue;
                }
                Frame::Exit(body) => Event::Exit(from_msgpack(body).expect("EXIT")),
                Frame::Data { stream, offset, bytes } => {
                    Event::Data { stream, offset, bytes: bytes.to_vec() }
                }
                Frame::End { stream, total } => Event::End { stream, total },
                Frame::Reset { stream, body } => {
                    Event::Reset { stream, failure: from_msgpack(body).expect("RESET") }
                }
                Frame::Credit { stream, consumed, limit } => Event::Credit { stream, consumed, limit },
                Frame::Attach { stream, from, limit } => Event::Attach { stream, from, limit },
                Frame::Gap { stream, from, to } => Event::Gap { stream, from, to },
                Frame::Pong(token) => Event::Pong(token),
                other => panic!("not from an agent: {other:?}"),
            };
            self.events.push_back(event);
        }
        for token in pongs {
            self.frame(Frame::Pong(token));
        }
        count > 0
    }

    /// Waits for the first event that `wanted` accepts and takes it out.
    pub fn event<T>(&mut self, what: &str, wanted: impl Fn(&Event) -> Option<T>) -> T {
        let limit = Instant::now() + PATIENCE;
        loop {
            if let Some((index, found)) =
                self.events.iter().enumerate().find_map(|(index, event)| Some((index, wanted(event)?)))
            {
                self.events.remove(index);
                return found;
            }
            assert!(Instant::now() < limit, "no {what}; there is {:?}", self.events);
            self.receive();
        }
    }

    pub fn exit(&mut self, pid: u32) -> Exit {
        self.event("EXIT", |event| match event {
            Event::Exit(exit) if exit.pid == pid => Some(exit.clone()),
            _ => None,
        })
    }

    pub fn reset(&mut self, stream: u32) -> Failure {
        self.event("RESET", |event| match event {
            Event::Reset { stream: this, failure } if *this == stream => Some(failure.clone()),
            _ => None,
        })
    }

    /// The next DATA, GAP or END of a stream.
    pub fn next_of(&mut self, wanted: u32) -> Event {
        self.event("DATA, GAP or END", |event| match event {
            Event::Data { stream, .. } | Event::Gap { stream, .. } | Event::End { stream, .. }
                if *stream == wanted =>
            {
                Some(event.clone())
            }
            _ => None,
        })
    }

    /// Reads a stream to its end, granting `window` bytes ahead of what came; there must be no gap.
    pub fn read_from(&mut self, stream: u32, from: u64, window: u64) -> Vec<u8> {
        let mut all = Vec::new();
        loop {
            match self.next_of(stream) {
                Event::Data { offset, bytes, .. } => {
                    assert_eq!(offset, from + all.len() as u64, "DATA at the wrong offset");
                    all.extend_from_slice(&bytes);
                    let consumed = from + all.len() as u64;
                    self.frame(Frame::Credit { stream, consumed, limit: consumed + window });
                }
                Event::End { total, .. } => {
                    assert_eq!(total, from + all.len() as u64, "END at the wrong offset");
                    return all;
                }
                other => panic!("not expected: {other:?}"),
            }
        }
    }

    pub fn read_all(&mut self, stream: u32) -> Vec<u8> {
        self.read_from(stream, 0, 1 << 20)
    }

    /// Sends bytes to an input stream as fast as the agent lets us, and END.
    pub fn write_all(&mut self, stream: u32, bytes: &[u8]) {
        let (mut sent, mut limit) = (0, 262_144);
        while sent < bytes.len() {
            let part = bytes.len().min(limit as usize).min(sent + 200_000) - sent;
            if part == 0 {
                limit = self.event("CREDIT", |event| match event {
                    Event::Credit { stream: this, limit, .. } if *this == stream => Some(*limit),
                    _ => None,
                });
                continue;
            }
            self.frame(Frame::Data { stream, offset: sent as u64, bytes: &bytes[sent..sent + part] });
            sent += part;
        }
        self.frame(Frame::End { stream, total: sent as u64 });
    }

    /// Runs a shell command to its end; its exit, stdout and stderr.
    pub fn shell(&mut self, script: &str) -> (Exit, String, String) {
        let spawned = self.spawn(&shell(script));
        let stdout = self.read_all(spawned.stdout.expect("a stdout"));
        let stderr = self.read_all(spawned.stderr.expect("a stderr"));
        let exit = self.exit(spawned.pid);
        (exit, String::from_utf8_lossy(&stdout).into_owned(), String::from_utf8_lossy(&stderr).into_owned())
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let Some(agent) = &mut self.agent else { return };
        // Its processes would outlive it. Each leads a group; what has left that group is an orphan of the agent's.
        for group in children_of(agent.id()) {
            if let Some(group) = rustix::process::Pid::from_raw(group) {
                let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
            }
        }
        let _ = agent.kill();
        let _ = agent.wait();
    }
}

fn children_of(parent: u32) -> Vec<i32> {
    let stat = |entry: std::fs::DirEntry| std::fs::read_to_string(entry.path().join("stat")).ok();
    let child = |stat: String| {
        let (pid, rest) = (stat.split(' ').next()?.parse().ok()?, stat.rsplit(") ").next()?);
        (rest.split(' ').nth(1)? == parent.to_string()).then_some(pid)
    };
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries.flatten().filter_map(stat).filter_map(child).collect()
}

/// A command with both outputs piped and read at once.
pub fn command(command: &str, args: &[&str]) -> SpawnParams {
    SpawnParams {
        command: Text::from(command),
        args: args.iter().map(|arg| Text::from(*arg)).collect(),
        cwd: Some(Text::from("/")),
        stdout: methods::Stdio::Piped,
        stderr: methods::Stdio::Piped,
        credit: 1 << 20,
        ..SpawnParams::default()
    }
}

pub fn shell(script: &str) -> SpawnParams {
    command("sh", &["-c", script])
}

/// Bytes that repeat nowhere nearby, so that a lost or doubled part shows.
pub fn pattern(length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}
