"""One end of an inspected connection: bytes that come and go, over TLS or in clear, without a task.

It works on the socket itself rather than on a transport of the event loop: nothing is kept for reading, an
end without ``close_notify`` can be told from one with it, and what a peer sent before it reset the connection
is still read.
"""

import asyncio
import socket
import ssl
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from skerry.egress.worker.denial import reset, say_and_close
from skerry.egress.worker.inspect_tls import Tls

READ_BYTES = 65_536
MAX_PIECES = 8
"""Before other connections have their turn."""


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
        received_bytes: So far, as the listener got them.
        sent_bytes: So far, without what waits; encrypted ones if so.
        closed: Nothing more is read or written.
        broken: The peer takes nothing more; what is written is dropped.

    Args:
        sock: Non-blocking; owned from now on. Reading starts with `resume`.
        tls: After its handshake; None: in clear.
        buffer_bytes: With so much in the backlog it is full.
    """

    __slots__ = (
        "_early", "_emptied", "_ended", "_fd", "_listener", "_loop", "_queue", "_reading", "_sock", "_tls",
        "_writing", "backlog", "broken", "buffer_bytes", "closed", "full", "received_bytes", "sent_bytes",
    )  # fmt: skip

    def __init__(self, sock: socket.socket, tls: Tls | None, buffer_bytes: int) -> None:
        self._sock = sock
        self._fd = sock.fileno()
        self._tls = tls
        self._early = tls is not None and tls.has_early
        self._listener = _NOBODY
        self._loop = asyncio.get_running_loop()
        self._queue: deque[bytes | memoryview] = deque()
        self._reading = False
        self._writing = False
        self._ended = False
        self._emptied: asyncio.Future[None] | None = None
        self.buffer_bytes = buffer_bytes
        self.backlog = 0
        self.full = False
        self.received_bytes = 0
        self.sent_bytes = 0
        self.closed = False
        self.broken = False

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
        if not self._reading and not self.closed and not self._ended:
            self._reading = True
            self._loop.add_reader(self._fd, self._readable)
            if self._early:
                self._early = False
                self._loop.call_soon(self._received, b"")

    def write(self, data: bytes) -> None:
        """Send, now or when there is room.

        When the stream is `full` then, whoever has more should wait for `Listener.drained`.
        """
        if data and not self.closed and not self.broken:
            self._enqueue(data if self._tls is None else self._tls.encrypt(data))

    def close(self) -> None:
        """Say goodbye and close; what waits is not sent. Idempotent."""
        if self.closed:
            return
        self._stop()
        self._say_goodbye()
        self._sock.close()

    def abort(self) -> None:
        """Close so that the peer does not take it for a proper end; what waits is not sent. Idempotent."""
        if self.closed:
            return
        self._stop()
        if self._tls is None:
            reset(self._sock)
        else:
            self._sock.close()

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
        self._say_goodbye()
        await say_and_close(self._sock, b"")

    def _stop(self) -> None:
        self.pause()
        self._stop_writing()
        self._listener = _NOBODY
        self.closed = True

    def _say_goodbye(self) -> None:
        if self._tls is not None and not self.backlog:
            with suppress(OSError):
                self._sock.send(self._tls.goodbye())

    def _readable(self) -> None:
        # To the end: when the peer has reset the connection, uvloop calls this once more and never again,
        # even if data came before the reset (uvloop, handles/poll.pyx, UVPoll._fatal_error).
        for _ in range(MAX_PIECES):
            if not self._reading or not self._read_piece():
                return
        self._loop.call_soon(self._readable)

    def _read_piece(self) -> bool:
        """Take what has come; False when there is no more now."""
        try:
            data = self._sock.recv(READ_BYTES)
        except BlockingIOError:
            return False
        except OSError:
            self._end(clean=False)
            return False
        if not data:
            # A failed write has taken the error away that reading would have met.
            self._end(clean=not self.broken and (self._tls is None or self._tls.ended))
            return False
        self._received(data)
        return True

    def _received(self, data: bytes) -> None:
        if self._tls is not None:
            try:
                data = self._tls.decrypt(data)
            except ssl.SSLError:
                self._end(clean=False)
                return
            self._enqueue(self._tls.due())
        if data:
            self.received_bytes += len(data)
            self._listener.received(data)
        if self._tls is not None and self._tls.ended:
            self._end(clean=True)

    def _end(self, *, clean: bool) -> None:
        if not self._ended:
            self._ended = True
            self.pause()
            self._listener.ended(clean)

    def _enqueue(self, data: bytes) -> None:
        if not data:
            return
        self._queue.append(data)
        self.backlog += len(data)
        if not self._writing:
            self._flush()
        if self.backlog >= self.buffer_bytes:
            self.full = True

    def _flush(self) -> None:
        try:
            while self._queue:
                data = self._queue[0]
                sent = self._sock.send(data)
                self.backlog -= sent
                self.sent_bytes += sent
                if sent == len(data):
                    self._queue.popleft()
                else:
                    self._queue[0] = memoryview(data)[sent:]
        except BlockingIOError:
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
        if self._emptied is not None and not self._writing and not self._emptied.done():
            self._emptied.set_result(None)
        if self.full and self.backlog < self.buffer_bytes // 4 and not self.closed:
            self.full = False
            self._listener.drained()
