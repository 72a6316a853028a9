"""A worker as a process of its own behind real redirection, in the network namespace that this process has to
itself. Prints what was seen as one JSON object. Started by `test_egress_worker`.
"""

import asyncio
import json
import os
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dns.message
import msgspec

from skerry.daemon.preload import EGRESSD, preload
from skerry.egress.ca import make_authority
from skerry.egress.messages import Adopted, FromWorker, Line, Lines, Rules, Secret, Stop, Written
from skerry.egress.worker.process import run
from skerry.policy.document import AllowRule, SecretRule
from skerry.spec.settings import EgressSettings
from tests.harness.origins.certificates import TestAuthority
from tests.harness.waiting import until
from tests.unit.egress.worker.parts import LOOPBACK, SANDBOX, NameServer, allow, rules

LISTENER_PORT, DNS_PORT = 20_000, 1053
VALUE = b"sk-the-real-value-0123456789abcdef"
PLACEHOLDER = "DENO_SECRET_PLACEHOLDER_" + "ab" * 32

_NAT = """
table ip skerry_test {
  chain output {
    type nat hook output priority -100; policy accept;
    ip daddr 198.18.0.0/15 ip protocol tcp redirect to :20000
    ip daddr 198.18.0.0/15 udp dport 53 redirect to :1053
  }
}
"""


@dataclass
class Broker:
    """The other end of the worker's control socket."""

    control: socket.socket
    lines: list[dict[str, Any]] = field(default_factory=list)
    adopted: list[int] = field(default_factory=list)
    used: dict[str, int] = field(default_factory=dict)

    async def hear(self) -> None:
        """Listen until the worker hangs up."""
        decode = msgspec.msgpack.Decoder(FromWorker).decode
        while data := await asyncio.get_running_loop().sock_recv(self.control, 1 << 20):
            match decode(data):
                case Line() as line:
                    self.write(line)
                case Lines(lines=lines):
                    for line in lines:
                        self.write(line)
                case Adopted(version=version):
                    self.adopted.append(version)
                case other:
                    self.used.update(getattr(other, "counts", {}))

    def write(self, line: Line) -> None:
        """Take an audit line."""
        self.lines.append(json.loads(line.text))
        if line.confirm:
            self.tell(Written(line.seq))

    def tell(self, message: Rules | Written | Stop) -> None:
        """Say something."""
        self.control.send(msgspec.msgpack.encode(message))


def redirect() -> None:
    """Have this namespace's loopback interface do what the gateway's does."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    subprocess.run(["ip", "route", "add", "local", "198.18.0.0/15", "dev", "lo"], check=True)
    subprocess.run(["nft", "-f", "-"], input=_NAT.encode(), check=True)


def start_worker() -> tuple[int, socket.socket]:
    """Fork a worker; its process number and our end of its control socket."""
    listener = socket.create_server(("127.0.0.1", LISTENER_PORT), backlog=128)
    packets = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    packets.bind(("127.0.0.1", DNS_PORT))
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    began = time.monotonic()
    pid = os.fork()
    if pid == 0:
        status = 70
        try:
            ours.close()
            status = run(theirs.detach(), listener.detach(), packets.detach())
        finally:
            os._exit(status)
    for sock in (listener, packets, theirs):
        sock.close()
    ours.setblocking(False)
    print(f"forked in {time.monotonic() - began:.4f} s", file=sys.stderr)
    return pid, ours


async def answer_requests(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer each request with its own head."""
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(head) + head)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
        writer.close()


