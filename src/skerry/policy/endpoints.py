"""Hosts with an optional port, as `allow_net` and the hosts of secrets have them, and hosts of rules. Pure.

``example.com``, ``example.com:443``, ``*.example.com``, ``203.0.113.110:8080``, ``[2001:db8::1]:80``; in
rules also prefixes such as ``203.0.113.0/24``.
"""

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

from skerry.policy.names import BadPattern, Pattern, pattern, stored_pattern
from skerry.spec.limits import MAX_PORT

Network = IPv4Network | IPv6Network

_PORT = re.compile(r"[1-9][0-9]{0,4}", re.ASCII)
_DOTTED_NUMBERS = re.compile(r"[0-9.]+", re.ASCII)
_LONGEST = 300


def rule_host(text: str, *, public_suffixes: bool = True) -> Pattern | Network:
    """The host of a rule as somebody wrote it.

    Raises:
        BadPattern: It is no name, wildcard, address or prefix.
    """
    if len(text) > _LONGEST:
        raise BadPattern("too long for a host name")
    if "/" in text or _is_numeric(text):
        return _network(text)
    if text[:1].isspace() or text[-1:].isspace():
        raise BadPattern("there is white space around it")
    if "@" in text or ":" in text or "//" in text:
        raise BadPattern("write the host alone, without scheme, user, port or path")
    return pattern(text, public_suffixes=public_suffixes)


def stored_host(text: str) -> Pattern | Network:
    """The host of a rule that was checked before.

    Raises:
        BadPattern: It is not in the stored form.
    """
    if "/" in text or ":" in text:
        return _network(text)
    return _network(text) if _is_numeric(text) else stored_pattern(text)


def text_of(host: Pattern | Network) -> str:
    """As a rule's host is stored: an address without its prefix length."""
    if isinstance(host, Pattern):
        return host.text
    return str(host.network_address) if host.prefixlen == host.max_prefixlen else str(host)


def endpoint(text: str, *, stored: bool = False) -> tuple[Pattern | Network, int | None]:
    """A host and the port after it, as Deno's fields have them.

    Args:
        stored: It was checked before: neither IDNA nor the public suffix list is asked.

    Raises:
        BadPattern: With what is wrong and what to write instead.
    """
    if len(text) > _LONGEST:
        raise BadPattern("too long for a host name")
    if "/" in text or "@" in text:
        raise BadPattern("write a host name or an address, without a scheme, user, path or prefix length")
    if text.startswith("["):
        inner, closed, rest = text[1:].partition("]")
        if not closed or ":" not in inner:
            raise BadPattern("an IPv6 address must stand in brackets, such as [2001:db8::1]")
        return _network(inner), _port(rest) if rest else None
    host, colon, rest = text.partition(":")
    if ":" in rest:
        raise BadPattern("an IPv6 address must stand in brackets, such as [2001:db8::1]")
    port = _port(colon + rest) if colon else None
    return (stored_host(host) if stored else rule_host(host)), port


def endpoint_text(host: Pattern | Network, port: int | None) -> str:
    """The inverse of `endpoint`, in the stored form."""
    text = text_of(host)
    front = f"[{text}]" if ":" in text else text
    return front if port is None else f"{front}:{port}"


def literal(host: str) -> IPv4Address | IPv6Address | None:
    """The address that a stored host is; None for a name or a prefix."""
    try:
        return IPv6Address(host) if ":" in host else IPv4Address(host)
    except ValueError:
        return None


def _is_numeric(text: str) -> bool:
    return _DOTTED_NUMBERS.fullmatch(text) is not None or text.count(":") > 1


def _network(text: str) -> Network:
    try:
        if "%" not in text:
            return ip_network(text)
    except ValueError:
        pass
    if "://" in text:
        raise BadPattern("write the host alone, without scheme, user, port or path")
    if "/" in text:
        raise BadPattern("not a prefix: write its first address and its length, such as 203.0.113.0/24")
    raise BadPattern("not an IPv6 address" if ":" in text else "not an IPv4 address")


def _port(text: str) -> int:
    if not text.startswith(":") or not _PORT.fullmatch(text[1:]) or int(text[1:]) > MAX_PORT:
        raise BadPattern(f"the port must be a number from 1 to {MAX_PORT}")
    return int(text[1:])
