"""Start one daemon process and watch it."""

import asyncio
import os
import signal
import socket
import subprocess  # noqa: TID251 - the supervisor starts the daemons
import sys
import time
from collections.abc import Callable, Sequence
from typing import IO

from skerry.cli.places import RuntimeDir
from skerry.cli.processes import Identity, identify
from skerry.daemon import lifeline
from skerry.daemon.log_files import LineSplitter
from skerry.errors import SkerryError

PROGRAM = (sys.executable, "-I", *(("-B",) if sys.dont_write_bytecode else ()), "-m", "skerry")
"""-I: neither the current directory nor PYTHON* variables decide what root imports. -B: see `elevation`."""

_READ_BYTES = 65_536
_EXIT_S = 5.0
_KEPT_ENV = ("PATH", "LANG", "LC_ALL", "TZ")
_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class DaemonFailed(SkerryError):
    """A daemon did not start, or keeps dying; the message says why and where its log is."""

    code = "DAEMON_FAILED"


class Running:
    """One life of a daemon process. Made by `launch`, on a running event loop."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], parent: lifeline.ParentEnd) -> None:
        self.name = name
        self.started_s = time.monotonic()
        self._process = process
        self._parent = parent
        self._loop = asyncio.get_running_loop()
        self.exited: asyncio.Future[int] = self._loop.create_future()
        self._pidfd = os.pidfd_open(process.pid)
        self._loop.add_reader(self._pidfd, self._reap)

    @property
    def identity(self) -> Identity:
        """The process; stays valid after its end."""
        return identify(self._process.pid) or Identity(self._process.pid, 0)

    async def ready(
        self, hello: lifeline.Hello, *, timeout_s: float, hand_back: Sequence[int] = ()
    ) -> lifeline.Ready:
        """Tell it to work and wait until it serves.

        Args:
            hand_back: Descriptors that it gets, as `hello` announces.
        Raises:
            DaemonFailed: It said that it cannot, ended, or took too long; it has been killed.
        """
        self._parent.say(hello)
        answer: lifeline.Ready | lifeline.Failed | None
        try:
            async with asyncio.timeout(timeout_s):
                await self._parent.hand_back(hand_back)
                answer = await self._parent.answer()
        except TimeoutError:
            answer = lifeline.Failed(f"it did not start within {timeout_s:g} s")
        if isinstance(answer, lifeline.Ready):
            return answer
        if answer is None:
            # Its end of the line closes a moment before the process has ended.
            await asyncio.wait([self.exited], timeout=_EXIT_S)
        await self.kill()
        raise DaemonFailed(answer.message if answer else f"it ended ({describe_exit(self.exited.result())})")

    def on_kept(self, callback: Callable[[lifeline.Kept, list[int]], None]) -> None:
        """Call back with what it asks `up` to keep or to forget, to the last word before its end.

        Args:
            callback: Owns the descriptors that it gets.
        """
        self._parent.on_kept(callback)

    async def stop(self, *, keep: bool, timeout_s: float) -> bool:
        """Ask it to end and wait; kill it when it takes too long.

        Args:
            keep: Leave sandboxes running.
        Returns:
            It ended by itself with status 0, so it did all that was asked.
        """
        self._parent.say(lifeline.Stop(keep))
        await asyncio.wait([self.exited], timeout=timeout_s)
        if not self.exited.done():
            await self.kill()
            return False
        return self.exited.result() == 0

    async def kill(self) -> None:
        """End it at once. Idempotent."""
        if not self.exited.done():
            self._process.kill()
        await self.exited

    def _reap(self) -> None:
        # The pidfd is readable as soon as the process has ended, so this does not block.
        code = self._process.wait()
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._parent.close()
        if not self.exited.done():
            self.exited.set_result(code)


def launch(
    name: str,
    runtime: RuntimeDir,
    on_line: Callable[[str, bytes], None],
    *,
    program: Sequence[str] = PROGRAM,
    listener: socket.socket | None = None,
) -> Running:
    """Start a daemon in a session of its own, with a clean environment and only its own descriptors.

    Args:
        name: The hidden command of `skerry` that it is.
        on_line: Gets every line that it prints, newline included.
        program: What is started with the name as its first argument.
        listener: The API's listening socket, which outlives the process.
    """
    ours, theirs = lifeline.pair()
    env = {key: os.environ[key] for key in _KEPT_ENV if key in os.environ}
    env.setdefault("PATH", _DEFAULT_PATH)
    env[lifeline.PARENT_FD_ENV] = str(theirs.fileno())
    passed = [theirs.fileno()]
    if listener is not None:
        env[lifeline.LISTEN_FD_ENV] = str(listener.fileno())
        passed.append(listener.fileno())
    with theirs:
        process = subprocess.Popen(
            [*program, name, "--runtime-dir", str(runtime.path)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            pass_fds=passed,
            env=env,
            cwd="/",
            start_new_session=True,
        )
    running = Running(name, process, lifeline.ParentEnd(ours))
    assert process.stderr is not None  # noqa: S101 - it was asked for above
    _relay_lines(running, process.stderr, on_line)
    return running


def _relay_lines(running: Running, pipe: IO[bytes], on_line: Callable[[str, bytes], None]) -> None:
    loop = asyncio.get_running_loop()
    fd = pipe.fileno()
    os.set_blocking(fd, False)
    splitter = LineSplitter()

    def read() -> bool:
        """Take what is there; False when nothing more can come now."""
        try:
            data = os.read(fd, _READ_BYTES)
        except BlockingIOError:
            return False
        for line in splitter.feed(data):
            on_line(running.name, line)
        return bool(data)

    def finish() -> None:
        # Not end of file but the end of the daemon decides: what it has started may hold the pipe for ever.
        for _ in range(64):
            if not read():
                break
        for line in splitter.end():
            on_line(running.name, line)
        loop.remove_reader(fd)
        pipe.close()

    def readable() -> None:
        if not read() and not pipe.closed:
            loop.remove_reader(fd)

    loop.add_reader(fd, readable)
    running.exited.add_done_callback(lambda _: finish())


def describe_exit(code: int) -> str:
    """An exit status of `subprocess` in words."""
    if code >= 0:
        return f"exit status {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"
