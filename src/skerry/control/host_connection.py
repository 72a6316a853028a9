"""One connection to hostd: calls out, replies and events in."""

import asyncio
from collections.abc import Callable
from typing import cast

import msgspec

from skerry import errors
from skerry.errors import HostUnusable, SkerryError, TimedOut
from skerry.protocol.host_verbs import Call, Event, Failure, FrameReader, Happening, Reply, Verb, frame

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
    """The connection broke while a call was under way; whether hostd carried it out is unknown."""

    code = "HOSTD_UNREACHABLE"
    retryable = True


class HostConnection(asyncio.Protocol):
    """Frames to and from hostd. Replies may come in any order.

    Args:
        on_event: Called with everything that hostd reports.
        on_lost: Called once, when the connection is gone; every pending call has failed by then.
    """

    def __init__(self, *, on_event: Callable[[Happening], None], on_lost: Callable[[], None]) -> None:
        self._on_event = on_event
        self._on_lost = on_lost
        self._reader = FrameReader()
        self._transport: asyncio.Transport | None = None
        self._pending: dict[int, asyncio.Future[msgspec.Raw]] = {}
        self._last_id = 0

    async def call(self, verb: Verb, *, timeout_s: float) -> msgspec.Raw:
        """Send a verb and wait for its answer.

        Raises:
            TimedOut: No answer in time; hostd may still carry it out.
            ConnectionLost: The connection is or went away.
            SkerryError: What hostd answered.
        """
        if self._transport is None:
            raise ConnectionLost("hostd is not connected")
        self._last_id += 1
        answer: asyncio.Future[msgspec.Raw] = asyncio.get_running_loop().create_future()
        self._pending[self._last_id] = answer
        call_id = self._last_id
        self._transport.write(frame(Call(id=call_id, verb=verb)))
        try:
            async with asyncio.timeout(timeout_s):
                return await answer
        except TimeoutError:
            raise TimedOut(f"hostd ({type(verb).__name__})", timeout_s) from None
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
                answer.set_exception(ConnectionLost("the connection to hostd broke"))
        self._on_lost()

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
    """Rebuild the error that hostd reported; a family that is not its to raise becomes a `RuntimeFailed`."""
    if failure.family == TimedOut.__name__:
        return errors.RuntimeFailed(failure.message, code=failure.code)
    return _FAMILIES.get(failure.family, errors.RuntimeFailed)(failure.message, code=failure.code)
