"""A whole worker in the test's own event loop, over sockets of the loopback interface.

Where a connection of the sandbox was to go, which the kernel knows in production, is told by the port that
the client is bound to.
"""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import Any

import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset
import msgspec

from skerry.egress.hello import Hello
from skerry.egress.messages import (
    Adopted,
    Authority,
    FromWorker,
    Line,
    Lines,
    Rules,
    Secret,
    Stop,
    ToWorker,
    Written,
)
from skerry.egress.worker.flow import Flow
from skerry.egress.worker.resolver import endpoints
from skerry.egress.worker.worker import Sockets, Worker
from skerry.policy.document import AllowRule, PolicyDocument, SecretRule
from skerry.protocol.egress_verbs import NamedLayer
from skerry.spec.ids import SandboxId
from skerry.spec.settings import EgressLimits, EgressSettings, InternalNetwork
from tests.harness.waiting import until

SANDBOX = SandboxId("sbx_ord_" + "a" * 20)
LOOPBACK = InternalNetwork(names=("*.test",), cidr=("127.0.0.0/8", "::1/128"))
DEFAULT_LIMITS = EgressLimits()


def rules(
    *allow: AllowRule,
    default: str = "deny",
    secrets: Sequence[SecretRule] = (),
    version: int = 1,
    limits: EgressLimits = DEFAULT_LIMITS,
    resolvers: Sequence[str] = (),
    authority: bool = False,
    upstream_proxy: str = "",
) -> Rules:
    """Rules of a sandbox whose names below ``test`` may be on the loopback interface."""
    public = NamedLayer(name="operator", document=PolicyDocument(default="public"))
    own = msgspec.convert({"default": default}, PolicyDocument)
    return Rules(
        sandbox_id=SANDBOX,
        version=version,
        layers=(
            public,
            NamedLayer(name="sandbox", document=msgspec.structs.replace(own, allow=allow)),
        ),
        secrets=tuple(
            Secret(rule=rule, placeholder=f"DENO_SECRET_PLACEHOLDER_{rule.name}", value=b"v" * 32)
            for rule in secrets
        ),
        authority=Authority("certificate", "key") if authority else None,
        settings=EgressSettings(
            internal=(LOOPBACK,), limits=limits, resolvers=tuple(resolvers), upstream_proxy=upstream_proxy
        ),
    )


def allow(host: str, *ports: int, tcp: bool = True, **more: Any) -> AllowRule:
    """As a list of hosts makes it: without ports any."""
    return AllowRule(host=host, ports=ports, tcp=tcp, websocket=True, **more)


@dataclass
class RecordingInspector:
    """Stands in for the part that looks at requests: it says who came, and hangs up."""

    tls: list[Flow] = field(default_factory=list)
    plain: list[Flow] = field(default_factory=list)
    adopted: list[int] = field(default_factory=list)
    hold: bool = False

    def adopt(self, rules: Rules) -> None:
        """Remember the version."""
        self.adopted.append(rules.version)

    async def serve(self, flow: Flow, hello: Hello) -> None:
        """Remember the flow."""
        self.tls.append(flow)
        await self._stay()

    async def serve_plain(self, flow: Flow) -> None:
        """Remember the flow, answer one request."""
        self.plain.append(flow)
        flow.client.recv(65_536)
        flow.client.send(b"HTTP/1.1 204 No Content\r\n\r\n")
        await self._stay()

    async def _stay(self) -> None:
        if self.hold:
            await asyncio.get_running_loop().create_future()


