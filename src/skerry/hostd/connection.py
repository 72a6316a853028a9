"""One connection to hostd."""

import asyncio
import contextlib
import socket
from collections.abc import Collection
from typing import assert_never

import msgspec
import structlog

from skerry import errors
from skerry.errors import Forbidden, SkerryError
from skerry.hostd.background import Background
from skerry.hostd.happenings import Happenings
from skerry.hostd.service import HostService
from skerry.hostd.sys.processes import settle
from skerry.protocol.host_verbs import (
    Call,
    Describe,
    Destroy,
    Event,
    Inspect,
    OpenGateway,
    OpenListener,
    Pause,
    Resume,
    Start,
    Stats,
    Verb,
    Watch,
    frame,
)
from skerry.serving import connection
from skerry.serving.replies import UNDECODABLE, NotUnderstood, refusal, result

MAX_CALLS = 256
"""Calls under way; while there are as many, no more is read."""

_log = structlog.get_logger("skerry.hostd.connection")
_calls = msgspec.msgpack.Decoder(Call)


class Connection(connection.Connection):
    """See `skerry.serving.connection.Connection`. Some answers carry descriptors.

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
        super().__init__(sock, background, max_calls=MAX_CALLS, log=_log)
        self._verbs = verbs
        self._service = service
        self._happenings = happenings
        self._watching = False
        self._events = background

    async def serve(self) -> None:
        """Read and answer until the end; then no more events are sent."""
        async with Background() as watching:
            self._events = watching
            await super().serve()

    async def answer(self, body: bytes) -> None:
        """See `skerry.serving.connection.Connection.answer`."""
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
                data = result(call_id, await self._carry_out(call.verb), _log)
            except SkerryError as error:
                sent, data = [], refusal(call_id, error, _log)
            except Exception as error:
                _log.error("verb_failed", error=repr(error), exc_info=True)
                sent, data = [], refusal(call_id, errors.RuntimeFailed("hostd failed; see its log"), _log)
            if sent:
                await self._send_with(data, [one.fileno() for one in sent])
            else:
                await self._send(data)

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
                    await self._send(frame(Event(happening)))
            except (OSError, TimeoutError) as error:
                _log.info("events_lost", error=str(error))
                self._close()

    async def _send_with(self, data: bytes, descriptors: list[int]) -> None:
        async with self._writing, asyncio.timeout(connection.WRITE_S):
            if not self._closed:
                sent_bytes = await self._send_descriptors(data, descriptors)
                await self._loop.sock_sendall(self._sock, data[sent_bytes:])

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


def _decode(body: bytes) -> Call:
    try:
        return _calls.decode(body)
    except UNDECODABLE as error:
        raise NotUnderstood(body, "hostd", str(error)[:200]) from None
