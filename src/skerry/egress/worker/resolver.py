"""Finding the addresses of names that a connection may go to: a stub resolver of our own.

It asks the configured resolvers only, over UDP from a random port with a random number and random letter
case, and over TCP where an answer is too long or a resolver loses the letter case. It knows no search domains
and reads no host table.
"""

import asyncio
import socket
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address

from skerry.egress.worker.dns_messages import Found, Kind, Outcome, Question, question, read
from skerry.egress.worker.limits import Clock
from skerry.egress.worker.readiness import readable, writable

MAX_RESOLVERS = 3
ROUND_TIMEOUTS_S = (1.0, 2.0)
"""How long each resolver is waited for, in the first round and in the second."""

MAX_CACHED = 2_000
FAILURE_TTL_S = 2
"""For so long a failure is not tried again."""

_MAX_BOGUS = 16
_MAX_UDP_BYTES = 4_096
_DNS_PORT = 53


class ResolveFailed(Exception):
    """No resolver gave an answer."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A resolver."""

    family: socket.AddressFamily
    address: tuple[str, int] | tuple[str, int, int, int]


def endpoints(configured: Sequence[str], resolv_conf: str) -> tuple[Endpoint, ...]:
    """The resolvers to ask.

    Args:
        configured: ``address:port`` each, IPv6 in brackets.
        resolv_conf: Text of resolv.conf(5), for when none is configured.
    Raises:
        ValueError: A configured one is not an address and a port.
    """
    if configured:
        return tuple(_endpoint(*_split(text)) for text in configured)
    words = (line.split() for line in resolv_conf.splitlines())
    found = []
    for name in (parts[1] for parts in words if len(parts) > 1 and parts[0] == "nameserver"):
        try:
            found.append(_endpoint(name, _DNS_PORT))
        except (ValueError, OSError):
            continue  # as the C library does
    # What the C library asks when there is none (resolv.conf(5)).
    return tuple(found[:MAX_RESOLVERS]) or (_endpoint("127.0.0.1", _DNS_PORT),)


class Resolver:
    """Asks, and remembers for as long as the answer says, within `dns_messages`' bounds."""

    def __init__(self, resolvers: Sequence[Endpoint], clock: Clock) -> None:
        self._resolvers = tuple(resolvers)
        self._clock = clock
        self._cache: OrderedDict[tuple[str, Kind], tuple[float, Found | None]] = OrderedDict()
        self._locks: dict[tuple[str, Kind], asyncio.Lock] = {}

    async def resolve(self, name: str, kind: Kind) -> Found:
        """A name's addresses of one kind. The same question is asked once at a time.

        Args:
            name: Canonical.
        Raises:
            ResolveFailed: Nobody answered, or nobody knew.
        """
        key = (name, kind)
        lock = self._locks.setdefault(key, asyncio.Lock())
        try:
            async with lock:
                hit, found = self._cached(key)
                if not hit:
                    found = await self._ask_all(name, kind)
                    self._remember(key, found)
        finally:
            if not lock.locked() and self._locks.get(key) is lock:
                del self._locks[key]
        if found is None:
            raise ResolveFailed
        return found

    def _cached(self, key: tuple[str, Kind]) -> tuple[bool, Found | None]:
        entry = self._cache.get(key)
        if entry is None or entry[0] <= self._clock():
            return False, None
        self._cache.move_to_end(key)
        return True, entry[1]

    def _remember(self, key: tuple[str, Kind], found: Found | None) -> None:
        ttl_s = found.ttl_s if found else FAILURE_TTL_S
        self._cache[key] = (self._clock() + ttl_s, found)
        self._cache.move_to_end(key)
        while len(self._cache) > MAX_CACHED:
            self._cache.popitem(last=False)

    async def _ask_all(self, name: str, kind: Kind) -> Found | None:
        for timeout_s in ROUND_TIMEOUTS_S:
            for resolver in self._resolvers:
                try:
                    async with asyncio.timeout(timeout_s):
                        found = await _ask(resolver, name, kind)
                except (TimeoutError, OSError):
                    continue
                if found is not None:
                    return found
        return None


async def _ask(resolver: Endpoint, name: str, kind: Kind) -> Found | None:
    """Ask one resolver, by UDP and where need be by TCP; None when it cannot say."""
    for edns in (True, False):
        outcome = await _ask_udp(resolver, question(name, kind, edns=edns))
        if outcome in (Outcome.TRUNCATED, Outcome.OTHER_CASE, Outcome.NOT_OURS):
            outcome = await _ask_tcp(resolver, question(name, kind, edns=edns, mixed_case=False))
        if outcome is not Outcome.PLAINER:
            break
    return outcome if isinstance(outcome, Found) else None


async def _ask_udp(resolver: Endpoint, asked: Question) -> Found | Outcome:
    # The kernel picks a random port when it connects, and then drops what comes from elsewhere.
    with socket.socket(resolver.family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
        sock.connect(resolver.address)
        sock.send(asked.wire)
        for _ in range(_MAX_BOGUS):
            await readable(sock)
            outcome = read(sock.recv(_MAX_UDP_BYTES), asked)
            if outcome is not Outcome.NOT_OURS:
                return outcome
    return Outcome.NOT_OURS


async def _ask_tcp(resolver: Endpoint, asked: Question) -> Found | Outcome:
    with socket.socket(resolver.family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as sock:
        try:
            sock.connect(resolver.address)
        except BlockingIOError:
            await writable(sock)
        # Few bytes fit into an empty buffer at once; a connect that failed raises here.
        sock.send(len(asked.wire).to_bytes(2, "big") + asked.wire)
        size = int.from_bytes(await _exactly(sock, 2), "big")
        return read(await _exactly(sock, size), asked)


async def _exactly(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        await readable(sock)
        piece = sock.recv(size - len(data))
        if not piece:
            raise ConnectionResetError("the resolver hung up")
        data += piece
    return data


def _split(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65_536:
        raise ValueError(f"a resolver must be address:port, not {text!r}")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _endpoint(host: str, port: int) -> Endpoint:
    try:
        return Endpoint(socket.AF_INET, (str(IPv4Address(host)), port))
    except AddressValueError:
        address = IPv6Address(host)
    scope = socket.if_nametoindex(address.scope_id) if address.scope_id else 0
    return Endpoint(socket.AF_INET6, (host.partition("%")[0], port, 0, scope))
