"""One connection to hostd."""

import asyncio
import contextlib
import socket
from collections.abc import Collection
from typing import assert_never

import msgspec
import structlog

from skerry import errors
from skerry.errors import Forbidden, InvalidRequest, ResourceExhausted, SkerryError
from skerry.hostd.background import Background
from skerry.hostd.happenings import Happenings
from skerry.hostd.service import HostService
from skerry.hostd.sys.processes import settle
from skerry.protocol.host_verbs import (
    MAX_FRAME_BYTES,
    Call,
    Describe,
    Destroy,
    Event,
    Failure,
    FrameReader,
    Inspect,
    OpenGateway,
    OpenListener,
    Pause,
    Reply,
    Resume,
    Start,
    Stats,
    Verb,
    Watch,
    frame,
)

MAX_CALLS = 256
"""Calls under way; while there are as many, no more is read."""

FRAME_S = 10.0
"""A frame that has begun must be complete in this time."""

WRITE_S = 10.0
"""A peer that does not read for this long is dropped."""

LENGTH_BYTES = 4

_READ_BYTES = 65_536
_log = structlog.get_logger("skerry.hostd.connection")
_calls = msgspec.msgpack.Decoder(Call)
_encode = msgspec.msgpack.Encoder().encode


class _AnyCall(msgspec.Struct):
    """What is needed to refuse a call that is not understood."""

    id: int = 0


_any_calls = msgspec.msgpack.Decoder(_AnyCall)


