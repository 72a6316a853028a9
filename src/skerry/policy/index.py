"""Find what rules say about one host without going through all of them. Pure."""

from ipaddress import IPv4Address, IPv6Address
from typing import Generic, TypeVar

from skerry.policy.endpoints import Network
from skerry.policy.names import Pattern, fits_wildcard

T = TypeVar("T")


class HostIndex(Generic[T]):
    """Things by host pattern. Asking costs one look-up per label of a name, or per prefix length in use."""

    __slots__ = ("_below", "_exact", "_networks")

    def __init__(self) -> None:
        self._exact: dict[str, list[T]] = {}
        self._below: dict[str, list[T]] = {}
        self._networks: dict[tuple[int, int], dict[int, list[T]]] = {}

    def add(self, host: Pattern | Network, thing: T, *, with_apex: bool = False) -> None:
        """Put a thing under a host.

        Args:
            with_apex: A wildcard has the name itself too, and names of any length (for denials).
        """
        if not isinstance(host, Pattern):
            shift = host.max_prefixlen - host.prefixlen
            table = self._networks.setdefault((host.version, shift), {})
            table.setdefault(int(host.network_address) >> shift, []).append(thing)
        elif host.wildcard:
            self._below.setdefault(host.name, []).append(thing)
            if with_apex:
                self._exact.setdefault(host.name, []).append(thing)
        else:
            self._exact.setdefault(host.name, []).append(thing)

    def of_name(self, name: str, *, any_length: bool = False) -> list[T]:
        """What is said about a canonical name, the most specific first.

        Args:
            any_length: Wildcards stand for long labels too (for denials).
        """
        found = list(self._exact.get(name, ()))
        if self._below:
            at = name.find(".")
            while at >= 0:
                base = name[at + 1 :]
                things = self._below.get(base)
                if things is not None and (any_length or fits_wildcard(name, base)):
                    found += things
                at = name.find(".", at + 1)
        return found

    def of_address(self, address: IPv4Address | IPv6Address) -> list[T]:
        """What is said about an address, the longest prefix first."""
        found: list[T] = []
        number = int(address)
        for (version, shift), table in sorted(self._networks.items()):
            if version == address.version:
                found += table.get(number >> shift, ())
        return found

    def of(self, host: str | IPv4Address | IPv6Address, *, any_length: bool = False) -> list[T]:
        """What is said about a host of either kind."""
        return self.of_name(host, any_length=any_length) if isinstance(host, str) else self.of_address(host)

    def patterns_are_exact(self) -> bool:
        """Whether no wildcard is in it."""
        return not self._below

    def names(self) -> list[str]:
        """All exact names."""
        return list(self._exact)
