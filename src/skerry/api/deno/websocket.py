"""One WebSocket connection, after the HTTP upgrade: messages in, messages out, all of it bounded.

aiohttp answers the upgrade; then this protocol takes the transport over. Messages are handled in the very
call in which their last byte arrives, and answers are written without waiting for a task, which aiohttp's own
response object cannot do. Its frame reader (in C) is kept. Decision: docs/adr/0006.

Bounds: a message is at most `MAX_MESSAGE_BYTES`; what is received of unfinished messages counts against the
process's `MemoryBudget`; bytes that wait for the client to read them pause reading from it and every sender
that asks `writable()`, and a client that reads nothing for `STALL_S` is cut off.

Source: RFC 6455.
"""

import asyncio
import struct
from collections.abc import Callable
from typing import Any, Protocol

from aiohttp._websocket.reader import WebSocketDataQueue
from aiohttp.http_websocket import WebSocketReader, WSMsgType

from skerry.api.deno.budget import MemoryBudget

MAX_MESSAGE_BYTES = 128 << 20
"""Longest message from a client: both SDKs send a whole file in one."""

SEND_HIGH_BYTES = 1 << 20
"""Unsent bytes above which senders wait."""

SEND_LOW_BYTES = 1 << 18

STALL_S = 60.0
"""A client that takes not one byte for so long while some wait for it is cut off."""

CLOSE_WAIT_S = 5.0
"""Time for the client to answer our close frame."""

_COUNTED_PART_BYTES = 1 << 16

NORMAL = 1000
GOING_AWAY = 1001
PROTOCOL_ERROR = 1002
POLICY_VIOLATION = 1008
INTERNAL_ERROR = 1011
TRY_AGAIN_LATER = 1013
INVALID_JSON = 4000

_FLUSH_BYTES = 1 << 16

_CONTROL_HEADER_BYTES = 6
_TEXT = 0x81
_CLOSE = 0x88
_PONG = 0x8A

_SHORT_HEADERS = tuple(bytes((_TEXT, length)) for length in range(126))
_MIDDLE_HEADER = struct.Struct(">BBH")
_LONG_HEADER = struct.Struct(">BBQ")


class Receiver(Protocol):
    """Who handles what a connection brings. No method may raise."""

    def on_message(self, message: bytes) -> None:
        """A whole message, text or binary alike, arrived."""
        ...

    def on_closed(self, *, clean: bool) -> None:
        """The connection is gone; called once. Clean: the client sent a close frame, or answered ours."""
        ...


