"""Streams from a client: process input and file contents, as notifications without any flow control.

Chunks are kept from the first mention of a stream's ID on, because they may arrive before the call that names
the stream. Reading from the client
never stops merely because a process is slow with its input (one SDK sends all of it before it asks for the
process's output, so the two would wait for each other),
until `MAX_BUFFERED_BYTES` of one connection wait; then it does, and if nothing moves for `STUCK_S` the
connection is closed with a reason.
"""

import asyncio
from collections import deque
from enum import Enum, auto

from skerry.api.deno.budget import MemoryBudget
from skerry.api.deno.websocket import POLICY_VIOLATION, TRY_AGAIN_LATER, MessageSocket
from skerry.errors import AgentError
from skerry.protocol import jsonrpc
from skerry.protocol.deno_errors import ErrorObject

MAX_BUFFERED_BYTES = 64 << 20
"""Bytes of one connection that may wait for slow readers; one more message may follow."""

MAX_STREAMS = 65_536
"""Streams of one connection that are known at once, forgotten ones included until their end comes."""

STUCK_S = 20.0


class _State(Enum):
    OPEN = auto()
    ENDED = auto()
    FAILED = auto()
    UNWANTED = auto()


class ClientStream:
    """One stream from the client, read by one consumer."""

    def __init__(self, streams: "ClientStreams", id_text: bytes) -> None:
        self._streams = streams
        self.id_text = id_text
        self.state = _State.OPEN
        self.error = ""
        self._chunks: deque[bytes] = deque()
        self._arrived: asyncio.Future[None] | None = None

    async def read(self) -> bytes | None:
        """The next chunk; None at the end.

        Raises:
            AgentError: The client gave the stream up; code ``RESET``.
        """
        while not self._chunks:
            if self.state is _State.FAILED:
                raise AgentError("RESET", f"the client's stream failed: {self.error}")
            if self.state is not _State.OPEN:
                return None
            self._arrived = asyncio.get_running_loop().create_future()
            await self._arrived
        chunk = self._chunks.popleft()
        self._streams.on_consumed(len(chunk))
        return chunk

    @property
    def has_failed(self) -> bool:
        """Whether the client gave the stream up."""
        return self.state is _State.FAILED

    def put(self, chunk: bytes) -> None:
        """Keep a chunk for the consumer; dropped when nobody wants it any more."""
        if self.state is _State.OPEN and chunk:
            self._chunks.append(chunk)
            self._streams.on_buffered(len(chunk))
            self._wake()

    def finish(self, state: _State, error: str = "") -> None:
        """The client is done with the stream, one way or another."""
        if self.state is _State.OPEN:
            self.state = state
            self.error = error
        self._wake()

    def drop(self) -> None:
        """Nobody will read it any more: forget what waits, and swallow what still comes."""
        dropped = sum(map(len, self._chunks))
        self._chunks.clear()
        if self.state is _State.OPEN:
            self.state = _State.UNWANTED
        elif self.state is not _State.UNWANTED:
            self._streams.forget(self)
        self._streams.on_consumed(dropped)
        self._wake()

    def _wake(self) -> None:
        if self._arrived is not None:
            waiter, self._arrived = self._arrived, None
            if not waiter.done():
                waiter.set_result(None)


class ClientStreams:
    """All streams of one connection from its client."""

    def __init__(self, socket: MessageSocket, budget: MemoryBudget, loop: asyncio.AbstractEventLoop) -> None:
        self._socket = socket
        self._budget = budget
        self._loop = loop
        self._streams: dict[int, ClientStream] = {}
        self._buffered_bytes = 0
        self._consumed_bytes = 0
        self._stuck: asyncio.TimerHandle | None = None

    def get(self, stream_id: int) -> ClientStream:
        """The stream of that ID, made at its first mention."""
        stream = self._streams.get(stream_id)
        if stream is None:
            stream = self._streams[stream_id] = ClientStream(self, b"%d" % stream_id)
            if len(self._streams) > MAX_STREAMS:
                self._socket.close(POLICY_VIOLATION, f"more than {MAX_STREAMS} streams are open")
        return stream

    def on_start(self, stream_id: int) -> None:
        """`$sandbox.stream.start`."""
        self.get(stream_id)

    def on_enqueue(self, stream_id: int, chunk: bytes) -> None:
        """`$sandbox.stream.enqueue`."""
        self.get(stream_id).put(chunk)

    def on_end(self, stream_id: int) -> None:
        """`$sandbox.stream.end`."""
        self._finish(stream_id, _State.ENDED, "")

    def on_error(self, stream_id: int, error: str) -> None:
        """`$sandbox.stream.error`."""
        self._finish(stream_id, _State.FAILED, error)

    def _finish(self, stream_id: int, state: _State, error: str) -> None:
        stream = self.get(stream_id)
        if stream.state is _State.UNWANTED:
            self.forget(stream)
        stream.finish(state, error)

    def cancel(self, stream: ClientStream, reason: ErrorObject | None) -> None:
        """The consumer is gone: tell the client (one SDK rejects its writer, the other ignores it and goes
        on)."""
        if stream.state is _State.OPEN:
            self._socket.send(jsonrpc.stream_cancel(stream.id_text, reason))
        stream.drop()

    def forget(self, stream: ClientStream) -> None:
        """Free the ID of a stream that has ended and been read."""
        self._streams.pop(int(stream.id_text), None)

    def close(self) -> None:
        """The connection is gone: every reader sees its stream fail, and all that waits is freed."""
        for stream in list(self._streams.values()):
            stream.finish(_State.FAILED, "the connection closed")
        self._streams.clear()
        self._budget.give(self._buffered_bytes)
        self._buffered_bytes = 0
        if self._stuck is not None:
            self._stuck.cancel()

    def on_buffered(self, count: int) -> None:
        """Bytes wait for their reader now."""
        if not self._budget.try_take(count):
            self._socket.close(TRY_AGAIN_LATER, "the server is short of memory for input; try again")
            return
        self._buffered_bytes += count
        if self._buffered_bytes > MAX_BUFFERED_BYTES and self._stuck is None:
            self._socket.hold_reading("input")
            self._stuck = self._loop.call_later(STUCK_S, self._check_stuck, self._consumed_bytes)

    def on_consumed(self, count: int) -> None:
        """Bytes were taken by their reader."""
        freed = min(count, self._buffered_bytes)
        self._buffered_bytes -= freed
        self._consumed_bytes += freed
        self._budget.give(freed)
        if self._stuck is not None and self._buffered_bytes < MAX_BUFFERED_BYTES // 2:
            self._stuck.cancel()
            self._stuck = None
            self._socket.release_reading("input")

    def _check_stuck(self, before_bytes: int) -> None:
        if self._consumed_bytes > before_bytes:
            self._stuck = self._loop.call_later(STUCK_S, self._check_stuck, self._consumed_bytes)
            return
        self._socket.close(
            POLICY_VIOLATION,
            f"{MAX_BUFFERED_BYTES >> 20} MiB of input wait for a process that does not read them",
        )
