"""Processes that hostd starts or ends: bounded output, deadlines, and signals that cannot hit a stranger."""

import asyncio
import contextlib
import os
import select
import signal
import subprocess  # noqa: TID251 - hostd starts runtimes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from skerry.errors import TimedOut

_KILL_WAIT_S = 5.0


@dataclass(frozen=True, slots=True)
class Finished:
    """A program that ended.

    Attributes:
        status: Exit status; negative: minus the signal that ended it.
        output: The first bytes of what it printed, on both streams.
    """

    status: int
    output: str


async def run_program(
    argv: Sequence[str],
    *,
    timeout_s: float,
    max_output_bytes: int = 16_384,
    env: Mapping[str, str] | None = None,
) -> Finished:
    """Run a program to its end in a session of its own.

    Args:
        timeout_s: Afterwards, and on cancellation, it is killed.
        max_output_bytes: What it prints beyond is read and thrown away.

    Raises:
        TimedOut: It took too long and was killed.
        OSError: It cannot be started.
    """
    process = await asyncio.create_subprocess_exec(  # noqa: TID251 - hostd starts runtimes
        *argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=env,
        start_new_session=True,
    )
    assert process.stdout is not None  # noqa: S101 - asked for above
    try:
        async with asyncio.timeout(timeout_s):
            output = await _read_bounded(process.stdout, max_output_bytes)
            status = await process.wait()
    except TimeoutError:
        raise TimedOut(os.path.basename(argv[0]), timeout_s) from None
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_KILL_WAIT_S):
                    await process.wait()
    return Finished(status, output.decode(errors="replace"))


async def _read_bounded(stream: asyncio.StreamReader, max_bytes: int) -> bytes:
    kept = bytearray()
    while chunk := await stream.read(65_536):
        kept += chunk[: max_bytes - len(kept)]
    return bytes(kept)


class ProcessHandle:
    """A process that is not our child, held by a pidfd: its number may be used again, the handle never means
    another.

    Source: pidfd_open(2); Linux 5.3.
    """

    def __init__(self, pid: int, descriptor: int) -> None:
        self.pid = pid
        self._descriptor = descriptor

    @classmethod
    def open(cls, pid: int) -> Self | None:
        """Take hold of a process; None when there is none of that number (0 and negative numbers never are
        one).
        """
        if pid <= 0:
            return None
        try:
            return cls(pid, os.pidfd_open(pid))
        except ProcessLookupError:
            return None

    @classmethod
    def of_child(cls, pid: int) -> Self:
        """Take hold of a child that was not waited for yet, so its number is its own."""
        return cls(pid, os.pidfd_open(pid))

    def fileno(self) -> int:
        """The descriptor: readable once the process has ended."""
        return self._descriptor

    def has_ended(self) -> bool:
        """Whether it has ended; it may still be a zombie."""
        return bool(select.select([self._descriptor], [], [], 0)[0])

    def kill(self) -> None:
        """Send SIGKILL. Nothing happens when it has ended."""
        self.send(signal.SIGKILL)

    def send(self, number: signal.Signals) -> None:
        """Send a signal. Nothing happens when it has ended."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._descriptor, number)

    async def wait(self) -> None:
        """Wait until it has ended; the caller sets the deadline. It may still be a zombie."""
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()
        # A duplicate, since the loop keeps one reader per descriptor and several may wait.
        descriptor = os.dup(self._descriptor)
        loop.add_reader(descriptor, settle, ended)
        try:
            await ended
        finally:
            loop.remove_reader(descriptor)
            os.close(descriptor)

    def close(self) -> None:
        """Let go. Idempotent."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def settle(future: "asyncio.Future[None]") -> None:
    """Give a future its result, once: a descriptor may be reported ready twice before its reader goes."""
    if not future.done():
        future.set_result(None)


def command_line(pid: int) -> list[bytes]:
    """Arguments of a process; empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[:-1]
    except OSError:
        return []


def parent_of(pid: int) -> int | None:
    """Number of a process's parent; None when it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    # The name, in brackets, may hold anything (proc_pid_stat(5)).
    return int(stat[stat.rindex(b")") + 2 :].split(b" ")[1])