class Connection:
    """Serves one peer until it goes, breaks the framing or does not read. Verbs that it began are carried out
    all the same.

    A plain non-blocking socket is used, since stream transports cannot send descriptors. Descriptors that the
    peer sends are dropped by the kernel, because they are never received (unix(7)).

    Args:
        verbs: What the peer may ask for.
    """

    def __init__(
        self,
        sock: socket.socket,
        service: HostService,
        happenings: Happenings,
        background: Background,
        *,
        verbs: Collection[type[Verb]],
    ) -> None:
        self._sock = sock
        self._verbs = verbs
        self._service = service
        self._happenings = happenings
        self._background = background
        self._loop = asyncio.get_running_loop()
        self._slots = asyncio.Semaphore(MAX_CALLS)
        self._writing = asyncio.Lock()
        self._watching = False
        self._events = background
        self._closed = False

    async def serve(self) -> None:
        """Read and answer until the end."""
        async with Background() as watching:
            self._events = watching
            try:
                await self._read_frames()
            except (OSError, ValueError, TimeoutError) as error:
                _log.info("connection_dropped", error=str(error))
            finally:
                self._close()

    def _close(self) -> None:
        if not self._closed:
            self._closed = True
            self._sock.close()

    async def _read_frames(self) -> None:
        reader, begun_bytes = FrameReader(), 0
        complete_at_s: float | None = None
        while True:
            async with asyncio.timeout_at(complete_at_s):
                data = await self._loop.sock_recv(self._sock, _READ_BYTES)
            if not data:
                return
            bodies = reader.feed(data)
            begun_bytes += len(data) - sum(LENGTH_BYTES + len(body) for body in bodies)
            if begun_bytes == 0:
                complete_at_s = None
            elif bodies or complete_at_s is None:
                complete_at_s = self._loop.time() + FRAME_S
            for body in bodies:
                await self._slots.acquire()
                self._background.start(self._handle(body), name="verb")

    async def _handle(self, body: bytes) -> None:
        try:
            await self._answer(body)
        except (OSError, TimeoutError) as error:
            # The peer is gone or does not read: what was asked is done, only nobody hears of it.
            _log.info("answer_lost", error=str(error))
            self._close()
        finally:
            self._slots.release()

    async def _answer(self, body: bytes) -> None:
        call_id = 0
        with contextlib.ExitStack() as descriptors:
            sent: list[socket.socket] = []
            try:
                call = _decode(body)
                call_id = call.id
                if type(call.verb) not in self._verbs:
                    raise Forbidden(f"this user may not ask for {type(call.verb).__name__}")
                # Duplicates, since the sandbox may end before they are sent.
                sent = [descriptors.enter_context(one.dup()) for one in await self._sockets(call.verb)]
                value = await self._carry_out(call.verb)
                data = _framed(Reply(call_id, msgspec.Raw(_encode(value))))
            except SkerryError as error:
                call_id = error.call_id if isinstance(error, _NotUnderstood) else call_id
                sent, data = [], _framed(Reply(call_id, failure=_failure(error)))
            except Exception as error:
                _log.error("verb_failed", error=repr(error), exc_info=True)
                failure = _failure(errors.RuntimeFailed("hostd failed; see its log"))
                sent, data = [], _framed(Reply(call_id, failure=failure))
            await self._send(data, [one.fileno() for one in sent])

    async def _sockets(self, verb: Verb) -> tuple[socket.socket, ...]:
        """What goes with the answer."""
        match verb:
            case OpenListener(sandbox_id):
                return (self._service.listener(sandbox_id),)
            case OpenGateway(sandbox_id):
                sockets = await self._service.gateway(sandbox_id)
                return sockets.tcp, sockets.udp
            case _:
                return ()

    async def _carry_out(self, verb: Verb) -> object:
        match verb:
            case Describe():
                return await self._service.describe()
            case Inspect():
                return await self._service.inspect()
            case Stats(sandbox_id):
                return await self._service.stats(sandbox_id)
            case Destroy(sandbox_id):
                return await self._service.destroy(sandbox_id)
            case Start(spec):
                await self._service.start(spec)
            case Pause(sandbox_id):
                await self._service.pause(sandbox_id)
            case Resume(sandbox_id):
                await self._service.resume(sandbox_id)
            case Watch():
                self._watch()
            case OpenListener() | OpenGateway():
                pass  # their answers are descriptors
            case _:
                assert_never(verb)
        return None

    def _watch(self) -> None:
        if not self._watching:
            self._watching = True
            self._events.start(self._send_events(), name="events")

    async def _send_events(self) -> None:
        """Pass on what happens until the connection ends. A peer that reads too slowly is dropped: it then
        knows that it must inspect.
        """
        with self._happenings.subscribed() as subscription:
            try:
                while not self._closed:
                    happening = await subscription.next()
                    if subscription.overflowed:
                        raise TimeoutError("the peer reads its events too slowly")
                    await self._send(frame(Event(happening)), [])
            except (OSError, TimeoutError) as error:
                _log.info("events_lost", error=str(error))
                self._close()

    async def _send(self, data: bytes, descriptors: list[int]) -> None:
        async with self._writing, asyncio.timeout(WRITE_S):
            if self._closed:
                return
            if descriptors:
                data = data[await self._send_descriptors(data, descriptors) :]
            await self._loop.sock_sendall(self._sock, data)

    async def _send_descriptors(self, data: bytes, descriptors: list[int]) -> int:
        """Send the first bytes together with the descriptors; returns how many bytes went."""
        while True:
            try:
                return socket.send_fds(self._sock, [data], descriptors)
            except BlockingIOError:
                await self._writable()

    async def _writable(self) -> None:
        ready: asyncio.Future[None] = self._loop.create_future()
        self._loop.add_writer(self._sock, settle, ready)
        try:
            await ready
        finally:
            self._loop.remove_writer(self._sock)


class _NotUnderstood(InvalidRequest):
    """A call that could not be decoded.

    Attributes:
        call_id: Its number as far as that could be read, else 0.
    """

    def __init__(self, call_id: int, problem: str) -> None:
        super().__init__(f"not a call that hostd understands: {problem}")
        self.call_id = call_id


def _decode(body: bytes) -> Call:
    try:
        return _calls.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        try:
            call_id = _any_calls.decode(body).id
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            call_id = 0
        raise _NotUnderstood(call_id, str(error)[:200]) from None


def _failure(error: SkerryError) -> Failure:
    """What the peer may know: the family, never the detail, which is logged."""
    family = next(base.__name__ for base in type(error).__mro__ if base.__module__ == errors.__name__)
    if error.detail:
        _log.warning("verb_refused", family=family, message=error.message, detail=error.detail)
    return Failure(family, error.code, error.message)


def _framed(reply: Reply) -> bytes:
    try:
        return frame(reply)
    except ValueError:
        error = ResourceExhausted(f"the answer is larger than {MAX_FRAME_BYTES} bytes")
        return frame(Reply(reply.id, failure=_failure(error)))