class _Frames(WebSocketDataQueue):
    """Takes messages from aiohttp's reader as they complete, instead of queueing them for a task."""

    def __init__(self, socket: "MessageSocket", loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(socket, SEND_HIGH_BYTES, loop=loop)  # type: ignore[arg-type]
        self._socket = socket

    def feed_data(self, data: object, size: int) -> None:
        self._socket.on_frame(data)

    def set_exception(self, exc: BaseException, exc_cause: BaseException | None = None) -> None:
        self._socket.on_protocol_error(exc)


class MessageSocket(asyncio.Protocol):
    """The server's end of one WebSocket.

    Args:
        budget: Where unfinished messages are counted.
        released: Called when the transport is lost, with what went wrong; lets the HTTP server forget the
            connection.
    """

    def __init__(
        self,
        budget: MemoryBudget,
        loop: asyncio.AbstractEventLoop,
        released: Callable[[Exception | None], None],
    ) -> None:
        self._loop = loop
        self._budget = budget
        self._released = released
        self._receiver: Receiver | None = None
        self._transport: asyncio.Transport | None = None
        self._reader = WebSocketReader(
            _Frames(self, loop), MAX_MESSAGE_BYTES, compress=False, decode_text=False
        )
        self._reading_paused = False
        self._holds: set[str] = set()
        self._partial_bytes = 0
        self._counted_bytes = 0
        self._written_bytes = 0
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._writable: asyncio.Future[None] | None = None
        self._stall: asyncio.TimerHandle | None = None
        self._close_timer: asyncio.TimerHandle | None = None
        self._close_sent = False
        self._close_received = False
        self._lost = False
        self.closed: asyncio.Future[None] = loop.create_future()

    def take_over(self, transport: asyncio.Transport, receiver: Receiver) -> None:
        """Start to handle the transport's bytes; the upgrade's answer may still be unwritten."""
        self._receiver = receiver
        self._transport = transport
        transport.set_write_buffer_limits(high=SEND_HIGH_BYTES, low=SEND_LOW_BYTES)
        transport.set_protocol(self)

    # What arrives

    def data_received(self, data: bytes) -> None:
        """Source: asyncio.Protocol."""
        if self._close_received:
            return
        self._partial_bytes += len(data)
        self._reader.feed_data(data)
        if self._partial_bytes - self._counted_bytes > _COUNTED_PART_BYTES:
            self._count_partial()
        elif self._counted_bytes > self._partial_bytes:
            self._forget_partial()

    def _count_partial(self) -> None:
        more = self._partial_bytes - self._counted_bytes
        if not self._budget.try_take(more):
            self.close(TRY_AGAIN_LATER, "the server is short of memory for large messages; try again")
            return
        self._counted_bytes += more

    def _forget_partial(self) -> None:
        self._budget.give(self._counted_bytes)
        self._counted_bytes = 0

    def on_frame(self, frame: object) -> None:
        """Handle one message or control frame. Called from C, which swallows exceptions: none may escape."""
        try:
            self._handle(frame)
        except Exception as error:
            self._loop.call_exception_handler(
                {"message": "a WebSocket message was not handled", "exception": error}
            )
            self.close(INTERNAL_ERROR, "internal error")

    def _handle(self, frame: Any) -> None:
        kind = frame.type
        if kind is WSMsgType.CLOSE:
            self._on_close_frame()
        elif kind is WSMsgType.TEXT or kind is WSMsgType.BINARY:
            self._partial_bytes = 0
            if self._receiver is not None and not self._close_sent:
                self._receiver.on_message(bytes(frame.data))
        else:
            self._partial_bytes -= min(self._partial_bytes, len(frame.data) + _CONTROL_HEADER_BYTES)
            if kind is WSMsgType.PING and not self._close_sent:
                self._write_control(_PONG, bytes(frame.data))

    def _on_close_frame(self) -> None:
        self._close_received = True
        if not self._close_sent:
            self._close_sent = True
            self._write_control(_CLOSE, struct.pack(">H", NORMAL))
        self._drop()

    def on_protocol_error(self, error: BaseException) -> None:
        """The client broke RFC 6455 or sent a message that is too big."""
        self.close(int(getattr(error, "code", PROTOCOL_ERROR)), "protocol error")

    # What is sent

    def send(self, message: bytes) -> None:
        """Send one text message; lost silently when the connection is closing.

        Never waits: see `writable`. What is sent in one turn of the event loop goes out together: a system
        call, and a wake-up of the client, for each message cost more than all else here.
        """
        if self._close_sent or self._transport is None:
            return
        length = len(message)
        if length < 126:
            self._pending += (_SHORT_HEADERS[length], message)
        elif length < 65_536:
            self._pending += (_MIDDLE_HEADER.pack(_TEXT, 126, length), message)
        else:
            self._pending += (_LONG_HEADER.pack(_TEXT, 127, length), message)
        if not self._pending_bytes:
            self._loop.call_soon(self._flush)
        self._pending_bytes += length + 2
        if self._pending_bytes > _FLUSH_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._pending_bytes and self._transport is not None:
            pending, self._pending = self._pending, []
            self._written_bytes += self._pending_bytes
            self._pending_bytes = 0
            self._transport.writelines(pending)

    def _write_control(self, first_byte: int, payload: bytes) -> None:
        self._flush()
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(b"%c%c%b" % (first_byte, len(payload), payload))

    @property
    def is_congested(self) -> bool:
        """Whether more than `SEND_HIGH_BYTES` wait for the client."""
        return self._writable is not None

    @property
    def is_open(self) -> bool:
        """Whether what is sent can still arrive."""
        return not (self._close_sent or self._lost)

    async def writable(self) -> None:
        """Wait until less than `SEND_LOW_BYTES` are unsent, or the connection is gone. Bounded by the
        client's stall deadline."""
        while self._writable is not None:
            await asyncio.shield(self._writable)

    def pause_writing(self) -> None:
        """Source: asyncio.Protocol."""
        if self._writable is None and not self._lost:
            self._writable = self._loop.create_future()
            self.hold_reading("congested")
            self._watch_stall()

    def resume_writing(self) -> None:
        """Source: asyncio.Protocol."""
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None
        if self._writable is not None:
            waiter, self._writable = self._writable, None
            waiter.set_result(None)
        self.release_reading("congested")

    def _taken_bytes(self) -> int:
        """Bytes that have left for the client so far."""
        unsent_bytes = 0 if self._transport is None else self._transport.get_write_buffer_size()
        return self._written_bytes - unsent_bytes

    def _watch_stall(self) -> None:
        self._stall = self._loop.call_later(STALL_S, self._check_stall, self._taken_bytes())

    def _check_stall(self, before_bytes: int) -> None:
        if self._taken_bytes() > before_bytes:
            self._watch_stall()
            return
        self.close(POLICY_VIOLATION, "the client reads nothing")
        self.abort()

    # Reading is held while any reason to do so lasts

    def hold_reading(self, reason: str) -> None:
        """Read nothing more from the client until the reason is released."""
        self._holds.add(reason)
        if not self._reading_paused and self._transport is not None and not self._transport.is_closing():
            self._reading_paused = True
            self._transport.pause_reading()

    def release_reading(self, reason: str) -> None:
        """The reason is gone; idempotent."""
        self._holds.discard(reason)
        if self._reading_paused and not self._holds and self._transport is not None:
            self._reading_paused = False
            if not self._transport.is_closing():
                self._transport.resume_reading()

    # The end

    def close(self, code: int, reason: str) -> None:
        """Send a close frame and wait at most `CLOSE_WAIT_S` for the client's. Idempotent.

        Args:
            reason: At most 123 bytes of UTF-8; longer ones are cut.
        """
        if self._close_sent or self._transport is None:
            return
        self._write_control(_CLOSE, struct.pack(">H", code) + reason.encode()[:123])
        self._close_sent = True
        self._holds.clear()
        self.release_reading("")
        self._close_timer = self._loop.call_later(CLOSE_WAIT_S, self.abort)

    def abort(self) -> None:
        """Cut the connection; unsent bytes are lost."""
        if self._transport is not None:
            self._transport.abort()

    def _drop(self) -> None:
        if self._transport is not None:
            self._transport.close()
            if self._close_timer is None:
                self._close_timer = self._loop.call_later(CLOSE_WAIT_S, self.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        """Source: asyncio.Protocol."""
        self._lost = True
        self._transport = None
        for timer in (self._stall, self._close_timer):
            if timer is not None:
                timer.cancel()
        self._stall = self._close_timer = None
        self._forget_partial()
        if self._writable is not None:
            waiter, self._writable = self._writable, None
            waiter.set_result(None)
        if not self.closed.done():
            self.closed.set_result(None)
        self._released(exc)
        if self._receiver is not None:
            self._receiver.on_closed(clean=self._close_received)
