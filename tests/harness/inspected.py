"""A worker's inspection between a client and an origin, all in one process, over the loopback interface.

The client is whatever a test likes; policy, parsing, substitution, scrubbing, TLS on both sides and the audit
trail are real. Only resolving and connecting are not: every name leads to the one origin.
"""

import asyncio
import json
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path

from skerry.egress.ca import make_authority
from skerry.egress.dns import SyntheticNames
from skerry.egress.messages import Line, Rules, Secret
from skerry.egress.worker.audit import AuditTrail
from skerry.egress.worker.dial import DialFailed, Dialled
from skerry.egress.worker.flow import Current, Flow, Host, Shared
from skerry.egress.worker.inspect import Inspection
from skerry.egress.worker.limits import Limits
from skerry.egress.worker.serve import serve
from skerry.policy.document import AllowRule, PolicyDocument, SecretRule, TlsChoice
from skerry.policy.verdict import Verdict
from skerry.protocol.egress_verbs import NamedLayer
from skerry.spec.ids import SandboxId
from skerry.spec.settings import EgressLimits, EgressSettings
from tests.harness.origins.certificates import TestAuthority

HOST = "api.example.com"
ID = SandboxId("sbx_ord_" + "a" * 20)
PLACEHOLDER = "DENO_SECRET_PLACEHOLDER_" + "0123456789abcdef" * 4
VALUE = b"sk-live-9f8e7d6c5b4a3210zyxw"

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def secret(name: str = "KEY", value: bytes | None = VALUE, state: str = "active", **rule: object) -> Secret:
    """A secret of `HOST`."""
    known = {"hosts": (HOST,), **rule}
    return Secret(
        rule=SecretRule(name=name, **known),  # type: ignore[arg-type]
        placeholder=PLACEHOLDER if name == "KEY" else PLACEHOLDER[:-4] + name,
        value=value,
        state=state,
    )


