"""A client in a sandbox's network: ``python -m bench.egress_client``, with what it is to do as one JSON
object in the first line of its standard input; prints what it measured as another.
"""

import json
import socket
import ssl
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import dns.message

_NAME_SERVER = ("198.18.0.1", 53)
_WAIT_S = 30.0
_READ_BYTES = 262_144


@dataclass(frozen=True, slots=True)
class _Target:
    """Where to, and with what.

    Attributes:
        roots: A file with the only authorities that the client trusts.
    """

    host: str
    address: str
    port: int
    roots: str
    path: str
    authorization: str

    def connect(self) -> ssl.SSLSocket:
        """A new connection, after its handshake."""
        context = ssl.create_default_context(cafile=self.roots)
        plain = socket.create_connection((self.address, self.port), timeout=_WAIT_S)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return context.wrap_socket(plain, server_hostname=self.host)

    def ask(self, sock: ssl.SSLSocket) -> bytes:
        """Send the request; returns what has come of the body together with the answer's head."""
        sock.sendall(
            f"GET {self.path} HTTP/1.1\r\nHost: {self.host}:{self.port}\r\n"
            f"Authorization: {self.authorization}\r\n\r\n".encode()
        )
        answer = b""
        while b"\r\n\r\n" not in answer:
            piece = sock.recv(65_536)
            if not piece:
                raise ConnectionError("the connection ended before the answer's head")
            answer += piece
        head, _, body = answer.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200 "):
            raise ConnectionError(f"unexpected answer: {answer[:300]!r}")
        return body


def resolve(name: str) -> str:
    """The address by which the gateway knows a name."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(_WAIT_S)
        sock.connect(_NAME_SERVER)
        sock.send(dns.message.make_query(name, "A").to_wire())
        answer = dns.message.from_wire(sock.recv(4096))
    return str(next(iter(answer.answer[0])).address)


def check(target: _Target) -> str:
    """One request; returns who issued the certificate."""
    with target.connect() as sock:
        target.ask(sock)
        found: Any = sock.getpeercert()
    return str(dict(part[0] for part in found["issuer"])["commonName"])


def bulk(target: _Target, size: int) -> float:
    """Read a large body; MB/s."""
    buffer = bytearray(_READ_BYTES)
    with target.connect() as sock:
        started = time.perf_counter()
        got = len(target.ask(sock))
        while got < size:
            piece = sock.recv_into(buffer)
            if not piece:
                raise ConnectionError(f"the body ended after {got} bytes")
            got += piece
        return got / (time.perf_counter() - started) / 1e6


def events(target: _Target, count: int) -> list[float]:
    """How late each event came, in ms."""
    late: list[float] = []
    with target.connect() as sock:
        rest = target.ask(sock)
        while len(late) < count:
            piece = sock.recv(65_536)
            now = time.monotonic_ns()
            if not piece:
                raise ConnectionError("the events ended")
            *lines, rest = (rest + piece).split(b"\n")
            late += [(now - int(line[6:])) / 1e6 for line in lines if line.startswith(b"data: ")]
    return late[1:]  # the first comes with the head


def idle(target: _Target, count: int, say: Callable[[Any], None]) -> None:
    """Open connections, make one request on each, and keep them until the standard input ends."""
    kept = []
    for _ in range(count):
        sock = target.connect()
        target.ask(sock)
        kept.append(sock)
    say(len(kept))
    sys.stdin.read()


def main() -> None:
    """Do what the first line says."""

    def say(found: Any) -> None:
        print(json.dumps(found), flush=True)

    asked: dict[str, Any] = json.loads(sys.stdin.readline())
    what = asked.pop("what")
    count = asked.pop("count", 0)
    if what == "resolve":
        say(resolve(asked["host"]))
        return
    target = _Target(**asked)
    match what:
        case "check":
            say(check(target))
        case "bulk":
            say(bulk(target, count))
        case "events":
            say(events(target, count))
        case "idle":
            idle(target, count, say)
        case _:
            raise SystemExit(f"unknown measurement {what!r}")


if __name__ == "__main__":
    main()
