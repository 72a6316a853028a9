"""Request targets and authorities (RFC 9112, section 3.2)."""

import re

from skerry.egress.http1.model import Malformed

# Whether the host is a name that may be, `skerry.policy.names` decides.
_AUTHORITY = re.compile(rb"(?:\[([0-9A-Fa-f:.]{2,45})\]|([A-Za-z0-9._-]{1,255}))(?::([0-9]{1,5}))?")
_ABSOLUTE = re.compile(rb"([Hh][Tt][Tt][Pp][Ss]?)://([^/?]+)([/?].*)?")
DEFAULT_PORTS = {b"http": 80, b"https": 443}


def split_authority(value: bytes) -> tuple[str, int | None]:
    """Host and port of ``Host``, of an absolute form or of CONNECT.

    Returns:
        The host as it stands there, without the brackets of an IPv6 address (so a host with a colon in it is
        one), and the port if there is one.
    Raises:
        Malformed: User names, white space, percent signs and whatever else is no ``host[:port]``.
    """
    found = _AUTHORITY.fullmatch(value)
    if found is None:
        raise Malformed("not a host with an optional port")
    address, name, digits = found.groups()
    port = None
    if digits is not None:
        port = int(digits)
        if not 1 <= port <= 65535:
            raise Malformed("not a port")
    return (address or name).decode("ascii"), port


def split_absolute(target: bytes, method: bytes) -> tuple[bytes, bytes, bytes]:
    """Scheme (lower case), authority and origin form of an absolute target."""
    found = _ABSOLUTE.fullmatch(target)
    if found is None:
        raise Malformed("not a form that a request target may have")
    scheme, authority, rest = found.groups()
    split_authority(authority)
    if rest is None:
        rest = b"*" if method == b"OPTIONS" else b"/"
    elif rest.startswith(b"?"):
        rest = b"/" + rest
    return scheme.lower(), authority, rest


def same_authority(one: bytes, other: bytes, default_port: int | None) -> bool:
    """Whether two authorities name the same host and port."""
    host, port = split_authority(one)
    other_host, other_port = split_authority(other)
    return host.lower() == other_host.lower() and (port or default_port) == (other_port or default_port)
