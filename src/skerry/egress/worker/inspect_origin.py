"""The origin's side of an inspected connection."""

import asyncio
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass

from skerry.egress.http1 import Malformed, RequestHead, ResponseEvent, ResponseReader
from skerry.egress.worker.dial import DialFailed
from skerry.egress.worker.flow import Flow
from skerry.egress.worker.inspect_stream import Listener, Stream
from skerry.egress.worker.inspect_tls import Tls
from skerry.egress.worker.upstream_tls import HandshakeFailed, UntrustedOrigin, connect_tls
from skerry.policy.verdict import Reason
from skerry.spec.settings import EgressLimits


class OriginFailed(Exception):
    """There is no connection to the origin.

    Args:
        reason: What the client is told.
    """

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.value)
        self.reason = reason


async def connect(flow: Flow, context: ssl.SSLContext | None) -> tuple[socket.socket, Tls | None]:
    """Connect to where a flow goes.

    Args:
        context: For TLS; None: in clear.
    Raises:
        OriginFailed: With the reason to be told.
    """
    try:
        sock = (await flow.dial()).sock
    except DialFailed as failure:
        raise OriginFailed(failure.reason) from None
    if context is None:
        return sock, None
    try:
        return sock, await _connect_tls(flow, sock, context)
    except BaseException:
        sock.close()
        raise


async def _connect_tls(flow: Flow, sock: socket.socket, context: ssl.SSLContext) -> Tls:
    try:
        async with asyncio.timeout(flow.shared.limits.settings.handshake_s):
            return await connect_tls(sock, str(flow.host), context)
    except UntrustedOrigin:
        raise OriginFailed(Reason.UPSTREAM_CERTIFICATE) from None
    except HandshakeFailed:
        raise OriginFailed(Reason.UPSTREAM_UNREACHABLE) from None
    except TimeoutError:
        flow.shared.limits.hit("handshake_s")
        raise OriginFailed(Reason.TIMED_OUT) from None


@dataclass(frozen=True, slots=True)
class OriginListener:
    """Who is told what an origin does.

    Attributes:
        answered: Parts of answers have come.
        malformed: What came is no answer.
        ended: No more will come; with the end of an answer if that is one, and None if an answer was cut.
        drained: See `Listener.drained`.
    """

    answered: Callable[[list[ResponseEvent]], None]
    malformed: Callable[[], None]
    ended: Callable[[list[ResponseEvent] | None], None]
    drained: Callable[[], None]


class Origin:
    """A connection to an origin, and the answers that come on it.

    Args:
        stream: Not listened to yet; owned from now on.
    """

    __slots__ = ("_listener", "_reader", "stream")

    def __init__(self, stream: Stream, limits: EgressLimits, listener: OriginListener) -> None:
        self.stream = stream
        self._reader = ResponseReader(limits)
        self._listener = listener
        self.stream.listen(Listener(self._said, self._ended, listener.drained))
        self.stream.resume()

    def expect(self, head: RequestHead) -> bool:
        """A request is about to be sent; False when the origin has said something before it was asked."""
        try:
            self._reader.expect(head.method, minor=head.minor, upgrade=head.upgrade)
        except Malformed:
            return False
        return True

    def _said(self, data: bytes) -> None:
        try:
            events = self._reader.feed(data)
        except Malformed:
            self._listener.malformed()
        else:
            self._listener.answered(events)

    def _ended(self, clean: bool) -> None:
        try:
            events = self._reader.eof() if clean else None
        except Malformed:
            events = None
        self._listener.ended(events)
