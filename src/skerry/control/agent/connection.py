"""One accepted connection: bytes to frames, the deadline for HELLO, fairness towards other connections."""

import asyncio
from typing import Protocol, cast

from skerry.protocol import frames
from skerry.protocol.frames import Frame, FrameDecoder
from skerry.protocol.messages import ProtocolError

HELLO_DEADLINE_S = 2.0
FRAMES_PER_TURN = 32
"""Frames of one connection that are handled before the event loop turns to others (about 0.1 ms)."""
WRITE_HIGH_BYTES = 512 << 10
WRITE_LOW_BYTES = 128 << 10


class ConnectionOwner(Protocol):
    """Who judges what a connection brings."""

    def connection_opened(self, connection: "Connection") -> None:
        """A newcomer, before it has said anything."""

    def frames_arrived(self, connection: "Connection", arrived: list[Frame]) -> None:
        """Frames in order. A `ProtocolError` from here closes the connection."""

    def rules_broken(self, connection: "Connection", error: ProtocolError) -> None:
        """The peer broke the protocol; the connection is closed already."""

    def writing_resumed(self, connection: "Connection") -> None:
        """`Connection.congested` has become false."""

    def connection_closed(self, connection: "Connection") -> None:
        """The connection is gone, for whatever reason. Called once."""


class Connection(asyncio.Protocol):
    """One connection; made by `AgentLink.accept`.

    Memory: the decoder's bound (see `FrameDecoder`) with one read of the transport; what the owner writes.
    """

    def __init__(self, owner: ConnectionOwner, loop: asyncio.AbstractEventLoop) -> None:
        self._owner = owner
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._hello_timer: asyncio.TimerHandle | None = None
        self._reading = True
        self._closed = False
        self.decoder = FrameDecoder(frames.FROM_AGENT)
        self.congested = False
        """The transport's buffer is over its mark: write only what answers, nothing that can wait."""
        self.bytes_in = 0

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport and start the deadline for HELLO."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=WRITE_HIGH_BYTES, low=WRITE_LOW_BYTES)
        self._hello_timer = self._loop.call_later(HELLO_DEADLINE_S, self._hello_overdue)
        self._owner.connection_opened(self)

    def data_received(self, data: bytes) -> None:
        """Take what the peer sent."""
        if self._closed:
            return
        self.bytes_in += len(data)
        self.decoder.feed(data)
        if self._reading:
            self._take_turn()

    def connection_lost(self, exc: Exception | None) -> None:
        """The transport is closed."""
        self._finish()

    def pause_writing(self) -> None:
        """The peer does not read as fast as we write."""
        self.congested = True

    def resume_writing(self) -> None:
        """The peer has caught up."""
        self.congested = False
        if not self._closed:
            self._owner.writing_resumed(self)

    # What the owner calls.

    def welcomed(self) -> None:
        """HELLO has come."""
        if self._hello_timer is not None:
            self._hello_timer.cancel()
            self._hello_timer = None

    def write(self, data: bytes) -> None:
        """Send one or more whole frames; a closed connection ignores them."""
        if not self._closed and self._transport is not None:
            self._transport.write(data)

    def close(self) -> None:
        """Close at once; what was not sent is lost. Idempotent."""
        if self._transport is not None:
            self._transport.abort()
        self._finish()

    def _take_turn(self) -> None:
        """Handle some frames; the rest in the loop's next turn, so that a flood slows only itself."""
        if self._closed:
            return
        try:
            self._owner.frames_arrived(self, self.decoder.decode(FRAMES_PER_TURN))
        except ProtocolError as error:
            self._broken(error)
            return
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if self.decoder.pending:
            if self._reading:
                self._reading = False
                transport.pause_reading()
            self._loop.call_soon(self._take_turn)
        elif not self._reading:
            self._reading = True
            transport.resume_reading()

    def _hello_overdue(self) -> None:
        self._broken(ProtocolError("order", f"no HELLO within {HELLO_DEADLINE_S:g} s"))

    def _broken(self, error: ProtocolError) -> None:
        self.close()
        self._owner.rules_broken(self, error)

    def _finish(self) -> None:
        if self._closed:
            return
        self._closed = True
        self.welcomed()
        self._owner.connection_closed(self)
