"""What happens to a connection once it is known where it wants to go: its first bytes decide the rest."""

import asyncio
import socket
from ipaddress import IPv4Address, IPv6Address

from skerry.egress.hello import Hello, MalformedHello
from skerry.egress.worker import denial
from skerry.egress.worker.classify import Kind, kind_of, method_of
from skerry.egress.worker.dial import DialFailed
from skerry.egress.worker.first_bytes import read_hello, wait_kind
from skerry.egress.worker.flow import Flow
from skerry.egress.worker.peek import arrived, peek, reset_mark
from skerry.egress.worker.pump import Pump, Watch
from skerry.egress.worker.readiness import first_readable
from skerry.egress.worker.refuse import kind_in_time, refuse
from skerry.policy.names import BadName, canonical
from skerry.policy.verdict import Mode, Reason, Verdict

SILENCE_S = 0.25
"""A client that says nothing for so long may wait for the server to speak first."""

BOUND_SILENCE_S = 2.0
"""On a host with a secret it waits in vain, because nothing passes unread there: it is told soon."""

UNDECIDED_S = 1.0
"""A client that has begun to speak, and whose bytes could be those of several protocols, may wait for the
server to answer just these."""


class _NeitherHttpNorTls:
    """Sees to it that what began to pass unread does not go on as a protocol that is read (`Watch`)."""

    def __init__(self) -> None:
        self._seen = b""

    def __call__(self, data: bytes) -> bool:
        self._seen += data
        kind = kind_of(self._seen)
        if kind in (None, Kind.OTHER):
            return kind is not None
        raise ConnectionAbortedError("a client has made two protocols of its first bytes")


async def serve(flow: Flow) -> None:
    """Serve or refuse a connection. Returns when it is over; the caller closes the socket.

    Raises:
        OSError: It broke.
    """
    if not flow.verdict.allowed:
        await _refuse_unless_named(flow)
        return
    kind = await _kind_unless_over(flow)
    match kind:
        case None:
            return
        case Kind.TLS:
            await _serve_tls(flow)
        case Kind.HTTP:
            await serve_http(flow)
        case Kind.HTTP2:
            await refuse(flow, Reason.HTTP2_NOT_SUPPORTED, kind)
        case Kind.OTHER if _may_pass_raw(flow.verdict):
            await _pass(flow, Mode.TCP, kind)
        case _:
            await refuse(flow, Reason.PROTOCOL_NOT_ALLOWED, kind)


async def _refuse_unless_named(flow: Flow) -> None:
    """Refuse, except TLS to a public address that names an allowed host, as with a host table or a resolver
    elsewhere: it is served by that name, and where the address leads does not matter."""
    kind = await kind_in_time(flow)
    if kind is Kind.TLS and flow.verdict.reason is Reason.ADDRESS_NOT_ALLOWED:
        await _serve_tls(flow)
    else:
        await refuse(flow, flow.verdict.reason or Reason.HOST_NOT_ALLOWED, kind, flow.verdict.owner_action)


async def serve_http(flow: Flow) -> None:
    """Serve or refuse a client that speaks HTTP in clear and was found to be allowed."""
    if flow.verdict.bound:
        await refuse(flow, Reason.PLAINTEXT_TO_BOUND_HOST, Kind.HTTP)
        return
    if method_of(await peek(flow.client, 1)) == b"CONNECT":
        await refuse(flow, Reason.METHOD_NOT_ALLOWED, Kind.HTTP)
        return
    reset_mark(flow.client)
    flow.mode = Mode.INSPECT
    flow.opened()
    await flow.shared.inspector.serve_plain(flow)


def _may_pass_raw(verdict: Verdict) -> bool:
    return verdict.tcp and not verdict.bound


async def _kind_unless_over(flow: Flow) -> Kind | None:
    """What the client speaks; None when the connection is over already."""
    try:
        async with asyncio.timeout(SILENCE_S):
            return await wait_kind(flow.client)
    except TimeoutError:
        pass
    may_wait_for_server = _may_pass_raw(flow.verdict) and flow.verdict.exact
    if may_wait_for_server and not arrived(flow.client) and await _server_first(flow):
        return None
    limits = flow.shared.limits
    patience_s = limits.settings.hello_s
    if flow.verdict.bound:
        patience_s = min(patience_s, BOUND_SILENCE_S)
    elif _may_pass_raw(flow.verdict) and arrived(flow.client):
        patience_s = min(patience_s, UNDECIDED_S)
    try:
        async with asyncio.timeout(patience_s):
            return await wait_kind(flow.client)
    except TimeoutError:
        pass
    if _may_pass_raw(flow.verdict) and arrived(flow.client):
        await _pass(flow, Mode.TCP, None, watch=_NeitherHttpNorTls())
    else:
        limits.hit("hello_s")
        await refuse(flow, Reason.TIMED_OUT, None)
    return None