@asynccontextmanager
async def tls_origin(authority: TestAuthority, directory: Path, name: str) -> AsyncIterator[int]:
    """An HTTPS server with a certificate for one name."""
    pem = directory / f"{name}.pem"
    pem.write_bytes(authority.leaf(name))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    server = await asyncio.start_server(answer_requests, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def look_up(name: str) -> str:
    """Ask the name server that guests have."""
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.connect(("198.18.0.1", 53))
        await loop.sock_sendall(sock, dns.message.make_query(name, "A").to_wire())
        async with asyncio.timeout(5):
            answer = dns.message.from_wire(await loop.sock_recv(sock, 512))
    return str(next(iter(answer.answer[0])).address)


async def request(name: str, port: int, roots: str | None, head: str) -> tuple[str, str]:
    """Make one request as a program in the sandbox does.

    Returns:
        Who issued the certificate, and the whole answer.
    """
    context = None if roots is None else ssl.create_default_context(cadata=roots)
    host = name if name[0].isdigit() else await look_up(name)
    reader, writer = await asyncio.open_connection(
        host, port, ssl=context, server_hostname=name if context else None
    )
    writer.write(head.encode())
    async with asyncio.timeout(10):
        answer = await reader.read(65_536)
    certificate = writer.get_extra_info("peercert") or {}
    issuer = dict(part[0] for part in certificate.get("issuer", ()))
    writer.close()
    return issuer.get("commonName", ""), answer.decode()


def first_rules(resolver: str, roots: Path, spliced: int, inspected: int) -> tuple[Rules, str]:
    """Rules for two names, and the certificate that the sandbox trusts."""
    base = rules(allow("spliced.test", spliced), AllowRule(host="bound.test", ports=(inspected,)))
    authority = make_authority(SANDBOX, ["bound.test"], time.time_ns() // 1_000_000)
    secret = Secret(rule=SecretRule(name="KEY", hosts=("bound.test",)), placeholder=PLACEHOLDER, value=VALUE)
    settings = EgressSettings(resolvers=(resolver,), extra_roots=(str(roots),), internal=(LOOPBACK,))
    changed = {"authority": authority, "secrets": (secret,), "settings": settings}
    return msgspec.structs.replace(base, **changed), authority.certificate_pem


async def observe(pid: int, control: socket.socket, directory: Path) -> dict[str, Any]:
    """Use the worker, and say what was seen."""
    seen: dict[str, Any] = {}
    records = {name: ["127.0.0.1"] for name in ("spliced.test", "bound.test")}
    authority = TestAuthority.make()
    roots = directory / "roots.pem"
    roots.write_bytes(authority.certificate_pem)
    async with AsyncExitStack() as stack:
        names = await stack.enter_async_context(NameServer(records).run())
        spliced = await stack.enter_async_context(tls_origin(authority, directory, "spliced.test"))
        inspected = await stack.enter_async_context(tls_origin(authority, directory, "bound.test"))
        group = await stack.enter_async_context(asyncio.TaskGroup())
        broker = Broker(control)
        group.create_task(broker.hear())
        told, own_root = first_rules(names.address, roots, spliced, inspected)
        broker.tell(told)
        await until(lambda: broker.adopted)
        seen["spliced"] = await request(
            "spliced.test",
            spliced,
            authority.certificate_pem.decode(),
            "GET /a HTTP/1.1\r\nHost: spliced.test\r\n\r\n",
        )
        seen["inspected"] = await request(
            "bound.test",
            inspected,
            own_root,
            f"GET /b HTTP/1.1\r\nHost: bound.test:{inspected}\r\nAuthorization: Bearer {PLACEHOLDER}\r\n\r\n",
        )
        seen["denied"] = await request("198.18.0.1", 80, None, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        seen["status"] = Path(f"/proc/{pid}/status").read_text()  # noqa: ASYNC240
        seen["descriptors"] = len(os.listdir(f"/proc/{pid}/fd"))
        await until(lambda: broker.used, what="the count of uses")
        broker.tell(Stop())
    seen["used"] = broker.used
    seen["lines"] = broker.lines
    return seen


def main() -> None:
    """Do everything."""
    preload(EGRESSD)  # as the zygote does
    redirect()
    pid, control = start_worker()
    with tempfile.TemporaryDirectory() as directory, control:
        seen = asyncio.run(observe(pid, control, Path(directory)))
    seen["exit"] = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    print(json.dumps(seen))


if __name__ == "__main__":
    main()
