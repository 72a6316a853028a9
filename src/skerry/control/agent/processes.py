"""Processes inside the sandbox, as their client sees them."""

import asyncio
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from skerry.control.agent.input import InputStream
from skerry.control.agent.link import AgentLink
from skerry.control.agent.output import OutputStream
from skerry.control.agent.streams import MakeError
from skerry.protocol.messages import KillParams

MAX_RUNNING = 4096
MAX_ENDED = 1000


@dataclass(frozen=True, slots=True)
class Exit:
    """How a process ended.

    Attributes:
        code: Exit status, or 128 + signal number.
        signal: Name of the signal that ended it.
        oom: It was killed because memory ran out.
    """

    code: int
    signal: str | None
    oom: bool


class Process:
    """A process that the agent started.

    Attributes:
        pid: In the sandbox.
        exit: How it ended; None while it runs, for all we know.
        stdin: None when it was not asked for, or after a restart of this side.
        stdout: None when it was not asked for; may go on after `exit`, when a child holds the pipe.
        stderr: As `stdout`.
    """

    def __init__(
        self,
        pid: int,
        *,
        link: AgentLink,
        stdin: InputStream | None = None,
        stdout: OutputStream | None = None,
        stderr: OutputStream | None = None,
    ) -> None:
        self.pid = pid
        self.stdin = stdin
        self.stdout = stdout
        self.stderr = stderr
        self.exit: Exit | None = None
        self._link = link
        self._make_error: MakeError | None = None
        self._waiters: list[asyncio.Future[None]] = []

    async def wait(self) -> Exit:
        """Return when it has ended; waits as long as it runs. Any number may wait.

        Raises:
            SandboxEnded: The sandbox ended first.
            GuestUnreachable: The agent was replaced, or does not know how the process ended.
        """
        while self.exit is None:
            if self._make_error is not None:
                raise self._make_error()
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            try:
                await waiter
            finally:
                if waiter in self._waiters:
                    self._waiters.remove(waiter)
        return self.exit

    async def kill(self, signal: str, *, group: bool = False, timeout_s: float = 10.0) -> None:
        """Send a signal by its name ("SIGTERM") to it, or to its whole process group.

        Raises:
            AgentError: ``ESRCH`` when it has ended, ``BAD_SIGNAL``.
        """
        params = KillParams(self.pid, signal, group)
        await self._link.request("process.kill", params, type(None), timeout_s=timeout_s)

    def ended(self, exit_: Exit) -> None:
        """It has ended; only the first word counts."""
        if self.exit is not None:
            return
        self.exit = exit_
        if self.stdin is not None and not self.stdin.ended:
            self.stdin.reset("EPIPE", "The process has ended.")
        self._wake()

    def lost(self, make_error: MakeError) -> None:
        """Nobody will ever say how it ended."""
        self._make_error = make_error
        self._wake()

    def forget_outputs_except(self, known: set[int]) -> None:
        """Of adopted streams, keep those that the agent still has."""
        if self.stdout is not None and self.stdout.id not in known:
            self.stdout = None
        if self.stderr is not None and self.stderr.id not in known:
            self.stderr = None

    def release(self, make_error: MakeError) -> None:
        """Free what its streams hold; nobody can ask for it any more."""
        for output in (self.stdout, self.stderr):
            if output is not None:
                output.detach()
                output.fail(make_error)
        if self.stdin is not None:
            self.stdin.fail(make_error)

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)


class ProcessTable:
    """Processes by pid: those that run (bounded by `AgentClient.spawn`) and the last `MAX_ENDED` others."""

    def __init__(self) -> None:
        self._running: dict[int, Process] = {}
        self._by_pid: dict[int, Process] = {}
        # Pids come again, so ended processes are not kept by pid.
        self._ended: deque[Process] = deque()

    def __iter__(self) -> Iterator[Process]:
        """Those that run."""
        return iter(list(self._running.values()))

    def __len__(self) -> int:
        """How many run."""
        return len(self._running)

    def get(self, pid: int) -> Process | None:
        """The newest process of that pid, running or not."""
        return self._by_pid.get(pid)

    def add(self, process: Process, make_error: MakeError) -> None:
        """Enter a process. If another one ran under this pid, nobody has said how it ended."""
        before = self._running.get(process.pid)
        if before is not None:
            self.lost(before, make_error)
        self._running[process.pid] = self._by_pid[process.pid] = process

    def ended(self, pid: int, exit_: Exit, make_error: MakeError) -> bool:
        """A process has ended; False when it was not running here."""
        process = self._running.pop(pid, None)
        if process is None:
            return False
        process.ended(exit_)
        self._keep(process, make_error)
        return True

    def lost(self, process: Process, make_error: MakeError) -> None:
        """A process is gone without a status."""
        if self._running.get(process.pid) is process:
            del self._running[process.pid]
            process.lost(make_error)
            self._keep(process, make_error)

    def _keep(self, process: Process, make_error: MakeError) -> None:
        self._ended.append(process)
        while len(self._ended) > MAX_ENDED:
            oldest = self._ended.popleft()
            oldest.release(make_error)
            if self._by_pid.get(oldest.pid) is oldest:
                del self._by_pid[oldest.pid]
