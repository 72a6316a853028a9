"""Passing bytes between two connections, unread.

One buffer serves all connections of the process: bytes are received into it and sent on at once; only what
the other side does not take is kept, and then nothing more is received. So an idle connection holds no
memory, and a slow one at most `PIECE_BYTES` for each direction.
"""

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

PIECE_BYTES = 262_144
MAX_PIECES = 8
"""Of one direction, before other connections have their turn."""

_IDLE_CHECKS = 4

_buffer = bytearray(PIECE_BYTES)
_view = memoryview(_buffer)


Watch = Callable[[bytes], bool]


class Counters(Protocol):
    """Where bytes are counted."""

    sent_bytes: int
    received_bytes: int


class Pump:
    """Both directions of one connection. Owns neither socket; both must be non-blocking.

    Args:
        client, origin: Left and right.
        counters: Gets what passes.
        idle_s: The connection ends when nothing passed for about this long.
        watch: Sees what the client says first, before it is passed on, until it returns True. An OSError that
            it raises breaks the connection.
    """

    def __init__(
        self,
        client: socket.socket,
        origin: socket.socket,
        counters: Counters,
        *,
        idle_s: float,
        watch: Watch | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._counters = counters
        self._up = _Direction(self, client, origin, watch)
        self._down = _Direction(self, origin, client, None)
        self._idle_s = idle_s
        self._done: asyncio.Future[None] = self._loop.create_future()

    async def run(self) -> None:
        """Pass bytes until both sides have ended their streams; an end is passed on as such.

        Raises:
            OSError: One side broke; the other should be reset.
            TimeoutError: Nothing passed for too long.
        """
        idle = self._loop.call_later(self._idle_s / _IDLE_CHECKS, self._check_idle, -1, 0)
        self._idle = idle
        try:
            self._up.start()
            self._down.start()
            await self._done
        finally:
            self._idle.cancel()
            self._up.stop()
            self._down.stop()
            self._counters.sent_bytes += self._up.take_count()
            self._counters.received_bytes += self._down.take_count()

    def ended(self) -> None:
        """A direction has ended."""
        if self._up.over and self._down.over and not self._done.done():
            self._done.set_result(None)

    def failed(self, error: Exception) -> None:
        """A direction has broken."""
        if not self._done.done():
            self._done.set_exception(error)

    def _check_idle(self, moved_before: int, unchanged: int) -> None:
        moved = self._up.moved + self._down.moved
        unchanged = unchanged + 1 if moved == moved_before else 0
        if unchanged >= _IDLE_CHECKS:
            self.failed(TimeoutError("nothing passed"))
            return
        self._idle = self._loop.call_later(self._idle_s / _IDLE_CHECKS, self._check_idle, moved, unchanged)


class _Direction:
    __slots__ = (
        "_loop", "_pump", "_receive", "_rest", "_send", "_sink", "_source", "_stopped", "_told", "_watch",
        "moved", "over",
    )  # fmt: skip

    def __init__(self, pump: Pump, source: socket.socket, sink: socket.socket, watch: Watch | None) -> None:
        self._loop = asyncio.get_running_loop()
        self._pump = pump
        self._source = source
        self._sink = sink
        self._receive = source.recv_into
        self._send = sink.send
        self._rest: bytes | memoryview = b""
        self._told = 0
        self._watch = watch
        self._stopped = False
        self.moved = 0
        self.over = False

    def start(self) -> None:
        """Pass what comes."""
        self._loop.add_reader(self._source.fileno(), self._readable)

    def stop(self) -> None:
        """Look at the sockets no more. Idempotent."""
        self._stopped = True
        for sock, forget in (
            (self._source, self._loop.remove_reader),
            (self._sink, self._loop.remove_writer),
        ):
            if sock.fileno() >= 0:
                forget(sock.fileno())

    def take_count(self) -> int:
        """Bytes passed since this was asked last."""
        new = self.moved - self._told
        self._told = self.moved
        return new

    def _readable(self) -> None:
        # To the end: when the peer has reset the connection, uvloop calls this once more and never again,
        # even if data came before the reset (uvloop, handles/poll.pyx, UVPoll._fatal_error).
        for _ in range(MAX_PIECES):
            if not self._pass_piece():
                return
        self._loop.call_soon(self._readable)

    def _pass_piece(self) -> bool:
        """Pass what has come; False when there is no more, or no more may be taken now."""
        if self._stopped or self._rest or self.over:
            return False
        try:
            size = self._receive(_buffer)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            self._pump.failed(error)
            return False
        if size == 0:
            self._end()
            return False
        self.moved += size
        if self._watch is not None and not self._passes_watch(self._watch, size):
            return False
        return self._pass_on(size)

    def _pass_on(self, size: int) -> bool:
        try:
            sent = self._send(_view[:size])
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError as error:
            self._pump.failed(error)
            return False
        if sent < size:
            self._rest = memoryview(bytes(_view[sent:size]))
            self._loop.remove_reader(self._source.fileno())
            self._loop.add_writer(self._sink.fileno(), self._writable)
            return False
        return True

    def _passes_watch(self, watch: Watch, size: int) -> bool:
        try:
            if watch(bytes(_view[:size])):
                self._watch = None
        except OSError as error:
            self._pump.failed(error)
            return False
        return True

    def _writable(self) -> None:
        try:
            self._rest = self._rest[self._send(self._rest) :]
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._pump.failed(error)
            return
        if not self._rest:
            self._rest = b""
            self._loop.remove_writer(self._sink.fileno())
            self._loop.add_reader(self._source.fileno(), self._readable)

    def _end(self) -> None:
        self._loop.remove_reader(self._source.fileno())
        self.over = True
        # The other side may be gone already.
        with suppress(OSError):
            self._sink.shutdown(socket.SHUT_WR)
        self._pump.ended()
