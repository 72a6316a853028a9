"""Streams from the host to the agent: stdin of processes, files being written."""

import asyncio
from collections import deque
from typing import Protocol

from skerry.control.agent.streams import Channel, MakeError, Pool, StreamReset
from skerry.protocol import frames
from skerry.protocol.messages import INPUT_LIMIT_BYTES, ProtocolError

WINDOW_BYTES = 1 << 20
"""How much of one stream is kept for sending it again, if the agent allows so much."""
PIECE_BYTES = 64 << 10
"""Bytes per DATA frame: small against the window, so that credit comes back while more is on its way."""


class InputOwner(Protocol):
    """The table that an input stream is in."""

    channel: Channel
    input_pool: Pool

    def retire(self, stream: "InputStream") -> None:
        """Nothing more is sent on this stream."""

    def wait_for_room(self, stream: "InputStream") -> None:
        """Call `InputStream.wake` when the pool and the connection have room again."""

    def room_freed(self) -> None:
        """There may be room for the next stream that waits for it."""


class InputStream:
    """One stream to the agent. One writer at a time.

    Memory: what was sent and is not known to have arrived, at most `WINDOW_BYTES`, kept for sending it again;
    within the pool of the sandbox.

    Attributes:
        id: The agent's number for it.
    """

    def __init__(self, id_: int, *, owner: InputOwner) -> None:
        self.id = id_
        self._owner = owner
        self._unacknowledged: deque[tuple[int, bytes]] = deque()  # where the frame's data ends, the frame
        self._written = 0
        self._acknowledged = 0
        self._limit = INPUT_LIMIT_BYTES
        self._attached = True  # the agent of the live connection has said, or it is implied, where it is
        self._ended = False
        self._make_error: MakeError | None = None
        self._waiters: list[asyncio.Future[None]] = []

    # What writers use.

    @property
    def offset(self) -> int:
        """Bytes written so far."""
        return self._written

    @property
    def ended(self) -> bool:
        """`end` was called."""
        return self._ended

    @property
    def failed(self) -> bool:
        """The stream was given up by either side."""
        return self._make_error is not None

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send bytes; waits as long as the reader in the sandbox is slow.

        Raises:
            StreamReset: The stream was given up; what was written before may be lost.
            SandboxEnded: The sandbox ended.
            GuestUnreachable: The agent was replaced by another one.
        Cancellation leaves a beginning of `data` sent.
        """
        view = memoryview(data)
        while view:
            own = self._own_room(len(view))
            room = self._shared_room(own)
            if room:
                self._send_piece(view[:room])
                view = view[room:]
            else:
                await self._wait(for_others=own > 0)

    async def drain(self) -> None:
        """Wait until a short `write` would not have to wait; raises as `write` does."""
        while not self._shared_room(own := self._own_room(1)):
            await self._wait(for_others=own > 0)

    def end(self) -> None:
        """No more will be written. Idempotent; does nothing on a stream that was given up."""
        if self._ended or self._make_error is not None:
            return
        self._ended = True
        if self._attached:
            self._owner.channel.send(frames.end(self.id, self._written))
        self._retire_when_done()
        self.wake()

    def reset(self, code: str, message: str) -> None:
        """Give the stream up: the agent closes what it feeds. Idempotent."""
        if self._make_error is None and not self._done():
            self._owner.channel.send(frames.reset(self.id, code, message))
            self.fail(lambda: StreamReset(code, message))

    # What the table calls.

    def credit_arrived(self, consumed: int, limit: int) -> None:
        """CREDIT."""
        if limit < self._limit:
            raise ProtocolError("order", f"limit shrinks from {self._limit} to {limit}")
        if consumed > self._written:
            raise ProtocolError("order", f"{consumed} bytes consumed of {self._written}")
        self._limit = limit
        self._acknowledge(consumed)
        self._retire_when_done()
        self.wake()

    def attach_arrived(self, start: int, limit: int) -> None:
        """ATTACH, once after each new connection."""
        if self._attached:
            raise ProtocolError("order", "ATTACH of an attached input stream")
        if not self._acknowledged <= start <= self._written:
            raise ProtocolError(
                "order", f"ATTACH from {start}, not in {self._acknowledged} to {self._written}"
            )
        if limit < self._limit:
            raise ProtocolError("order", f"limit shrinks from {self._limit} to {limit}")
        self._limit = limit
        self._attached = True
        self._acknowledge(start)
        self._send_again(start)
        self._retire_when_done()
        self.wake()

    def disconnected(self) -> None:
        """Nothing can be sent until the agent says where it is."""
        self._attached = False

    def not_attached(self) -> None:
        """The agent came back and did not ask for this stream: it has all of it, or nobody reads it."""
        if self._attached:
            return
        if self._ended:
            self._acknowledge(self._written)
            self._retire_when_done()
            self.wake()
        else:
            self.fail(lambda: StreamReset("EPIPE", "The reader of the stream is gone."))

    def fail(self, make_error: MakeError) -> None:
        """The stream ends here."""
        if self._make_error is not None or self._done():
            return
        self._make_error = make_error
        self._release(self._written - self._acknowledged)
        self._unacknowledged.clear()
        self._owner.retire(self)
        self.wake()

    def wake(self) -> None:
        """Let waiting writers look again."""
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    # Parts.

    def _done(self) -> bool:
        return self._ended and self._acknowledged == self._written

    def _check(self) -> None:
        if self._make_error is not None:
            raise self._make_error()

    def _own_room(self, wanted: int) -> int:
        """What the agent and our memory of this stream allow."""
        self._check()
        if self._ended:
            raise ValueError("write after end")
        if not self._attached:
            return 0
        held = self._written - self._acknowledged
        return min(wanted, self._limit - self._written, WINDOW_BYTES - held, PIECE_BYTES)

    def _shared_room(self, wanted: int) -> int:
        """What the other streams and the connection leave of it."""
        if self._owner.channel.congested:
            return 0
        return min(wanted, self._owner.input_pool.room(self._written - self._acknowledged))

    def _send_piece(self, piece: memoryview) -> None:
        frame = frames.data(self.id, self._written, piece)
        self._written += len(piece)
        self._unacknowledged.append((self._written, frame))
        self._owner.input_pool.take(len(piece))
        self._owner.channel.send(frame)

    def _send_again(self, start: int) -> None:
        for end, frame in self._unacknowledged:
            begin = end - (len(frame) - frames.DATA_HEADER_BYTES)
            if begin < start:
                rest = memoryview(frame)[frames.DATA_HEADER_BYTES + start - begin :]
                frame = frames.data(self.id, start, rest)
            self._owner.channel.send(frame)
        if self._ended:
            self._owner.channel.send(frames.end(self.id, self._written))

    def _acknowledge(self, consumed: int) -> None:
        if consumed <= self._acknowledged or self._make_error is not None:
            return
        self._release(consumed - self._acknowledged)
        self._acknowledged = consumed
        while self._unacknowledged and self._unacknowledged[0][0] <= consumed:
            self._unacknowledged.popleft()

    def _release(self, amount: int) -> None:
        self._owner.input_pool.give_back(amount)
        self._owner.room_freed()

    def _retire_when_done(self) -> None:
        if self._done():
            self._owner.retire(self)

    async def _wait(self, *, for_others: bool) -> None:
        """Wait for the agent's word about this stream or, when others are in the way, for room."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        if for_others:
            self._owner.wait_for_room(self)
        try:
            await waiter
        finally:
            if for_others:
                # One at a time is woken; it passes the room that it leaves on to the next.
                asyncio.get_running_loop().call_soon(self._owner.room_freed)