@dataclass
class Bench:
    """A worker and everything around it.

    Attributes:
        lines: The audit trail so far.
        adopted: Versions that it says it goes by.
        said: All other messages of it.
        confirm: Say that lines are in the file.
        ended: The worker has.
    """

    port: int
    dns_port: int
    inspector: RecordingInspector
    control: socket.socket
    destinations: dict[int, tuple[IPv4Address, int]] = field(default_factory=dict)
    lines: list[dict[str, Any]] = field(default_factory=list)
    adopted: list[int] = field(default_factory=list)
    said: list[FromWorker] = field(default_factory=list)
    confirm: bool = True
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    status: int = -1

    async def address_of(self, name: str) -> str:
        """Ask the worker's name server, as the sandbox does."""
        query = dns.message.make_query(name, "A")
        answer = dns.message.from_wire(await self.ask(query.to_wire()))
        assert answer.rcode() == dns.rcode.NOERROR, dns.rcode.to_text(answer.rcode())
        return str(next(iter(answer.answer[0])).address)

    async def ask(self, query: bytes) -> bytes:
        """Send one packet to the name server."""
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.connect(("127.0.0.1", self.dns_port))
            await loop.sock_sendall(sock, query)
            async with asyncio.timeout(5):
                return await loop.sock_recv(sock, 4096)

    async def connect(self, host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect as the sandbox does: to the address of a name, or to an address."""
        address = host if host[0].isdigit() else await self.address_of(host)
        return await asyncio.open_connection(sock=await self.socket_to(address, port))

    async def socket_to(self, address: str, port: int) -> socket.socket:
        """The same for an address, as a plain socket."""
        sock = socket.socket()
        sock.bind(("127.0.0.1", 0))
        self.destinations[sock.getsockname()[1]] = (IPv4Address(address), port)
        sock.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", self.port))
        except OSError:
            sock.close()
            raise
        return sock

    def tell(self, message: ToWorker) -> None:
        """Say something as the broker."""
        self.control.send(msgspec.msgpack.encode(message))

    async def adopt(self, new: Rules) -> None:
        """Have the worker go by other rules."""
        self.tell(new)
        await until(lambda: new.version in self.adopted)

    async def line(self, **wanted: Any) -> dict[str, Any]:
        """Wait for an audit line with these values."""
        found: list[dict[str, Any]] = []

        def there() -> bool:
            found[:] = [line for line in self.lines if wanted.items() <= line.items()]
            return bool(found)

        try:
            await until(there, what=f"a line with {wanted}")
        except AssertionError as error:
            raise AssertionError(f"{error}; there are {self.lines}") from None
        return found[0]

    def take(self, message: FromWorker) -> None:
        """Hear what the worker says."""
        match message:
            case Line(seq=seq, text=text, confirm=confirm):
                self.lines.append(json.loads(text))
                if confirm and self.confirm:
                    self.tell(Written(seq))
            case Lines(lines=lines):
                for line in lines:
                    self.take(line)
            case Adopted(version=version):
                self.adopted.append(version)
            case _:
                self.said.append(message)


@asynccontextmanager
async def bench(
    first: Rules,
    *,
    resolver: str = "",
    inspector: RecordingInspector | None = None,
    expected_status: int = 0,
) -> AsyncIterator[Bench]:
    """Run a worker by these rules.

    Args:
        resolver: ``address:port`` that it asks.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for sock in (ours, theirs):
        sock.setblocking(False)
    listener = socket.create_server(("127.0.0.1", 0), backlog=200)
    listener.setblocking(False)
    packets = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    packets.bind(("127.0.0.1", 0))
    packets.setblocking(False)
    around = Bench(
        listener.getsockname()[1], packets.getsockname()[1], inspector or RecordingInspector(), ours
    )
    worker = Worker(
        first,
        Sockets(theirs, listener, packets),
        around.inspector,
        endpoints([resolver or "127.0.0.1:1"], ""),
        destination=lambda client: around.destinations[client.getpeername()[1]],
    )
    decode = msgspec.msgpack.Decoder(FromWorker).decode
    loop = asyncio.get_running_loop()

    async def hear() -> None:
        while data := await loop.sock_recv(ours, 1 << 20):
            around.take(decode(data))

    async with asyncio.TaskGroup() as group:
        hearing = group.create_task(hear())
        living = group.create_task(worker.main())
        living.add_done_callback(lambda _: around.ended.set())
        try:
            await until(lambda: around.adopted)
            yield around
        finally:
            if not living.done():
                around.tell(Stop())
            async with asyncio.timeout(10):
                around.status = await living
                await hearing
            ours.close()
    assert around.status == expected_status


class NameServer:
    """A resolver on the loopback interface.

    Attributes:
        port: For UDP and TCP.
        asked: Names, types and transports, as they came.
        twist: Changes an answer before it is sent over UDP; None: nothing is sent.
        lower: Answers do not repeat the letter case.
    """

    def __init__(self, records: Mapping[str, Sequence[str]], ttl_s: int = 60) -> None:
        self.records = dict(records)
        self.ttl_s = ttl_s
        self.asked: list[tuple[str, str, str]] = []
        self.twist: Callable[[bytes], list[bytes]] = lambda answer: [answer]
        self.lower = False
        self.truncate = False
        self.rcode = dns.rcode.NOERROR
        self.no_edns = False
        self.port = 0

    @property
    def address(self) -> str:
        """As settings have it."""
        return f"127.0.0.1:{self.port}"

    @asynccontextmanager
    async def run(self) -> AsyncIterator["NameServer"]:
        """Answer until the block ends."""
        loop = asyncio.get_running_loop()
        server = await asyncio.start_server(self._stream, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        packets = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        packets.bind(("127.0.0.1", self.port))
        packets.setblocking(False)
        loop.add_reader(packets, self._packet, packets)
        try:
            yield self
        finally:
            loop.remove_reader(packets)
            packets.close()
            server.close()
            await server.wait_closed()

    def _packet(self, packets: socket.socket) -> None:
        query, sender = packets.recvfrom(4096)
        for answer in self.twist(self._answer(query, "udp")):
            packets.sendto(answer, sender)

    async def _stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        size = int.from_bytes(await reader.readexactly(2), "big")
        answer = self._answer(await reader.readexactly(size), "tcp")
        writer.write(len(answer).to_bytes(2, "big") + answer)
        await writer.drain()
        writer.close()

    def _answer(self, wire: bytes, transport: str) -> bytes:
        query = dns.message.from_wire(wire)
        question = query.question[0]
        name = question.name.to_text(omit_final_dot=True)
        kind = dns.rdatatype.to_text(question.rdtype)
        self.asked.append((name, kind, transport))
        answer = dns.message.make_response(query)
        answer.set_rcode(self.rcode)
        if self.no_edns and query.edns >= 0:
            answer.set_rcode(dns.rcode.FORMERR)
            return answer.to_wire()
        texts = self.records.get(name.lower())
        if texts is None:
            answer.set_rcode(self.rcode or dns.rcode.NXDOMAIN)
        wanted = [text for text in texts or () if (":" in text) == (kind == "AAAA")]
        if wanted and not (self.truncate and transport == "udp"):
            answer.answer.append(dns.rrset.from_text(question.name, self.ttl_s, "IN", kind, *wanted))
        if self.truncate and transport == "udp":
            answer.flags |= dns.flags.TC
        packed = answer.to_wire()
        return packed[:12] + packed[12:].lower() if self.lower and transport == "udp" else packed


@asynccontextmanager
async def origin(
    handler: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
    address: str = "127.0.0.1",
    port: int = 0,
    **more: Any,
) -> AsyncIterator[int]:
    """A server on the loopback interface; yields its port."""
    server = await asyncio.start_server(handler, address, port, **more)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await server.wait_closed()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send everything back."""
    try:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


async def rest(reader: asyncio.StreamReader) -> bytes:
    """Everything until the end; what came before a reset."""
    got = b""
    async with asyncio.timeout(10):
        try:
            while data := await reader.read(65_536):
                got += data
        except ConnectionError:
            return got + b"<reset>"
    return got
