"""Run one process in a sandbox as if it were here: its input, output, signals and exit status are ours."""

import asyncio
import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from skerry.cli.rpc import CallFailed, FileMissing, Session
from skerry.cli.tasks import background
from skerry.errors import SkerryError

_STDIN_FD = 0
_READ_BYTES = 65_536
_QUIET_S = 2.0
"""How long after the end of a process its streams may be silent: a child may hold them open for ever."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_NOT_FOUND_STATUS = 127


@dataclass(frozen=True, slots=True)
class Program:
    """What to run."""

    command: str
    args: tuple[str, ...] = ()
    cwd: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Ending:
    """How it ended: status, or 128 + signal number and the signal's name; whether for lack of memory."""

    code: int
    signal: str | None
    oom: bool


Output = Callable[[str, bytes], None]
"""Takes chunks of ``stdout`` and ``stderr``."""


def program_of(words: list[str], *, cwd: str | None, env: Mapping[str, str]) -> Program:
    """One word is a line for bash; several are a program and its arguments, exactly."""
    if len(words) == 1:
        return Program("bash", ("-c", "--", words[0]), cwd, env)
    return Program(words[0], tuple(words[1:]), cwd, env)


async def run(session: Session, program: Program, output: Output, *, stdin: bool = True) -> Ending:
    """Run a program to its end.

    Args:
        stdin: Our standard input is its own; else it has none.

    Raises:
        BrokenPipeError: Whoever reads our output is gone; the program has been told by SIGPIPE.
        SkerryError: It could not be started, or the sandbox ended.
    """
    upload = await session.open_stream() if stdin else None
    spawned = await session.call(
        "spawn",
        command=program.command,
        args=list(program.args),
        env=dict(program.env),
        cwd=program.cwd,
        stdinStreamId=None if upload is None else upload.number,
        stdout="piped",
        stderr="piped",
    )
    pid: int = spawned["pid"]
    streams = _Streams(output)
    streams.attach(session, "stdout", spawned["stdoutStreamId"])
    streams.attach(session, "stderr", spawned["stderrStreamId"])
    beside = [_pass_signals(session, pid), _stop_when_unread(session, pid, streams)]
    if upload is not None:
        beside.append(_copy_stdin(upload))
    async with background(*beside):
        ended = await session.call("processWait", pid=pid)
        await streams.finished()
    if streams.unread.is_set():
        raise BrokenPipeError
    return Ending(ended["code"], ended["signal"], ended["oom"] is not None)


class _Streams:
    """The two output streams."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._open = 0
        self._event = asyncio.Event()
        self.unread = asyncio.Event()

    def attach(self, session: Session, name: str, stream_id: int) -> None:
        self._open += 1

        def sink(chunk: bytes | None) -> None:
            self._event.set()
            if chunk is None:
                self._open -= 1
            elif not self.unread.is_set():
                try:
                    self._output(name, chunk)
                except BrokenPipeError:
                    self.unread.set()

        session.receive(stream_id, sink)

    async def finished(self) -> None:
        """Wait until both have ended, or nothing has come for a while."""
        while self._open and not self.unread.is_set():
            self._event.clear()
            try:
                async with asyncio.timeout(_QUIET_S):
                    await self._event.wait()
            except TimeoutError:
                return


async def _copy_stdin(target: Any) -> None:
    """Copy our standard input to the process until its end.

    Never sets it non-blocking, which every process that shares it would see, and never reads it in a thread,
    which could not be stopped.
    """
    fd = _STDIN_FD
    waits = True
    while True:
        if waits:
            waits = await _wait_readable(fd)
        try:
            data = os.read(fd, _READ_BYTES)
        except OSError:
            data = b""  # a terminal that is gone, or ours no more
        if not data:
            break
        await target.write(data)
    await target.end()


async def _wait_readable(fd: int) -> bool:
    """Wait until a read will not block; False for a descriptor that never blocks (a file, /dev/null)."""
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    try:
        loop.add_reader(fd, readable.set)
    except PermissionError:
        return False
    try:
        await readable.wait()
    finally:
        loop.remove_reader(fd)
    return True


async def _pass_signals(session: Session, pid: int) -> None:
    """Send the process the signals that we get."""
    loop = asyncio.get_running_loop()
    got: asyncio.Queue[signal.Signals] = asyncio.Queue()
    for number in _SIGNALS:
        loop.add_signal_handler(number, got.put_nowait, number)
    try:
        while True:
            await _kill(session, pid, await got.get())
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)


async def _stop_when_unread(session: Session, pid: int, streams: _Streams) -> None:
    await streams.unread.wait()
    await _kill(session, pid, signal.SIGPIPE)


async def _kill(session: Session, pid: int, number: signal.Signals) -> None:
    try:
        await session.call("processKill", pid=pid, signal=number.name)
    except (CallFailed, FileMissing):
        return  # it has ended


def start_failure_status(problem: SkerryError) -> int | None:
    """The exit status of a shell for a program that is not there; None for other errors."""
    return _NOT_FOUND_STATUS if isinstance(problem, FileMissing) else None
