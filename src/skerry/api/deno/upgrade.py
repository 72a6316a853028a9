"""Opening a session: `create` and `connect`, the two routes that end in a WebSocket.

Everything that can be refused is refused before a sandbox is made. permessage-deflate is never agreed to: it
costs far more than it saves here.

Source: RFC 6455, section 4.2; protocol notes, sections 1.5 to 1.7.
"""

import asyncio
import base64
import binascii
import hashlib
import socket
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import structlog
from aiohttp import web

from skerry.api.deno.budget import MemoryBudget
from skerry.api.deno.responses import bearer, error_response
from skerry.api.deno.session import Session
from skerry.api.deno.websocket import MessageSocket
from skerry.errors import InvalidRequest, NotSupported, ResourceExhausted, SkerryError
from skerry.protocol.deno_config import SandboxConfig, decode_config, invalid_config
from skerry.protocol.deno_flavour import flavour_of
from skerry.service.attachment import Attachment
from skerry.service.requests import CreateRequest, Principal
from skerry.service.service import Service

MAX_CONNECTIONS = 4096
"""WebSockets of all clients together."""

_ACCEPT_KEY = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_MAX_PORT = 65_535

_KEEPALIVE = ((socket.TCP_KEEPIDLE, 20), (socket.TCP_KEEPINTVL, 10), (socket.TCP_KEEPCNT, 4))
"""Seconds of silence before the first probe, seconds between probes, probes."""

_log = structlog.get_logger(__name__)

Attach = Callable[[Principal], Awaitable[Attachment]]


class SessionRoutes:
    """Handles the two routes and knows every open session.

    Args:
        stream_ids: IDs for streams to clients, unique in the whole process.
    """

    def __init__(self, service: Service, budget: MemoryBudget, stream_ids: Iterator[int]) -> None:
        self._service = service
        self._budget = budget
        self._stream_ids = stream_ids
        self._sessions: set[Session] = set()
        self._stopping = False

    def leave(self, reason: str) -> None:
        """The server goes away: close every connection; their sandboxes stay."""
        self._stopping = True
        for session in tuple(self._sessions):
            session.leave(reason)

    async def create(self, request: web.Request) -> web.StreamResponse:
        """`GET /api/v3/sandboxes/create` with an upgrade."""

        async def attach(who: Principal) -> Attachment:
            flavour = flavour_of(request.headers.get("User-Agent"))
            config = decode_config(request.headers.get("x-deno-sandbox-config"), flavour)
            return await self._service.create(who, create_request(config))

        return await self._open(request, attach)

    async def connect(self, request: web.Request) -> web.StreamResponse:
        """`GET /api/v3/sandbox/{id}/connect` with an upgrade."""
        return await self._open(
            request, lambda who: self._service.connect(who, request.match_info["sandbox_id"])
        )

    async def _open(self, request: web.Request, attach: Attach) -> web.StreamResponse:
        try:
            who = await self._service.authenticate(bearer(request))
            accept = _handshake(request)
            if len(self._sessions) >= MAX_CONNECTIONS or self._stopping:
                raise ResourceExhausted(f"the server has {MAX_CONNECTIONS} connections open; try again later")
            attachment = await attach(who)
        except SkerryError as error:
            return error_response(request, error, opening=True)
        try:
            return await self._serve(request, who, attachment, accept)
        finally:
            if not self._stopping:
                # Idempotent: only for a connection that was lost before its session could run.
                await attachment.detach(clean=False)

    async def _serve(
        self, request: web.Request, who: Principal, attachment: Attachment, accept: str
    ) -> web.StreamResponse:
        response = web.StreamResponse(status=101)
        response.headers.update(
            {
                "Upgrade": "websocket",
                "Connection": "Upgrade",
                "Sec-WebSocket-Accept": accept,
                "x-deno-sandbox-id": attachment.sandbox_id,
            }
        )
        transport = request.transport
        if transport is None or transport.is_closing():
            return response
        flavour = flavour_of(request.headers.get("User-Agent"))
        messages = MessageSocket(self._budget, asyncio.get_running_loop(), request.protocol.connection_lost)
        session = Session(attachment, messages, flavour, budget=self._budget, stream_ids=self._stream_ids)
        self._sessions.add(session)
        _log.info(
            "connected", sandbox=attachment.sandbox_id, client=flavour.value, primary=attachment.primary
        )
        try:
            with self._service.in_use(who, session.revoke):
                opened = self._answer(request, response, messages, session, transport)
                await session.run(opened, stopping=lambda: self._stopping)
        finally:
            self._sessions.discard(session)
            _log.info("disconnected", sandbox=attachment.sandbox_id)
        return response

    @staticmethod
    async def _answer(
        request: web.Request,
        response: web.StreamResponse,
        messages: MessageSocket,
        session: Session,
        transport: Any,
    ) -> None:
        """Send the 101. The socket takes the transport over first: the client may speak as soon as it sees
        the answer."""
        request.protocol.keep_alive(False)
        response.force_close()
        notice_dead_peers(transport)
        messages.take_over(transport, session)
        await response.prepare(request)


def notice_dead_peers(transport: asyncio.BaseTransport) -> None:
    """Let the kernel find out that the client's machine is gone, within about a minute.

    Not by WebSocket pings: a client that a debugger has stopped answers none, but its kernel does.

    Source: tcp(7).
    """
    connection = transport.get_extra_info("socket")
    if connection is None or connection.family not in (socket.AF_INET, socket.AF_INET6):
        return
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _KEEPALIVE:
        connection.setsockopt(socket.IPPROTO_TCP, option, value)


def _handshake(request: web.Request) -> str:
    """Check the upgrade and compute the value that accepts it.

    Raises:
        InvalidRequest: It is not a WebSocket upgrade of version 13.
    """
    headers = request.headers
    wants = [token.strip().lower() for token in headers.get("Connection", "").split(",")]
    if request.method != "GET" or headers.get("Upgrade", "").lower() != "websocket" or "upgrade" not in wants:
        raise InvalidRequest("this route is a WebSocket: send an HTTP/1.1 upgrade")
    if headers.get("Sec-WebSocket-Version") != "13":
        raise InvalidRequest("Sec-WebSocket-Version: only 13 is spoken here")
    key = headers.get("Sec-WebSocket-Key", "")
    try:
        length = len(base64.b64decode(key, validate=True))
    except (binascii.Error, ValueError):
        length = 0
    if length != 16:
        raise InvalidRequest("Sec-WebSocket-Key: expected 16 bytes in base64")
    digest = hashlib.sha1(key.encode() + _ACCEPT_KEY, usedforsecurity=False).digest()
    return base64.b64encode(digest).decode()


def create_request(config: SandboxConfig) -> CreateRequest:
    """What the service is asked for.

    Raises:
        InvalidRequest: A member's value can never work.
        NotSupported: It asks for what this server does not have.
    """
    if config.port is not None and not 1 <= config.port <= _MAX_PORT:
        raise invalid_config(f"port: expected 1 to {_MAX_PORT}")
    if config.port is not None or config.ssh:
        raise NotSupported("this server has no HTTP or SSH exposure yet: create without port and ssh")
    duration_s = config.duration_s()
    return CreateRequest(
        memory_mib=config.memory_mb,
        session=duration_s is None and config.stop_at_ms is None,
        stop_at_ms=config.stop_at_ms,
        duration_s=duration_s,
        labels=config.labels or {},
        env=config.env or {},
        root=None if config.root is None else config.root.volume,
        volumes=config.mounts(),
        allow_net=config.allow_net,
        secrets=config.secrets or {},
        region=config.region,
    )
