"""Connecting to where a flow may go: only to addresses that the policy lets through.

IPv4 first, since that is what most names have; IPv6 where there is nothing else or it does not answer. What
is connected is checked again.
"""

import asyncio
import socket
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Protocol

from skerry.egress.worker.connecting import Address, Unreachable, connect_first
from skerry.egress.worker.dns_messages import Kind
from skerry.egress.worker.limits import Limits
from skerry.egress.worker.resolver import ResolveFailed, Resolver
from skerry.egress.worker.upstream_proxy import ProxyRefused, open_tunnel
from skerry.policy.compiled import Policy
from skerry.policy.verdict import Reason, Verdict
from skerry.spec.settings import InternalNetwork

LOOK_UP_BEHIND_PROXY_S = 1.0


@dataclass(frozen=True, slots=True)
class Dialled:
    """A connection to an origin.

    Attributes:
        sock: Connected, non-blocking, without delay of small segments; the caller owns it.
        address: None when an upstream proxy resolves the name.
        text: The address and port, or the proxy, for people.
    """

    sock: socket.socket
    address: Address | None
    text: str


class DialFailed(Exception):
    """No connection.

    Args:
        reason: What the sandbox and the audit trail are told.
    """

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.value)
        self.reason = reason


class Dialler(Protocol):
    """Connects to origins."""

    async def dial(self, host: str | Address, port: int, verdict: Verdict) -> Dialled:
        """Connect.

        Args:
            host: A canonical name or an address.
            verdict: What was decided about it.
        Raises:
            DialFailed: Not within the limit, not at all, or nothing of what the name resolves to is allowed.
        """
        ...


class DirectDialler:
    """Connects to origins itself.

    Args:
        policy: Asked for the present policy.
    """

    def __init__(
        self,
        resolver: Resolver,
        limits: Limits,
        internal: tuple[InternalNetwork, ...],
        *,
        policy: Callable[[], Policy],
    ) -> None:
        self._resolver = resolver
        self._limits = limits
        self._policy = policy
        self._internal = [ip_network(cidr) for network in internal for cidr in network.cidr]

    async def dial(self, host: str | Address, port: int, verdict: Verdict) -> Dialled:
        """See `Dialler.dial`."""
        if isinstance(host, str):
            self._bound_names(host, verdict)
        try:
            async with asyncio.timeout(self._limits.settings.dial_s):
                sock, address = await connect_first(self._candidates(host, port), port)
        except TimeoutError:
            self._limits.hit("dial_s")
            raise DialFailed(Reason.UPSTREAM_UNREACHABLE) from None
        except Unreachable:
            raise DialFailed(Reason.UPSTREAM_UNREACHABLE) from None
        self._check_again(sock, host, port, address)
        return Dialled(sock, address, _text(address, port))

    def _bound_names(self, name: str, verdict: Verdict) -> None:
        """Let whoever has a zone not learn much from the names below it that are looked up (R9)."""
        if not verdict.exact and not self._limits.wildcard_names.admit(verdict.rule, name):
            self._limits.hit("wildcard_names_per_min")
            raise DialFailed(Reason.LIMIT_REACHED)

    async def _candidates(self, host: str | Address, port: int) -> AsyncGenerator[Address, None]:
        """Addresses to try, in this order; only allowed ones.

        Raises:
            DialFailed: There is none at all.
        """
        if not isinstance(host, str):
            if (reason := self._policy().may_dial(host, host, port)) is not None:
                raise DialFailed(reason)
            yield host
            return
        refused: Reason | None = None
        some = False
        for kind in Kind:
            try:
                found = await self._resolver.resolve(host, kind)
            except ResolveFailed:
                break
            for address in found.addresses:
                reason = self._policy().may_dial(host, address, port)
                if reason is None:
                    some = True
                    yield address
                refused = refused or reason
            if not found.exists:
                break
        if not some:
            raise DialFailed(refused or Reason.NAME_NOT_FOUND)

    def _check_again(self, sock: socket.socket, host: str | Address, port: int, address: Address) -> None:
        """What is connected is what was asked for, is still allowed, and is not this machine itself.

        Raises:
            DialFailed: It is not; the socket is closed.
        """
        try:
            peer = ip_address(sock.getpeername()[0].partition("%")[0])
            own = ip_address(sock.getsockname()[0].partition("%")[0])
        except OSError:
            sock.close()
            raise DialFailed(Reason.UPSTREAM_UNREACHABLE) from None
        reason = self._policy().may_dial(host, peer, port)
        if peer != address:
            reason = Reason.ADDRESS_NOT_ALLOWED
        elif peer == own and not self._is_internal(peer):
            # The kernel goes from an address to itself only on its own machine.
            reason = Reason.SELF
        if reason is not None:
            sock.close()
            raise DialFailed(reason)

    def _is_internal(self, address: Address) -> bool:
        return any(address in network for network in self._internal)


class ProxiedDialler:
    """Connects to origins through a proxy of the operator's.

    Names are resolved by the proxy, which may know more than the resolvers here; what these know is checked
    first, and one address that is not allowed is enough to refuse. What the proxy connects to in the end is
    its own affair.

    Args:
        proxy: ``host:port``.
    """

    def __init__(
        self, proxy: str, resolver: Resolver, limits: Limits, *, policy: Callable[[], Policy]
    ) -> None:
        host, _, port = proxy.rpartition(":")
        self._proxy = proxy
        self._host = host.removeprefix("[").removesuffix("]")
        self._port = int(port)
        self._resolver = resolver
        self._limits = limits
        self._policy = policy

    async def dial(self, host: str | Address, port: int, verdict: Verdict) -> Dialled:
        """See `Dialler.dial`."""
        await self._check(host, port)
        try:
            async with asyncio.timeout(self._limits.settings.dial_s):
                sock, _ = await connect_first(self._proxy_addresses(), self._port)
                await open_tunnel(sock, _authority(host, port))
        except TimeoutError:
            self._limits.hit("dial_s")
            raise DialFailed(Reason.UPSTREAM_UNREACHABLE) from None
        except (Unreachable, ProxyRefused):
            raise DialFailed(Reason.UPSTREAM_UNREACHABLE) from None
        known = None if isinstance(host, str) else host
        return Dialled(sock, known, f"proxy {self._proxy}")

    async def _check(self, host: str | Address, port: int) -> None:
        policy = self._policy()
        if not isinstance(host, str):
            if (reason := policy.may_dial(host, host, port)) is not None:
                raise DialFailed(reason)
            return
        with suppress(TimeoutError, ResolveFailed):
            async with asyncio.timeout(LOOK_UP_BEHIND_PROXY_S):
                for kind in Kind:
                    for address in (await self._resolver.resolve(host, kind)).addresses:
                        if (reason := self._policy().may_dial(host, address, port)) is not None:
                            raise DialFailed(reason)

    async def _proxy_addresses(self) -> AsyncGenerator[Address, None]:
        try:
            yield ip_address(self._host)
            return
        except ValueError:
            pass
        for kind in Kind:
            try:
                found = await self._resolver.resolve(self._host, kind)
            except ResolveFailed:
                continue
            for address in found.addresses:
                yield address


def _text(address: Address, port: int) -> str:
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"


def _authority(host: str | Address, port: int) -> str:
    return f"{host}:{port}" if isinstance(host, str) else _text(host, port)