def rules_of(
    *rules: AllowRule,
    secrets: tuple[Secret, ...] = (),
    limits: EgressLimits | None = None,
    extra_roots: tuple[str, ...] = (),
    version: int = 1,
) -> Rules:
    """A sandbox that may use these."""
    own = PolicyDocument(
        allow=rules or (AllowRule(host=HOST, ports=(), websocket=True, tls=TlsChoice.INSPECT),)
    )
    return Rules(
        sandbox_id=ID,
        version=version,
        layers=(NamedLayer(name="sandbox", document=own),),
        secrets=secrets,
        authority=make_authority(ID, None, time.time_ns() // 1_000_000),
        settings=EgressSettings(extra_roots=extra_roots, limits=limits or EgressLimits()),
    )


@dataclass(slots=True)
class Told:
    """What the broker was told."""

    lines: list[dict[str, object]] = field(default_factory=list)
    used: list[str] = field(default_factory=list)
    cut: list[str] = field(default_factory=list)

    def of(self, event: str) -> list[dict[str, object]]:
        """The lines about one kind of event."""
        return [line for line in self.lines if line["event"] == event]


class _Channel:
    """Writes every line at once, and confirms it unless it is deaf."""

    def __init__(self, told: Told) -> None:
        self.told = told
        self.deaf = False
        self.full = False
        self.audit: AuditTrail | None = None

    def room(self) -> int:
        return 0 if self.full else 100

    def send(self, message: Line) -> None:
        self.told.lines.append(json.loads(message.text))
        if message.confirm and not self.deaf and self.audit is not None:
            asyncio.get_running_loop().call_soon(self.audit.written, message.seq)


class _Broker:
    def __init__(self, told: Told) -> None:
        self._told = told

    def used(self, secret: str) -> None:
        self._told.used.append(secret)

    def cut(self, secret: str) -> None:
        self._told.cut.append(secret)


class _Dialler:
    """Every host is the origin.

    Attributes:
        port: Of the origin; None: nothing can be connected to.
        failure: Raised instead.
        count: Connections so far.
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self.failure: DialFailed | None = None
        self.count = 0

    async def dial(self, host: Host, port: int, verdict: Verdict) -> Dialled:
        if self.failure is not None:
            raise self.failure
        sock = socket.socket()
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", self.port))
        self.count += 1
        return Dialled(sock, IPv4Address("203.0.113.7"), f"203.0.113.7:{port}")


class Gateway:
    """One worker's inspection.

    Attributes:
        port: Where clients connect to.
        roots: For clients: a context that trusts the sandbox's authority.
    """

    def __init__(self, rules: Rules, origin_port: int, loop: asyncio.AbstractEventLoop) -> None:
        self.rules = rules
        self.told = Told()
        self.channel = _Channel(self.told)
        self.current = Current(rules)
        self.inspection = Inspection(rules)
        self.dialler = _Dialler(origin_port)
        self.audit = AuditTrail(
            self.channel,
            sandbox=ID,
            next_seq=1,
            clock=loop.time,
            now_ms=_now_ms,
            version=lambda: self.current.version,
        )
        self.channel.audit = self.audit
        self.audit.know_placeholders([(one.placeholder, one.rule.name) for one in rules.secrets])
        self.limits = Limits(rules.settings.limits, loop.time, lambda name: None)
        self.shared = Shared(
            current=self.current,
            audit=self.audit,
            limits=self.limits,
            dialler=self.dialler,
            names=SyntheticNames(b"x", limit=100),
            inspector=self.inspection,
            broker=_Broker(self.told),
            now_ms=_now_ms,
            on_defect=_defect,
        )
        self.flows: dict[Flow, asyncio.Task[None]] = {}
        self.port = 0
        self.host, self.target_port = HOST, 443
        self.via_proxy = False
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=200)
        self._listener.setblocking(False)
        self.port = self._listener.getsockname()[1]

    @property
    def roots(self) -> ssl.SSLContext:
        """For clients: trusts the sandbox's authority."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        assert self.rules.authority is not None
        context.load_verify_locations(cadata=self.rules.authority.certificate_pem)
        context.set_alpn_protocols(["http/1.1"])
        return context

    async def serve(self) -> None:
        """Accept until cancelled."""
        loop = asyncio.get_running_loop()
        number = 0
        async with asyncio.TaskGroup() as group:
            while True:
                client, _ = await loop.sock_accept(self._listener)
                client.setblocking(False)
                number += 1
                verdict = self.current.policy.decide(self.host, self.target_port)
                flow = Flow(
                    self.shared,
                    number,
                    client,
                    (IPv4Address("198.18.0.2"), self.target_port),
                    self.host,
                    self.target_port,
                    verdict,
                    via_proxy=self.via_proxy,
                )
                self.flows[flow] = group.create_task(self._serve(flow))

    async def _serve(self, flow: Flow) -> None:
        try:
            with suppress(OSError):
                await serve(flow)
        finally:
            flow.client.close()
            del self.flows[flow]

    def close(self) -> None:
        """Accept no more."""
        self._listener.close()

    def adopt(self, rules: Rules) -> None:
        """As the worker does."""
        self.rules = rules
        self.current.adopt(rules)
        self.inspection.adopt(rules)
        for flow, task in list(self.flows.items()):
            if not flow.fits():
                task.cancel()

    async def connect(
        self, *, roots: ssl.SSLContext | None = None, name: str = HOST
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A TLS client."""
        return await asyncio.open_connection(
            "127.0.0.1", self.port, ssl=roots or self.roots, server_hostname=name
        )

    async def connect_plain(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A client in clear."""
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def ask(self, request: bytes, *, tls: bool = True) -> bytes:
        """Send bytes, and return all that is answered until the end of the connection."""
        reader, writer = await (self.connect() if tls else self.connect_plain())
        writer.write(request)
        answer = await reader.read()
        writer.close()
        return answer


class Origin:
    """A scripted origin.

    Attributes:
        received: All bytes of each connection.
    """

    def __init__(self, handler: Handler) -> None:
        self.received: list[bytearray] = []
        self._handler = handler
        self._tasks: set[asyncio.Task[None]] = set()

    def close(self) -> None:
        """Close all connections."""
        for task in self._tasks:
            task.cancel()

    @property
    def heard(self) -> bytes:
        """Everything, of all connections."""
        return b"".join(map(bytes, self.received))

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        record = bytearray()
        self.received.append(record)
        tee = asyncio.StreamReader()

        async def copy() -> None:
            while data := await reader.read(65536):
                record.extend(data)
                tee.feed_data(data)
            tee.feed_eof()

        try:
            async with asyncio.TaskGroup() as group:
                copying = group.create_task(copy())
                with suppress(ConnectionError, asyncio.IncompleteReadError):
                    await self._handler(tee, writer)
                copying.cancel()
        finally:
            writer.close()


@asynccontextmanager
async def inspected(
    handler: Handler,
    tmp_path: Path,
    *,
    tls: bool = True,
    host: str = HOST,
    port: int = 443,
    origin_name: str = HOST,
    secrets: tuple[Secret, ...] = (),
    allow: tuple[AllowRule, ...] = (),
    limits: EgressLimits | None = None,
) -> AsyncIterator[tuple[Gateway, Origin]]:
    """A gateway in front of an origin."""
    authority = TestAuthority.make()
    roots, chain = tmp_path / "roots.pem", tmp_path / "origin.pem"
    roots.write_bytes(authority.certificate_pem)
    chain.write_bytes(authority.leaf(origin_name))
    context = None
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(chain)
        context.set_alpn_protocols(["http/1.1"])
    origin = Origin(handler)
    server = await asyncio.start_server(origin.serve, "127.0.0.1", 0, ssl=context)
    made = rules_of(*allow, secrets=secrets, limits=limits, extra_roots=(str(roots),))
    gateway = Gateway(made, server.sockets[0].getsockname()[1], asyncio.get_running_loop())
    gateway.host, gateway.target_port = host, port
    serving = asyncio.get_running_loop().create_task(gateway.serve())
    try:
        yield gateway, origin
    finally:
        serving.cancel()
        with suppress(asyncio.CancelledError):
            await serving
        gateway.close()
        server.close()
        origin.close()


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _defect(error: object) -> None:
    raise AssertionError("a defect") from error if isinstance(error, BaseException) else None


def reason_of(answer: bytes) -> str:
    """The reason in a refusal."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"application/json" in head, answer
    told = json.loads(body)
    assert told["error"] in ("egress_denied", "egress_failed")
    assert set(told) == {"error", "reason", "request_id", "message", "owner_action"}
    return str(told["reason"])


async def read_head(reader: asyncio.StreamReader) -> bytes:
    """One message head."""
    return await reader.readuntil(b"\r\n\r\n")


async def read_body(reader: asyncio.StreamReader, head: bytes) -> bytes:
    """The body of a message: a length or chunks."""
    fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line)
    if b"content-length" in fields:
        return await reader.readexactly(int(fields[b"content-length"]))
    if fields.get(b"transfer-encoding") != b"chunked":
        return b""
    body = b""
    while size := int((await reader.readline()).split(b";")[0], 16):
        body += (await reader.readexactly(size + 2))[:-2]
    while await reader.readline() != b"\r\n":
        pass
    return body
