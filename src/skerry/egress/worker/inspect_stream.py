"""One end of an inspected connection: bytes that come and go, over TLS or in clear, without a task.

It works on the socket itself rather than on a transport of the event loop: nothing is buffered for reading
(a TLS record is read when it is wanted), an end without ``close_notify`` can be told from one with it, and
what a peer sent before it reset the connection is still read.
"""

import asyncio
import socket
import ssl
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from skerry.egress.worker.denial import reset, say_and_close
from skerry.egress.worker.upstream_tls import say_goodbye

READ_BYTES = 16_384
"""A TLS record holds no more, so that one read leaves nothing behind in the TLS library, where the event loop
does not see it (RFC 8446, section 5.1)."""

MAX_READS = 4
"""At once, before other connections have their turn."""

_NOT_NOW = (BlockingIOError, ssl.SSLWantReadError)


@dataclass(frozen=True, slots=True)
class Listener:
    """Who is told what happens to a stream. Each may write to it, pause or close it.

    Attributes:
        received: Bytes have come.
        ended: No more will come; True when the peer said so, rather than that the connection broke.
        drained: After the backlog had reached its bound: it is gone.
    """

    received: Callable[[bytes], None]
    ended: Callable[[bool], None]
    drained: Callable[[], None]


_NOBODY = Listener(lambda data: None, lambda clean: None, lambda: None)


class Stream:
    """A connected socket on the event loop.

    Attributes:
        backlog: Bytes that wait to be sent.
        full: They are too many.
        received_bytes, sent_bytes: So far, without what waits.
        closed: Nothing more is read or written.
        broken: The peer takes nothing more; what is written is dropped.

    Args:
        sock: Non-blocking, handshake done; owned from now on. Reading starts with `resume`.
        buffer_bytes: With so much in the backlog it is full.
    """

    __slots__ = (
        "_emptied", "_ended", "_fd", "_listener", "_loop", "_queue", "_read", "_reading", "_send", "_sock",
        "_write_first", "_writing", "backlog", "broken", "buffer_bytes", "closed", "full", "received_bytes",
        "sent_bytes",
    )  # fmt: skip

    def __init__(self, sock: socket.socket, buffer_bytes: int) -> None:
        self._sock = sock
        self._fd = sock.fileno()
        self._listener = _NOBODY
        self._loop = asyncio.get_running_loop()
        self._read = sock.read if isinstance(sock, ssl.SSLSocket) else sock.recv
        self._send = sock.send
        self._queue: deque[bytes | memoryview] = deque()
        self._reading = False
        self._writing = False
        self._write_first = False
        self._ended = False
        self.full = False
        self._emptied: asyncio.Future[None] | None = None
        self.broken = False
        self.buffer_bytes = buffer_bytes
        self.backlog = 0
        self.received_bytes = 0
        self.sent_bytes = 0
        self.closed = False
        # The event loop sends no small segments late; neither may the kernel.
        with suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def listen(self, listener: Listener) -> None:
        """Tell this one from now on."""
        self._listener = listener

    def pause(self) -> None:
        """Read no more until `resume`. Idempotent."""
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self._fd)

    def resume(self) -> None:
        """Read. Idempotent."""
        if not self._reading and not self.closed and not self._ended and not self._write_first:
            self._reading = True
            self._loop.add_reader(self._fd, self._readable)

    def write(self, data: bytes) -> None:
        """Send, now or when there is room.

        When the stream is `full` then, whoever has more should wait for `Listener.drained`.
        """
        if not data or self.closed or self.broken:
            return
        self._queue.append(data)
        self.backlog += len(data)
        if not self._writing:
            self._flush()
        if self.backlog >= self.buffer_bytes:
            self.full = True

    def close(self) -> None:
        """Say goodbye and close; what waits is not sent. Idempotent."""
        if self.closed:
            return
        self._stop()
        if isinstance(self._sock, ssl.SSLSocket) and not self.backlog:
            say_goodbye(self._sock)
        self._sock.close()

    def abort(self) -> None:
        """Close so that the peer does not take it for a proper end; what waits is not sent. Idempotent."""
        if self.closed:
            return
        self._stop()
        if isinstance(self._sock, ssl.SSLSocket):
            self._sock.close()
        else:
            reset(self._sock)

    async def finish(self, stall_s: float) -> None:
        """Send what waits, say goodbye, let the peer read it, and close.

        Args:
            stall_s: When nothing of it has left for so long, it is given up.
        """
        self.pause()
        while self.backlog and not self.broken and not self.closed:
            before = self.sent_bytes
            self._emptied = self._loop.create_future()
            with suppress(TimeoutError):
                async with asyncio.timeout(stall_s):
                    await self._emptied
            if self.sent_bytes == before:
                self.abort()
        if self.closed:
            return
        self._stop()
        if isinstance(self._sock, ssl.SSLSocket):
            say_goodbye(self._sock)
        await say_and_close(socket.socket(fileno=self._sock.detach()), b"")

    def _stop(self) -> None:
        self.pause()
        self._stop_writing()
        self._listener = _NOBODY
        self.closed = True

    def _readable(self) -> None:
        for _ in range(MAX_READS):
            try:
                data = self._read(READ_BYTES)
            except _NOT_NOW:
                return
            except ssl.SSLWantWriteError:
                # An answer of the TLS library to the peer (a key update) finds no room.
                self._wait_for_room_to_read()
                return
            except OSError:
                self._end(clean=False)
                return
            if not data:
                self._end(clean=True)
                return
            size = len(data)
            self.received_bytes += size
            self._listener.received(data)
            if size < READ_BYTES or not self._reading:
                return

    def _wait_for_room_to_read(self) -> None:
        self.pause()
        self._write_first = True
        self._start_writing()

    def _end(self, *, clean: bool) -> None:
        self._ended = True
        self.pause()
        self._listener.ended(clean)

    def _flush(self) -> None:
        try:
            while self._queue:
                data = self._queue[0]
                if len(data) > READ_BYTES:
                    # A record at a time: one that finds no room must be tried again exactly as it was.
                    self._queue[0] = view = memoryview(data)
                    data = view[:READ_BYTES]
                sent = self._send(data)
                self.backlog -= sent
                self.sent_bytes += sent
                if sent == len(self._queue[0]):
                    self._queue.popleft()
                else:
                    self._queue[0] = memoryview(self._queue[0])[sent:]
        except (BlockingIOError, ssl.SSLWantWriteError):
            self._start_writing()
        except OSError:
            self._write_failed()
        else:
            self._stop_writing()

    def _write_failed(self) -> None:
        """The peer takes no more. What it has said can still be read; that ends with the error."""
        self.broken = True
        self._queue.clear()
        self.backlog = 0
        self._stop_writing()

    def _start_writing(self) -> None:
        if not self._writing:
            self._writing = True
            self._loop.add_writer(self._fd, self._writable)

    def _stop_writing(self) -> None:
        if self._writing:
            self._writing = False
            self._loop.remove_writer(self._fd)

    def _writable(self) -> None:
        self._flush()
        if self._write_first and not self._writing:
            self._write_first = False
            self.resume()
        if self._emptied is not None and not self._writing and not self._emptied.done():
            self._emptied.set_result(None)
        if self.full and self.backlog < self.buffer_bytes // 4 and not self.closed:
            self.full = False
            self._listener.drained()
