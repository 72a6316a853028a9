"""One life of a sandbox's worker, as the broker sees it."""

import asyncio
import socket
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Protocol, assert_never

import msgspec
import structlog

from skerry.egress.broker.audit_files import BadLine, Trail
from skerry.egress.broker.control_channel import decode_from_worker, encode
from skerry.egress.broker.signals import Signal
from skerry.egress.messages import (
    MAX_MESSAGE_BYTES,
    Adopted,
    Cut,
    FromWorker,
    Line,
    Lines,
    Rules,
    Stop,
    Used,
    Written,
)

MAX_AT_ONCE = 64
"""Messages taken from one worker before others have their turn."""

DISK_PAUSE_S = 0.5
"""After a line could not be written. Meanwhile nothing is read, so the worker's queue fills, and it denies
what must be confirmed."""

_buffer = bytearray(MAX_MESSAGE_BYTES)
_whole = memoryview(_buffer)

_log = structlog.get_logger("skerry.egress.worker")


class Owner(Protocol):
    """Whose worker it is."""

    def used(self, counts: dict[str, int]) -> None:
        """Requests carried secrets."""
        ...

    def cut(self, secret: str) -> None:
        """A placeholder strayed whose rule says that the sandbox's network ends."""
        ...

    def misbehaved(self, problem: str) -> None:
        """It broke the rules between broker and worker: end it."""
        ...


class Worker:
    """Talks to the worker.

    What is to be sent and does not fit is kept, and only the last of its kind: rules replace rules, a
    confirmation covers earlier ones.

    Args:
        control: The broker's end of the pair; owned from now on.
    """

    def __init__(self, control: socket.socket, trail: Trail, owner: Owner) -> None:
        self.pid = 0
        self._control = control
        self._trail = trail
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._rules: bytes | None = None
        self._written: int | None = None
        self._stop = False
        self._writing = False
        self._adopted_version = 0
        self._adopted = Signal()
        self._unwritten: deque[Line] = deque()
        self._closed = False
        self._loop.add_reader(control.fileno(), self._receive)

    def tell(self, rules: Rules) -> None:
        """Have it go by these rules."""
        self._rules = encode(rules)
        self._flush()

    def stop(self) -> None:
        """Ask it to end."""
        self._stop = True
        self._flush()

    async def adopted(self, version: int) -> bool:
        """Wait until it goes by a version of the rules or a later one; False when it has ended. The caller
        sets the deadline."""
        while self._adopted_version < version and not self._closed:
            await self._adopted.wait()
        return self._adopted_version >= version

    def ended(self) -> None:
        """The process is gone: take what it has said, and hang up. Idempotent."""
        if self._closed:
            return
        while not self._unwritten and self._take_one():
            pass
        self.close()

    def close(self) -> None:
        """Hang up. Idempotent."""
        if not self._closed:
            self._closed = True
            self._loop.remove_reader(self._control.fileno())
            self._loop.remove_writer(self._control.fileno())
            self._control.close()
            self._adopted.notify()

    def _receive(self) -> None:
        for _ in range(MAX_AT_ONCE):
            if self._closed or self._unwritten or not self._take_one():
                break
        self._confirm()

    def _take_one(self) -> bool:
        """Take one message; False when there is none now."""
        try:
            length = self._control.recv_into(_buffer)
        except BlockingIOError:
            return False
        except ConnectionResetError:
            # It has ended without reading all. That is said once, before what it had sent (unix(7)).
            return True
        except OSError:
            length = 0
        if not length:
            # Its end of the pair is closed: the zygote will say how it ended.
            self._loop.remove_reader(self._control.fileno())
            return False
        try:
            self._take(decode_from_worker(_whole[:length]))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, BadLine) as error:
            self._loop.remove_reader(self._control.fileno())
            self._owner.misbehaved(type(error).__name__)
            return False
        return True

    def _take(self, message: FromWorker) -> None:
        match message:
            case Line():
                self._write((message,))
            case Lines(lines=lines):
                self._write(lines)
            case Used(counts=counts):
                self._owner.used(counts)
            case Adopted(version=version):
                self._adopted_version = max(self._adopted_version, version)
                self._adopted.notify()
            case Cut(secret=secret):
                self._owner.cut(secret)
            case _:
                assert_never(message)

    def _write(self, lines: Sequence[Line]) -> None:
        self._unwritten.extend(lines)
        while self._unwritten:
            line = self._unwritten[0]
            try:
                self._trail.append(line.seq, line.text)
            except OSError as error:
                _log.error("audit_not_written", error=str(error))
                self._loop.remove_reader(self._control.fileno())
                self._loop.call_later(DISK_PAUSE_S, self._write_again)
                return
            self._unwritten.popleft()
            if line.confirm:
                self._written = line.seq

    def _confirm(self) -> None:
        """Say what is written, once for all that came together."""
        if self._written is not None:
            self._flush()

    def _write_again(self) -> None:
        if self._closed:
            return
        self._write(())
        self._confirm()
        if not self._unwritten:
            self._loop.add_reader(self._control.fileno(), self._receive)

    def _flush(self) -> None:
        """Send what waits, as far as it fits."""
        if self._closed:
            return
        try:
            if self._rules is not None:
                self._control.send(self._rules)
                self._rules = None
            if self._written is not None:
                self._control.send(encode(Written(self._written)))
                self._written = None
            if self._stop:
                self._control.send(encode(Stop()))
                self._stop = False
        except BlockingIOError:
            self._wait_for_room(True)
            return
        except OSError:
            pass  # gone: the zygote will say so
        self._wait_for_room(False)

    def _wait_for_room(self, wanted: bool) -> None:
        if wanted != self._writing:
            self._writing = wanted
            with suppress(OSError):
                if wanted:
                    self._loop.add_writer(self._control.fileno(), self._flush)
                else:
                    self._loop.remove_writer(self._control.fileno())
