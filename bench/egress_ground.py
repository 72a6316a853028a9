"""Where the outbound gateway is measured: sandboxes at a gateway's real network, an origin, a resolver.

Each thing that is measured gets a sandbox of its own: a network namespace in which the clients run, and the
sockets at the gateway where all their connections arrive, whatever they were made to. So packets take the
same way to Skerry's worker as to what it is compared with, which inherits these sockets.
"""

import asyncio
import os
import secrets
import shutil
import socket
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import dns.message
import dns.rdatatype
import dns.rrset

from skerry.hostd.network import gateway_rules
from skerry.hostd.network.sandbox_networks import SandboxNetworks
from skerry.hostd.places import Places
from skerry.hostd.sys import network_namespace
from skerry.spec.ids import SandboxId, new_instance_id, new_sandbox_id
from tests.harness.origins.certificates import TestAuthority

SPLICED, INSPECTED, BOUND = "spliced.bench.test", "inspected.bench.test", "bound.bench.test"
"""Passed unread; looked at, without a secret; looked at, with one."""

VALUE = "sk-the-real-value-0123456789abcdef"
PLACEHOLDER = "DENO_SECRET_PLACEHOLDER_" + "ab" * 32
AUTHORIZATION = f"Bearer {VALUE}"

SMALL, LARGE, EVENTS = "/small.json", "/large.bin", "/events"
SMALL_BYTES = 1024
EVENT_PAUSE_S = 0.02

MAX_CONNECTIONS = 600
"""Of one sandbox, instead of what the settings allow."""

_MANY = 1_000_000

_READY_WITHIN_S = 60.0
_ENDED_WITHIN_S = 5.0


@dataclass(frozen=True, slots=True)
class Cores:
    """Who runs where: the proxies have a core for themselves if there are two."""

    load: frozenset[int]
    proxy: frozenset[int]

    @classmethod
    def of_this_machine(cls) -> "Cores":
        """The last core for the proxies, the others for everything else."""
        found = sorted(os.sched_getaffinity(0))
        return cls(frozenset(found[:-1] or found), frozenset(found[-1:]))


@dataclass(frozen=True, slots=True)
class Seat:
    """One sandbox's place at the gateway.

    Attributes:
        pin: The file that holds the namespace for its clients.
        tcp, udp: What arrives from there.
    """

    sandbox_id: SandboxId
    pin: Path
    tcp: socket.socket
    udp: socket.socket

    @property
    def listens_at(self) -> str:
        """Where, for those who need to name it; clients connect to anywhere."""
        host, port = self.tcp.getsockname()
        return f"{host}:{port}"


@dataclass(frozen=True, slots=True)
class Ground:
    """Everything but the proxies.

    Attributes:
        roots: Of the origin's certificate, in a file.
        certificate: Of the origin, with its key, in a file: those who inspect without making certificates of
            their own show it too.
        port: The origin's.
        status_port: Where the origin says how many requests it has had.
        resolver: As settings have it.
    """

    directory: Path
    cores: Cores
    networks: SandboxNetworks
    places: Places
    roots: Path
    certificate: Path
    port: int
    status_port: int
    resolver: str
    events_port: int

    @asynccontextmanager
    async def seat(self) -> AsyncIterator[Seat]:
        """One more sandbox."""
        sandbox_id = new_sandbox_id("ord", secrets.randbelow)
        await self.networks.make(sandbox_id)
        try:
            found = await self.networks.sockets(sandbox_id)
            yield Seat(sandbox_id, self.places.network(sandbox_id), found.tcp, found.udp)
        finally:
            await self.networks.remove(sandbox_id)

    async def origin_requests(self) -> int:
        """How many requests the origin has had, this one included."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.status_port)
        writer.write(b"GET /status HTTP/1.0\r\n\r\n")
        lines = (await reader.read()).decode().splitlines()
        writer.close()
        heading = next(index for index, line in enumerate(lines) if line.startswith("server accepts"))
        return int(lines[heading + 1].split()[2])


@dataclass(frozen=True, slots=True)
class Files:
    """What exists before any process does."""

    directory: Path
    roots: Path
    certificate: Path


@contextmanager
def files() -> Iterator[Files]:
    """A directory with the origin's certificate and what it serves."""
    directory = Path(tempfile.mkdtemp(prefix="skerry-bench-egress-"))
    try:
        directory.chmod(0o755)
        authority = TestAuthority.make("Skerry benchmark roots")
        (directory / "roots.pem").write_bytes(authority.certificate_pem)
        (directory / "origin.pem").write_bytes(authority.leaf(SPLICED, INSPECTED, BOUND))
        yield Files(directory, directory / "roots.pem", directory / "origin.pem")
    finally:
        shutil.rmtree(directory)


@asynccontextmanager
async def ground(prepared: Files, cores: Cores, *, large_bytes: int) -> AsyncIterator[Ground]:
    """Set it all up.

    The process must be in a mount namespace of its own.
    """
    directory = prepared.directory
    (directory / "www").mkdir()
    (directory / "www" / SMALL[1:]).write_text('{"x":"' + "a" * (SMALL_BYTES - 8) + '"}')
    with (directory / "www" / LARGE[1:]).open("wb") as large:
        large.truncate(large_bytes)
    places = Places(directory / "gateway", new_instance_id(secrets.randbelow))
    places.path.mkdir()
    places.make()
    # The loads make more new connections than a sandbox may.
    with (
        patch.object(gateway_rules, "MAX_NEW_PER_S", _MANY),
        patch.object(gateway_rules, "MAX_NEW_BURST", _MANY),
    ):
        networks = await SandboxNetworks.opened(places, max_connections=MAX_CONNECTIONS)
    try:
        async with AsyncExitStack() as stack:
            resolver = await stack.enter_async_context(_resolver())
            events_port = await stack.enter_async_context(_events())
            yield Ground(
                directory=directory,
                cores=cores,
                networks=networks,
                places=places,
                roots=prepared.roots,
                certificate=prepared.certificate,
                port=_free_port(),
                status_port=_free_port(),
                resolver=resolver,
                events_port=events_port,
            )
    finally:
        await networks.close(keep=False)
        network_namespace.remove(places.gateway)
        places.remove()


