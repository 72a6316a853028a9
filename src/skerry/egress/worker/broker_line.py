"""The worker's end of the line to the broker: messages of `skerry.egress.messages`, in order."""

import asyncio
import socket
from collections import deque
from collections.abc import Callable
from contextlib import suppress

import msgspec

from skerry.egress.messages import MAX_MESSAGE_BYTES, FromWorker, Line, Lines, Rules, ToWorker, Used

FIRST_RULES_S = 30.0
"""Longest wait for the first rules."""

LAST_WORDS_S = 1.0
"""For what waits at the end, and for each message of it."""

_MAX_AT_ONCE = 16
_MOST_TOGETHER = 16
"""Audit lines in one message; even long ones then fit into what a socket takes at once."""

_SPARE = 16
"""Places that audit lines do not take, for what cannot be dropped."""

_buffer = bytearray(MAX_MESSAGE_BYTES)
_whole = memoryview(_buffer)

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(ToWorker).decode


class BrokerGone(Exception):
    """The broker has ended, or talks nonsense: the worker must end too."""


def first_rules(sock: socket.socket) -> Rules:
    """Wait for what the broker says first, blocking.

    Raises:
        BrokerGone: It said something else, or nothing for `FIRST_RULES_S`.
    """
    sock.settimeout(FIRST_RULES_S)
    try:
        message = _decode(sock.recv(MAX_MESSAGE_BYTES))
    except (OSError, msgspec.MsgspecError):
        raise BrokerGone from None
    finally:
        sock.setblocking(False)
    if not isinstance(message, Rules):
        raise BrokerGone
    return message


class BrokerLine:
    """Sends and receives on the event loop.

    Audit lines that come about in one turn of the loop are sent together, at its end: to wake the broker
    costs more than all else about a line.

    Args:
        sock: Non-blocking; owned from now on.
        most: Audit lines that may wait to be sent.
        on_message: Called with each message.
        on_gone: Called once when there is nobody any more.
    """

    def __init__(
        self,
        sock: socket.socket,
        *,
        most: int,
        on_message: Callable[[ToWorker], None],
        on_gone: Callable[[], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._sock = sock
        self._most = most
        self._on_message = on_message
        self._on_gone = on_gone
        self._queue: deque[tuple[bytes, int]] = deque()
        self._waiting = 0
        self._together: list[Line] = []
        self._closed = False
        self._loop.add_reader(sock.fileno(), self._readable)

    def room(self) -> int:
        """How many audit lines more can wait."""
        return 0 if self._closed else self._most - self._waiting

    def send(self, message: FromWorker) -> None:
        """Send a message soon, or keep it until there is room.

        Audit lines must ask for `room` first. Other messages are few and small.
        """
        if self._closed or len(self._queue) >= self._most + _SPARE:
            return
        if not isinstance(message, Line):
            self._send_together()
            self._enqueue(message, 0)
            return
        self._waiting += 1
        self._together.append(message)
        if len(self._together) == 1:
            self._loop.call_soon(self._send_together)
        elif len(self._together) == _MOST_TOGETHER:
            self._send_together()

    def _send_together(self) -> None:
        together, self._together = self._together, []
        if len(together) == 1:
            self._enqueue(together[0], 1)
        elif together:
            self._enqueue(Lines(tuple(together)), len(together))

    def _enqueue(self, message: FromWorker, lines: int) -> None:
        if self._closed:
            return
        self._queue.append((_encode(message), lines))
        if len(self._queue) == 1 and not self._flush():
            self._loop.add_writer(self._sock.fileno(), self._writable)

    def finish(self) -> None:
        """Send what waits, blocking for at most `LAST_WORDS_S`, and hang up. Idempotent."""
        if not self._closed:
            self._send_together()
        # Which may find that there is nobody any more.
        if not self._closed:
            self._sock.settimeout(LAST_WORDS_S)
            with suppress(OSError):
                while self._queue:
                    self._sock.send(self._queue[0][0])
                    self._queue.popleft()
        self.close()

    def close(self) -> None:
        """Hang up. Idempotent."""
        if not self._closed:
            self._closed = True
            self._queue.clear()
            self._together.clear()
            self._loop.remove_reader(self._sock.fileno())
            self._loop.remove_writer(self._sock.fileno())
            self._sock.close()

    def _readable(self) -> None:
        for _ in range(_MAX_AT_ONCE):
            if self._closed:
                return
            try:
                # Of the longest message's room only as much becomes memory as messages fill.
                size = self._sock.recv_into(_buffer, 0, socket.MSG_TRUNC)
                if not 0 < size <= MAX_MESSAGE_BYTES:
                    self._gone()
                    return
                message = _decode(_whole[:size])
            except BlockingIOError:
                return
            except (OSError, msgspec.MsgspecError):
                self._gone()
                return
            self._on_message(message)

    def _writable(self) -> None:
        if self._flush() and not self._closed:
            self._loop.remove_writer(self._sock.fileno())

    def _flush(self) -> bool:
        """Send what goes; True when nothing is left."""
        while self._queue:
            try:
                self._sock.send(self._queue[0][0])
            except BlockingIOError:
                return False
            except OSError:
                self._gone()
                return True
            self._waiting -= self._queue.popleft()[1]
        return True

    def _gone(self) -> None:
        if not self._closed:
            self.close()
            self._on_gone()


class Usage:
    """How often each secret was used, told to the broker about once a second."""

    def __init__(self, send: Callable[[Used], None]) -> None:
        self._send = send
        self._counts: dict[str, int] = {}

    def count(self, secret: str) -> None:
        """A request carried it."""
        self._counts[secret] = self._counts.get(secret, 0) + 1

    def tick(self) -> None:
        """Tell what is new."""
        if self._counts:
            counts, self._counts = self._counts, {}
            self._send(Used(counts))
