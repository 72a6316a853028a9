"""The process that forks workers: it has imported everything, holds no secret and serves nobody else.

The broker asks over a SOCK_SEQPACKET pair. A worker starts as a copy of this process, so it has what this
process has: code, and never another sandbox's secrets. When the broker ends, this process ends, and with it
all workers.
"""

import fcntl
import gc
import os
import resource
import select
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import msgspec

from skerry.egress.own_process import die_with, set_name
from skerry.egress.raised_at import raised_at

WORKER_DESCRIPTORS = 3
"""Control socket, TCP listener, UDP socket: numbers 3, 4 and 5 in the worker."""

MAX_MESSAGE_BYTES = 4096
MAX_WORKER_FILES = 4096
FAILED_STATUS = 70
"""Exit status of a worker whose code raised something. Source: sysexits.h, EX_SOFTWARE."""

_FIRST_DESCRIPTOR = 3
_OUT_OF_THE_WAY = 64


class Fork(msgspec.Struct, frozen=True, tag=True):
    """Start a worker with the three descriptors that come along."""

    number: int


class Kill(msgspec.Struct, frozen=True, tag=True):
    """Kill a worker. Nothing happens when it has ended."""

    pid: int


ToZygote = Fork | Kill


class Forked(msgspec.Struct, frozen=True, tag=True):
    """The answer to the `Fork` of that number; ``pid`` 0: it failed, as ``problem`` says."""

    number: int
    pid: int
    problem: str = ""


class Ended(msgspec.Struct, frozen=True, tag=True):
    """A worker ended.

    Attributes:
        status: Exit status; negative: minus the signal that ended it.
    """

    pid: int
    status: int


FromZygote = Forked | Ended

_requests = msgspec.msgpack.Decoder(ToZygote)
_encode = msgspec.msgpack.Encoder().encode

Entry = Callable[[int, int, int], int]
"""A worker's whole life, given its three descriptors; returns its exit status."""


def run(sock: socket.socket, entry: Entry, *, broker: int, memory_bytes: int) -> NoReturn:
    """Serve the broker until it is gone; then end.

    Args:
        sock: This end of the pair; every other descriptor but the standard three must have been closed.
        entry: What a worker does.
        broker: The broker's process number.
        memory_bytes: What a worker may have beside what it inherits.
    """
    status = 1
    try:
        die_with(broker)
        set_name("skerry-zygote")
        # What is there now is never garbage; without this the first collection of every worker would touch,
        # and so copy, all of it.
        gc.collect()
        gc.freeze()
        gc.disable()
        _Zygote(sock, entry, memory_bytes).serve()
        status = 0
    finally:
        # Not sys.exit: what the caller would clean up belongs to the broker.
        os._exit(status)


class _Zygote:
    def __init__(self, sock: socket.socket, entry: Entry, memory_bytes: int) -> None:
        self._sock = sock
        self._entry = entry
        self._memory_bytes = memory_bytes
        self._pid = os.getpid()
        self._poll = select.epoll()
        self._workers: dict[int, int] = {}
        """Process numbers by pidfd."""

    def serve(self) -> None:
        """Fork, kill and reap until the broker is gone."""
        self._sock.setblocking(True)
        self._poll.register(self._sock.fileno(), select.EPOLLIN)
        while True:
            for fd, _ in self._poll.poll():
                if fd != self._sock.fileno():
                    self._reap(fd)
                elif not self._take_request():
                    return

    def _take_request(self) -> bool:
        data, descriptors, flags, _ = socket.recv_fds(
            self._sock, MAX_MESSAGE_BYTES, WORKER_DESCRIPTORS, socket.MSG_CMSG_CLOEXEC
        )
        try:
            if not data:
                return False
            match _requests.decode(data):
                case Fork(number=number):
                    complete = len(descriptors) == WORKER_DESCRIPTORS and not flags & socket.MSG_CTRUNC
                    self._say(
                        self._fork(number, descriptors)
                        if complete
                        else Forked(number, 0, "the descriptors did not arrive")
                    )
                case Kill(pid=pid):
                    # Only what was not reaped yet: the number cannot have become somebody else's.
                    if pid in self._workers.values():
                        os.kill(pid, signal.SIGKILL)
            return True
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def _fork(self, number: int, descriptors: Sequence[int]) -> Forked:
        try:
            pid = os.fork()
        except OSError as error:
            return Forked(number, 0, f"fork: {error.strerror}")
        if pid == 0:
            _live(self._entry, descriptors, self._pid, self._memory_bytes)
        handle = os.pidfd_open(pid)
        self._workers[handle] = pid
        self._poll.register(handle, select.EPOLLIN)
        return Forked(number, pid)

    def _reap(self, handle: int) -> None:
        pid = self._workers.pop(handle)
        self._poll.unregister(handle)
        os.close(handle)
        _, status = os.waitpid(pid, 0)
        self._say(Ended(pid, os.waitstatus_to_exitcode(status)))

    def _say(self, message: FromZygote) -> None:
        # When the broker is gone, the next poll says so.
        with suppress(OSError):
            self._sock.send(_encode(message))


def _live(entry: Entry, descriptors: Sequence[int], zygote: int, memory_bytes: int) -> NoReturn:
    """A worker's life."""
    status = FAILED_STATUS
    try:
        die_with(zygote)
        _keep_only(descriptors)
        set_name("skerry-worker")
        _limit(memory_bytes)
        gc.enable()
        status = entry(*range(_FIRST_DESCRIPTOR, _FIRST_DESCRIPTOR + WORKER_DESCRIPTORS))
    except BaseException as error:
        with suppress(OSError):
            os.write(2, f"worker failed: {type(error).__name__} at {raised_at(error)}\n".encode())
    finally:
        with suppress(BaseException):
            sys.stderr.flush()
        os._exit(status)


def _keep_only(descriptors: Sequence[int]) -> None:
    """Move the descriptors to the numbers from 3 on, and close all others but the standard three."""
    high = [fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _OUT_OF_THE_WAY) for descriptor in descriptors]
    for number, descriptor in enumerate(high, _FIRST_DESCRIPTOR):
        os.dup2(descriptor, number, inheritable=False)
    kept = _FIRST_DESCRIPTOR + len(descriptors)
    for open_one in sorted(int(name) for name in os.listdir("/proc/self/fd")):
        if open_one >= kept:
            with suppress(OSError):
                os.close(open_one)


def _limit(memory_bytes: int) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (MAX_WORKER_FILES, MAX_WORKER_FILES))
    # RLIMIT_DATA counts private writable pages, those inherited from here included (getrlimit(2)).
    data_bytes = _inherited_data_bytes() + memory_bytes
    resource.setrlimit(resource.RLIMIT_DATA, (data_bytes, data_bytes))


def _inherited_data_bytes() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmData:"):
            return int(line.split()[1]) << 10
    return 0
