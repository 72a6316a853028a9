"""What belongs to Skerry or to the host itself, which no sandbox may reach (R11, R12)."""

import ipaddress
import re
from pathlib import Path

from skerry.egress.messages import OwnPlaces
from skerry.policy.compiled import Own

FIB = Path("/proc/net/fib_trie")
IF_INET6 = Path("/proc/net/if_inet6")

_LOCAL = re.compile(r"\|-- ([0-9.]+)\n\s+/32 host LOCAL", re.ASCII)


def own_of(places: OwnPlaces) -> Own:
    """The same as `Policy` takes it."""
    return Own(
        names=places.names,
        addresses=frozenset(map(ipaddress.ip_address, places.addresses)),
        listeners=frozenset(map(_listener, places.listeners)),
    )


def own_places(names: tuple[str, ...], listen: str) -> OwnPlaces:
    """What it is now: the host's addresses may change.

    Args:
        names: By which clients reach the API.
        listen: ``address:port`` of the API.
    """
    addresses = host_addresses()
    address, port = _listener(listen)
    where = addresses if address.is_unspecified else (str(address),)
    listeners = tuple(f"[{one}]:{port}" if ":" in one else f"{one}:{port}" for one in where) if port else ()
    return OwnPlaces(names=names, addresses=addresses, listeners=listeners)


def host_addresses(fib: Path = FIB, if_inet6: Path = IF_INET6) -> tuple[str, ...]:
    """Every address of this network namespace, sorted; of those that cannot be read, none.

    Source: fib_trie and if_inet6 in proc(5); link-local addresses included.
    """
    found = set(_LOCAL.findall(_text(fib)))
    for line in _text(if_inet6).splitlines():
        digits = line.split(" ", 1)[0]
        if re.fullmatch(r"[0-9a-f]{32}", digits, re.ASCII):
            found.add(str(ipaddress.IPv6Address(int(digits, 16))))
    return tuple(sorted(found))


def _listener(text: str) -> tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, int]:
    host, _, port = text.rpartition(":")
    return ipaddress.ip_address(host.removeprefix("[").removesuffix("]")), int(port)


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
