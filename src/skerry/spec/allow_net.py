"""The grammar of outbound permissions: host names, wildcards and addresses, each with an optional port.

``example.com``, ``example.com:443``, ``*.example.com``, ``203.0.113.110:8080``, ``[2001:db8::1]:80``.
"""

import ipaddress
import re

from skerry.spec.limits import MAX_HOST_NAME_BYTES, MAX_PORT

_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?", re.ASCII | re.IGNORECASE)
_DOTTED_NUMBERS = re.compile(r"[0-9.]+", re.ASCII)
_PORT = re.compile(r"[0-9]{1,5}", re.ASCII)


def problem_of_pattern(pattern: str) -> str | None:
    """What is wrong with a pattern, in words; None when it is good."""
    if "/" in pattern:
        return "write a host name or an address, without a scheme, path or prefix length"
    if pattern.startswith("["):
        address, closed, rest = pattern[1:].partition("]")
        if not closed or not _is_ipv6(address):
            return "an IPv6 address must stand in brackets, such as [2001:db8::1]"
        return None if not rest else _problem_of_port(rest)
    host, colon, port = pattern.partition(":")
    if ":" in port:
        return "an IPv6 address must stand in brackets, such as [2001:db8::1]"
    return _problem_of_host(host) or (_problem_of_port(colon + port) if colon else None)


def _problem_of_port(text: str) -> str | None:
    if not text.startswith(":") or not _PORT.fullmatch(text[1:]) or not 1 <= int(text[1:]) <= MAX_PORT:
        return f"the port must be a number from 1 to {MAX_PORT}"
    return None


def _problem_of_host(host: str) -> str | None:
    if _DOTTED_NUMBERS.fullmatch(host):
        return None if _is_ipv4(host) else "not an IPv4 address"
    name = host.removeprefix("*.").removesuffix(".")
    if "*" in name:
        return "a wildcard may only stand at the front, as in *.example.com"
    if (
        not name
        or len(name) > MAX_HOST_NAME_BYTES
        or not all(_LABEL.fullmatch(part) for part in name.split("."))
    ):
        return "not a host name (write international names in their xn-- form)"
    return None


def _is_ipv4(text: str) -> bool:
    try:
        ipaddress.IPv4Address(text)
    except ValueError:
        return False
    return True


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return "%" not in text
