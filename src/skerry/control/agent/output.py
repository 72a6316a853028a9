"""Streams from the agent to the host: output of processes, files being read."""

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import Protocol

from skerry.control.agent.streams import MAX_OFFSET, WINDOW_BYTES, Channel, MakeError, Pool, StreamReset
from skerry.protocol import frames
from skerry.protocol.messages import ProtocolError

_SMALL_BYTES = 4 << 10
"""Pieces below this are put together, so that a flood of tiny ones costs no more than its bytes."""
_JOINED_BYTES = 64 << 10


@dataclass(frozen=True, slots=True)
class Gap:
    """Bytes of the stream that nobody will see: the agent had to drop them."""

    start: int
    end: int


class OutputOwner(Protocol):
    """The table that an output stream is in."""

    channel: Channel
    output_pool: Pool
    era: int

    def route(self, stream: "OutputStream") -> None:
        """Frames of this stream go to it from now on; it fails if that cannot be."""

    def retire(self, stream: "OutputStream") -> None:
        """Nothing more is expected for this stream."""


class OutputStream:
    """One stream from the agent. One reader at a time.

    Memory: what was granted and not read yet, at most `WINDOW_BYTES`, and within the pool of the sandbox.

    Attributes:
        id: The agent's number for it; 0 for one that never was on the wire.
        is_file: A file being read (the agent forgets it when all is consumed), not output of a process.
        size: Of the file when it was opened, in bytes.
        era: Which agent it belongs to, of those that the sandbox had.
    """

    def __init__(
        self, id_: int, *, owner: OutputOwner, credit: int = 0, is_file: bool = False, size: int | None = None
    ) -> None:
        self.id = id_
        self.is_file = is_file
        self.size = size
        self.era = owner.era
        self._owner = owner
        self._items: deque[bytes | bytearray | Gap] = deque()
        self._used = 0  # bytes of the first item that were read already
        self._offset = 0  # where the reader is
        self._received = 0  # the next byte that we have not got
        self._limit = 0
        self._granted = 0  # bytes promised to the agent or unread here, gaps not counted
        self._credited = 0  # the last `consumed` that was sent
        self._attached = False
        self._awaiting = False  # an ATTACH was sent, nothing for it has come yet
        self._loose = False  # frames of an earlier attachment may still be on their way
        self._total: int | None = None
        self._make_error: MakeError | None = None
        self._waiter: asyncio.Future[None] | None = None
        if credit:
            self._grant(credit)
            self._attached = True

    # What readers use.

    @property
    def offset(self) -> int:
        """Where the next byte that `read` gives stands in the stream."""
        return self._offset

    @property
    def attached(self) -> bool:
        """Somebody means to read it."""
        return self._attached

    @property
    def ended(self) -> bool:
        """The agent has sent everything; some of it may still be unread."""
        return self._total is not None

    async def read(self, max_bytes: int = 65536) -> bytes | Gap | None:
        """The next bytes, at least one; waits for them as long as the stream lives.

        Returns:
            Bytes, a `Gap` in their place, or None at the end.
        Raises:
            StreamReset: The stream was given up, or `detach` was called.
            SandboxEnded: The sandbox ended before the stream did.
            GuestUnreachable: The agent was replaced by another one.
        """
        while True:
            item = self.read_nowait(max_bytes)
            if item != b"":
                return item
            await self._wait()

    def read_nowait(self, max_bytes: int = 65536) -> bytes | Gap | None:
        """As `read`, but empty bytes when nothing is there now."""
        if self._items:
            item = self._take(max_bytes)
            self._replenish()
            return item
        if self._total is not None:
            return None
        if self._make_error is not None:
            raise self._make_error()
        if not self._attached:
            raise StreamReset("DETACHED", "The stream is not attached.")
        return b""

    def attach(self, from_offset: int) -> None:
        """Read from an offset (again): what is unread is dropped, and the agent sends from there.

        Raises:
            ValueError: For an offset that no stream can reach.
        """
        if not 0 <= from_offset < MAX_OFFSET:
            raise ValueError(f"offset {from_offset} is out of range")
        self._drop_unread()
        # Whatever was sent for the attachment before may still come.
        self._loose = self._attached or self._loose
        self._attached = self._awaiting = True
        self._offset = self._received = self._credited = self._limit = from_offset
        self._total = self._make_error = None
        self._grant(min(WINDOW_BYTES, self._owner.output_pool.room(0)))
        self._owner.route(self)
        if self._make_error is None:
            self._owner.channel.send(frames.attach(self.id, from_offset, self._limit))
        self._wake()

    def detach(self) -> None:
        """Nobody will read it again: drop what is unread; the agent keeps only the last bytes. Idempotent."""
        if self.is_file:
            self.cancel()
            return
        self._drop_unread()
        if self._attached and self._total is None and self._make_error is None:
            self._loose = True
            self._owner.channel.send(frames.detach(self.id))
        self._attached = False
        self._wake()

    def cancel(self) -> None:
        """Give a file's stream up: the agent closes the file. Idempotent."""
        if self._total is None and self._make_error is None:
            self._owner.channel.send(frames.reset(self.id, "RESET", "cancelled"))
            self.fail(lambda: StreamReset("RESET", "The read was cancelled."))
        self._drop_unread()

    def fill(self, data: bytes) -> None:
        """Make it a whole stream of these bytes, for a file that came in an answer."""
        self._attached = True
        self._received = self._limit = self._total = len(data)
        if data:
            self._items.append(data)
            self._settle(len(data))

    # What the table calls.

    def data_arrived(self, offset: int, data: bytes) -> None:
        """DATA."""
        if not self._attached:
            self._owner.channel.charge()
            return
        if offset != self._received:
            data = self._without_stale(offset, data)
            if not data:
                return
        if self._total is not None:
            raise ProtocolError("order", "DATA after END")
        end = self._received + len(data)
        if end > self._limit:
            raise ProtocolError("budget", f"{end - self._limit} bytes beyond the limit")
        self._received = end
        self._awaiting = False
        self._append(data)
        self._wake()

    def gap_arrived(self, start: int, end: int) -> None:
        """GAP."""
        if not self._attached or (self._loose and self._awaiting and start != self._received):
            self._owner.channel.charge()
            return
        if self._loose and start < self._received:
            self._owner.channel.charge()
            if end <= self._received:
                return
            start = self._received
        elif not self._awaiting or start != self._received:
            raise ProtocolError("order", "GAP in the middle of an attachment")
        if not start < end < MAX_OFFSET or self._total is not None:
            raise ProtocolError("payload", "GAP without bytes, or after END")
        self._awaiting = False
        self._items.append(Gap(start, end))
        self._limit += end - start
        self._received = end
        self._owner.channel.send(frames.credit(self.id, self._credited, self._limit))
        self._wake()

    def end_arrived(self, total: int) -> None:
        """END."""
        stale = self._awaiting and total != self._received
        if not self._attached or (self._loose and (stale or self._total is not None)):
            self._owner.channel.charge()
            return
        if total != self._received or self._total is not None:
            raise ProtocolError("order", "END is not where the stream is")
        self._total = total
        self._awaiting = False
        self._take_credit_back()
        self._owner.retire(self)
        self._confirm_end()
        self._wake()

    def reset_arrived(self, code: str, message: str) -> None:
        """RESET."""
        whole = self._received == self.size
        if self.is_file and code == "UNKNOWN_STREAM" and self._awaiting and whole:
            # The agent forgot a file that it had sent whole; only its END was lost with the connection.
            self.end_arrived(self._received)
            return
        self.fail(lambda: StreamReset(code, message))

    def fail(self, make_error: MakeError) -> None:
        """The stream ends here; what is unread can be read, then the error is raised."""
        if self._total is not None or self._make_error is not None:
            return
        self._make_error = make_error
        self._take_credit_back()
        self._owner.retire(self)
        self._wake()

    def reconnected(self) -> None:
        """A new connection lives: say what we have got and what we still want."""
        self._loose = False
        if not self._attached:
            self._owner.channel.send(frames.detach(self.id))
            return
        self._awaiting = True
        self._credited = self._received
        self._owner.channel.send(frames.attach(self.id, self._received, self._limit))

    def attach_again(self) -> None:
        """The answer that named this stream may have come late: its first frames may be lost."""
        if self._attached:
            self._loose = self._awaiting = True
            self._owner.channel.send(frames.attach(self.id, 0, self._limit))

    # Parts.

    def _without_stale(self, offset: int, data: bytes) -> bytes:
        """What of an unexpected piece is new; empty when it belongs to an attachment before."""
        if not self._loose:
            raise ProtocolError("order", f"DATA at {offset}, expected {self._received}")
        self._owner.channel.charge()
        if self._awaiting:
            return b""
        if offset > self._received:
            raise ProtocolError("order", f"DATA at {offset}, expected {self._received}")
        return data[self._received - offset :]

    def _append(self, data: bytes) -> None:
        if len(data) >= _SMALL_BYTES:
            self._items.append(data)
            return
        last = self._items[-1] if self._items else None
        if isinstance(last, bytearray) and len(last) < _JOINED_BYTES:
            last += data
        else:
            self._items.append(bytearray(data))

    def _take(self, max_bytes: int) -> bytes | Gap:
        first = self._items[0]
        if isinstance(first, Gap):
            self._items.popleft()
            self._offset = first.end
            return first
        whole = not self._used and len(first) <= max_bytes
        if whole and (len(self._items) == 1 or len(first) * 2 > max_bytes):
            # Joining it with the next one would only copy it.
            self._items.popleft()
            taken = bytes(first)
        else:
            taken = self._take_several(max_bytes)
        self._offset += len(taken)
        self._settle(self._granted - len(taken))
        return taken

    def _take_several(self, max_bytes: int) -> bytes:
        parts: list[memoryview] = []
        wanted = max_bytes
        while wanted and self._items:
            item = self._items[0]
            if isinstance(item, Gap):
                break
            part = memoryview(item)[self._used : self._used + wanted]
            parts.append(part)
            wanted -= len(part)
            self._used += len(part)
            if self._used == len(item):
                self._items.popleft()
                self._used = 0
        taken = b"".join(parts)
        for part in parts:
            part.release()
        return taken

    def _replenish(self) -> None:
        """Give credit back when half the window was read."""
        if self._total is not None:
            self._confirm_end()
            return
        if self._granted > WINDOW_BYTES // 2 or not self._attached or self._make_error is not None:
            return
        grant = min(WINDOW_BYTES - self._granted, self._owner.output_pool.room(self._granted))
        if grant * 2 > min(self._granted, WINDOW_BYTES - self._granted):
            self._grant(grant)
            self._credited = max(self._credited, self._offset)
            self._owner.channel.send(frames.credit(self.id, self._credited, self._limit))

    def _confirm_end(self) -> None:
        """All was read (a file: has arrived): the agent may forget it."""
        if self._total is None or self._credited == self._total or not self.id:
            return
        if self.is_file or not self._items:
            self._credited = self._total
            self._owner.channel.send(frames.credit(self.id, self._total, max(self._limit, self._total)))

    def _grant(self, amount: int) -> None:
        self._limit += amount
        self._settle(self._granted + amount)

    def _take_credit_back(self) -> None:
        """Nothing more comes: what was promised and not used is free again."""
        if self._attached:
            self._settle(self._granted - (self._limit - self._received))

    def _drop_unread(self) -> None:
        self._items.clear()
        self._used = 0
        self._settle(0)

    def _settle(self, granted: int) -> None:
        self._owner.output_pool.take(granted - self._granted)
        self._granted = granted

    async def _wait(self) -> None:
        if self._waiter is not None:
            raise RuntimeError("two readers of one stream")
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
