"""The explicit proxy: CONNECT and the absolute form, decided as if the sandbox had connected itself."""

import asyncio
import socket
from ipaddress import IPv4Address, IPv6Address

from skerry.egress.http1.model import Malformed, RequestHead
from skerry.egress.http1.request import parse_request_head
from skerry.egress.http1.target import DEFAULT_PORTS, split_authority
from skerry.egress.worker.classify import Kind
from skerry.egress.worker.first_bytes import wait_kind
from skerry.egress.worker.flow import Flow
from skerry.egress.worker.peek import MAX_PEEK_BYTES, peek, reset_mark, take
from skerry.egress.worker.readiness import send_all
from skerry.egress.worker.refuse import refuse
from skerry.egress.worker.serve import serve, serve_http
from skerry.policy.names import BadName
from skerry.policy.names import host as host_of
from skerry.policy.verdict import Reason

_ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"


class _NotServed(Exception):
    """The request is refused."""

    def __init__(self, reason: Reason, kind: Kind | None = Kind.HTTP) -> None:
        super().__init__(reason.value)
        self.reason = reason
        self.kind = kind


async def serve_proxy(flow: Flow) -> None:
    """Serve a connection to the proxy. Returns when it is over; the caller closes the socket.

    Raises:
        OSError: It broke.
    """
    try:
        request, size = await _first_request(flow)
        host, port = _where_to(request)
    except _NotServed as error:
        await refuse(flow, error.reason, error.kind)
        return
    flow.decide(host, port)
    flow.via_connect = request.method == b"CONNECT"
    flow.via_proxy = not flow.via_connect
    verdict = flow.verdict
    if not verdict.allowed:
        await refuse(flow, verdict.reason or Reason.HOST_NOT_ALLOWED, Kind.HTTP, verdict.owner_action)
    elif flow.via_connect:
        reset_mark(flow.client)
        take(flow.client, size)
        await send_all(flow.client, _ESTABLISHED)
        await serve(flow)
    else:
        await serve_http(flow)


async def _first_request(flow: Flow) -> tuple[RequestHead, int]:
    """The head of the first request, of which nothing is taken, and its length with the empty line."""
    limits = flow.shared.limits
    try:
        async with asyncio.timeout(limits.settings.head_s):
            kind = await wait_kind(flow.client)
            if kind is not Kind.HTTP:
                raise _NotServed(Reason.SELF, kind)
            head = await _peek_head(flow.client, min(limits.settings.head_bytes, MAX_PEEK_BYTES - 4))
    except TimeoutError:
        limits.hit("head_s")
        raise _NotServed(Reason.TIMED_OUT) from None
    try:
        return parse_request_head(head, limits.settings, proxy=True), len(head) + 4
    except Malformed as error:
        named_apart = error.status == 421
        raise _NotServed(Reason.NAME_MISMATCH if named_apart else Reason.MALFORMED_REQUEST) from None


async def _peek_head(client: socket.socket, most: int) -> bytes:
    have = 0
    while True:
        data = await peek(client, have + 1)
        end = data.find(b"\r\n\r\n", 0, most + 4)
        if end >= 0:
            return data[:end]
        if len(data) <= have or len(data) >= most:
            raise _NotServed(Reason.MALFORMED_REQUEST)
        have = len(data)


def _where_to(request: RequestHead) -> tuple[str | IPv4Address | IPv6Address, int]:
    """Host and port of a request to a proxy."""
    if request.authority is None:
        # The origin form: meant for a server, and this is none.
        raise _NotServed(Reason.SELF)
    if request.scheme not in (None, b"http"):
        raise _NotServed(Reason.PROTOCOL_NOT_ALLOWED)
    text, port = split_authority(request.authority)
    try:
        host = host_of(f"[{text}]" if ":" in text else text)
    except BadName:
        raise _NotServed(Reason.BAD_HOST_NAME) from None
    return host, port or DEFAULT_PORTS[b"http"]