async def _server_first(flow: Flow) -> bool:
    """Connect, and see who speaks first: a server that does has a protocol of its own, which passes; a client
    that does was only slow.

    Returns:
        Whether the connection is over.
    """
    reset_mark(flow.client)
    flow.mode = Mode.TCP
    try:
        origin = (await flow.dial()).sock
    except DialFailed as error:
        await refuse(flow, error.reason, None)
        return True
    with origin:
        try:
            async with asyncio.timeout(flow.shared.limits.settings.idle_s):
                first = await first_readable(flow.client, origin)
        except TimeoutError:
            flow.shared.limits.hit("idle_s")
            await refuse(flow, Reason.TIMED_OUT, None)
            return True
        if first is origin:
            await _pump(flow, origin)
            return True
    flow.mode = None
    flow.dialled, flow.dialled_address = "", None
    return False


async def _serve_tls(flow: Flow) -> None:
    limits = flow.shared.limits
    try:
        async with asyncio.timeout(limits.settings.hello_s):
            hello = await read_hello(flow.client)
    except TimeoutError:
        limits.hit("hello_s")
        await refuse(flow, Reason.TIMED_OUT, Kind.TLS)
        return
    except MalformedHello:
        await refuse(flow, Reason.MALFORMED_HELLO, Kind.TLS)
        return
    flow.sni = hello.server_name or ""
    flow.has_ech = hello.has_ech
    flow.alpn = ",".join(name.decode("ascii", "replace") for name in hello.alpn[:4])
    if (reason := _judge_name(flow, hello)) is not None:
        await refuse(flow, reason, Kind.TLS, flow.verdict.owner_action)
    elif flow.verdict.mode is Mode.INSPECT or (hello.has_ech and flow.verdict.inspect_ech):
        await _inspect(flow, hello)
    else:
        await _pass(flow, Mode.SPLICE, Kind.TLS)


def _judge_name(flow: Flow, hello: Hello) -> Reason | None:
    """Why a connection with this hello is refused; None when it is not.

    A name in a hello to a plain address counts like one that was looked up, and then the address does not.
    """
    name: str | None = None
    if hello.server_name is not None:
        try:
            name = canonical(hello.server_name)
        except BadName:
            return Reason.BAD_HOST_NAME
    if not isinstance(flow.host, IPv4Address | IPv6Address):
        return None if name == flow.host else Reason.NAME_MISMATCH
    if name is not None:
        verdict = flow.shared.current.policy.decide(name, flow.port)
        if verdict.allowed:
            flow.decide(name, flow.port)
        elif verdict.reason not in (Reason.HOST_NOT_ALLOWED, Reason.PORT_NOT_ALLOWED):
            return verdict.reason
    return None if flow.verdict.allowed else flow.verdict.reason


async def _inspect(flow: Flow, hello: Hello) -> None:
    limits = flow.shared.limits
    if flow.shared.current.rules.authority is None:
        # Only an encrypted hello gets here then: nothing was to be inspected.
        await refuse(flow, Reason.PROTOCOL_NOT_ALLOWED, Kind.TLS)
        return
    if not await limits.tls.wait(limits.settings.handshake_s):
        limits.hit("tls_per_s")
        await refuse(flow, Reason.RATE_LIMITED, Kind.TLS)
        return
    flow.mode = Mode.INSPECT
    flow.opened()
    reset_mark(flow.client)
    await flow.shared.inspector.serve(flow, hello)


async def _pass(flow: Flow, mode: Mode, kind: Kind | None, *, watch: Watch | None = None) -> None:
    """Connect, and pass bytes unread."""
    flow.mode = mode
    reset_mark(flow.client)
    try:
        origin = (await flow.dial()).sock
    except DialFailed as error:
        await refuse(flow, error.reason, kind)
        return
    await _pump(flow, origin, watch)


async def _pump(flow: Flow, origin: socket.socket, watch: Watch | None = None) -> None:
    """Pass bytes until both sides are done, and close both; with a reset unless both ended well."""
    limits = flow.shared.limits
    flow.opened()
    well = False
    try:
        idle_s = limits.settings.websocket_idle_s
        await Pump(flow.client, origin, flow, idle_s=idle_s, watch=watch).run()
        well = True
    except TimeoutError:
        limits.hit("websocket_idle_s")
    except OSError:
        pass
    finally:
        for sock in (flow.client, origin):
            if well:
                sock.close()
            else:
                denial.reset(sock)