@asynccontextmanager
async def origin(around: Ground, seat: Seat) -> AsyncIterator[int]:
    """nginx as the origin, which the clients of one sandbox reach without any proxy; its process number.

    It answers only requests that carry the secret's real value, so that none is counted without it.
    """
    config = f"""
        http {{
            {HTTP_BASE}
            ssl_certificate {around.certificate};
            ssl_certificate_key {around.certificate};
            types {{ application/json json; application/octet-stream bin; }}
            open_file_cache max=16;
            map $http_authorization $genuine {{ default 0; "{AUTHORIZATION}" 1; }}
            server {{
                listen 127.0.0.1:{around.port} ssl backlog=2048;
                listen {seat.listens_at} ssl;
                root {around.directory}/www;
                location = {SMALL} {{ if ($genuine = 0) {{ return 403; }} }}
                location = {EVENTS} {{
                    proxy_pass http://127.0.0.1:{around.events_port};
                    proxy_http_version 1.1;
                    proxy_buffering off;
                }}
            }}
            server {{
                listen 127.0.0.1:{around.status_port};
                location = /status {{ stub_status; }}
            }}
        }}
    """
    async with nginx("origin", around, config, seat, around.cores.load) as pid:
        yield pid


HTTP_BASE = """
    access_log off;
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi; scgi_temp_path scgi;
    keepalive_requests 1000000000; keepalive_timeout 600s;
    map_hash_bucket_size 256;
    ssl_protocols TLSv1.2 TLSv1.3; ssl_session_tickets off; ssl_session_cache off;
"""


@asynccontextmanager
async def nginx(
    name: str, around: Ground, config: str, seat: Seat, cores: frozenset[int]
) -> AsyncIterator[int]:
    """An nginx that inherits a sandbox's listener; the process number of its one worker.

    Source: nginx, src/core/nginx.c: the variable NGINX names sockets that an earlier process has opened.
    """
    directory = around.directory / name
    directory.mkdir()
    (directory / "nginx.conf").write_text(
        f"daemon off; worker_processes 1; pid {directory}/pid; error_log {directory}/errors warn;\n"
        f"{_STREAM_MODULE if 'stream {' in config else ''}"
        f"events {{ worker_connections 8192; }}\n{config}"
    )
    descriptor = seat.tcp.fileno()
    command = ["nginx", "-p", str(directory), "-e", f"{directory}/errors", "-c", f"{directory}/nginx.conf"]
    async with process(
        command, cores, descriptors=(descriptor,), environment={"NGINX": f"{descriptor};"}
    ) as pid:
        await until(lambda: _children(pid), "nginx did not start")
        yield _children(pid)[0]


_STREAM_MODULE = "load_module /usr/lib/nginx/modules/ngx_stream_module.so;\n"


@asynccontextmanager
async def process(
    command: list[str],
    cores: frozenset[int],
    *,
    descriptors: tuple[int, ...] = (),
    environment: Mapping[str, str],
) -> AsyncIterator[int]:
    """A process on these cores, ended afterwards; its number."""
    started = await asyncio.create_subprocess_exec(
        "taskset", "--cpu-list", ",".join(map(str, cores)), *command,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL,
        pass_fds=descriptors, env={**os.environ, **environment},
    )  # fmt: skip
    try:
        yield started.pid
    finally:
        with suppress(ProcessLookupError):
            started.terminate()
        try:
            async with asyncio.timeout(_ENDED_WITHIN_S):
                await started.wait()
        except TimeoutError:
            started.kill()
            await started.wait()


def _children(pid: int) -> list[int]:
    return [int(text) for text in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


async def until(condition: Callable[[], object], what: str) -> None:
    """Wait until a condition holds.

    Raises:
        TimeoutError: It does not.
    """
    deadline = time.monotonic() + _READY_WITHIN_S
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} within {_READY_WITHIN_S:g} s")
        await asyncio.sleep(0.02)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@asynccontextmanager
async def _resolver() -> AsyncIterator[str]:
    """A name server by which all names are on the loopback interface."""
    packets = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    packets.setblocking(False)
    packets.bind(("127.0.0.1", 0))

    def answer() -> None:
        wire, sender = packets.recvfrom(4096)
        query = dns.message.from_wire(wire)
        question = query.question[0]
        found = dns.message.make_response(query)
        if question.rdtype == dns.rdatatype.A:
            found.answer.append(dns.rrset.from_text(question.name, 300, "IN", "A", "127.0.0.1"))
        packets.sendto(found.to_wire(), sender)

    loop = asyncio.get_running_loop()
    loop.add_reader(packets, answer)
    try:
        yield f"127.0.0.1:{packets.getsockname()[1]}"
    finally:
        loop.remove_reader(packets)
        packets.close()


@asynccontextmanager
async def _events() -> AsyncIterator[int]:
    """A server of events that each say when they were sent, by the monotonic clock; its port."""

    async def send(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
        try:
            while not writer.is_closing():
                writer.write(b"data: %d\n\n" % time.monotonic_ns())
                await writer.drain()
                await asyncio.sleep(EVENT_PAUSE_S)
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(send, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
