"""One connection to another daemon of this host: calls out, replies and events in, framed as
`skerry.protocol.host_verbs` says.
"""

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar, cast

import msgspec

from skerry import errors
from skerry.errors import HostUnusable, SkerryError, TimedOut
from skerry.protocol.host_verbs import Event, Failure, FrameReader, Happening, Reply

_V = TypeVar("_V")

_incoming = msgspec.msgpack.Decoder(Reply | Event)

_FAMILIES: dict[str, type[SkerryError]] = {
    family.__name__: family
    for family in (
        errors.InvalidRequest,
        errors.Forbidden,
        errors.NotFound,
        errors.Conflict,
        errors.ResourceExhausted,
        errors.NotSupported,
        errors.HostUnusable,
        errors.RuntimeFailed,
    )
}


class ConnectionLost(HostUnusable):
    """The connection broke while a call was under way; whether it was carried out is unknown."""

    code = "HOSTD_UNREACHABLE"
    retryable = True


class DaemonConnection(asyncio.Protocol, Generic[_V]):
    """Frames to and from a daemon. Replies may come in any order.

    Args:
        who: The daemon's name, for people.
        framed: Makes the frame of a call with this ID.
        lost_code: Code of the errors when the connection is gone.
        on_event: Called with everything that the daemon reports.
        on_lost: Called once, when the connection is gone; every pending call has failed by then.
    """

    def __init__(
        self,
        who: str,
        framed: Callable[[int, _V], bytes],
        *,
        lost_code: str,
        on_event: Callable[[Happening], None],
        on_lost: Callable[[], None],
    ) -> None:
        self._who = who
        self._framed = framed
        self._lost_code = lost_code
        self._on_event = on_event
        self._on_lost = on_lost
        self._reader = FrameReader()
        self._transport: asyncio.Transport | None = None
        self._pending: dict[int, asyncio.Future[msgspec.Raw]] = {}
        self._last_id = 0

    async def call(self, verb: _V, *, timeout_s: float) -> msgspec.Raw:
        """Send a verb and wait for its answer.

        Raises:
            TimedOut: No answer in time; it may still be carried out.
            ConnectionLost: The connection is or went away.
            ValueError: It does not fit into a frame.
            SkerryError: What the daemon answered.
        """
        if self._transport is None:
            raise self._lost(f"{self._who} is not connected")
        self._last_id += 1
        call_id = self._last_id
        data = self._framed(call_id, verb)
        answer: asyncio.Future[msgspec.Raw] = asyncio.get_running_loop().create_future()
        self._pending[call_id] = answer
        self._transport.write(data)
        try:
            async with asyncio.timeout(timeout_s):
                return await answer
        except TimeoutError:
            raise TimedOut(f"{self._who} ({type(verb).__name__})", timeout_s) from None
        finally:
            self._pending.pop(call_id, None)

    def close(self) -> None:
        """Drop the connection."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        # Not isinstance: uvloop's transports are none of asyncio's classes.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        try:
            for body in self._reader.feed(data):
                self._take(_incoming.decode(body))
        except (ValueError, msgspec.MsgspecError):
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._transport = None
        pending, self._pending = self._pending, {}
        for answer in pending.values():
            if not answer.done():
                answer.set_exception(self._lost(f"the connection to {self._who} broke"))
        self._on_lost()

    def _lost(self, message: str) -> ConnectionLost:
        return ConnectionLost(message, code=self._lost_code)

    def _take(self, message: Reply | Event) -> None:
        if isinstance(message, Event):
            self._on_event(message.what)
            return
        answer = self._pending.get(message.id)
        if answer is None or answer.done():
            return
        if message.failure is None:
            answer.set_result(message.value)
        else:
            answer.set_exception(error_of(message.failure))


def error_of(failure: Failure) -> SkerryError:
    """Rebuild the error that a daemon reported; a family that is not its to raise becomes a
    `RuntimeFailed`."""
    if failure.family == TimedOut.__name__:
        return errors.RuntimeFailed(failure.message, code=failure.code)
    return _FAMILIES.get(failure.family, errors.RuntimeFailed)(failure.message, code=failure.code)
