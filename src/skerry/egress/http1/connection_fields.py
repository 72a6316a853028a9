"""Fields that concern one connection only (RFC 9110, section 7.6.1): taken out of what goes on."""

from collections.abc import Mapping
from dataclasses import dataclass

from skerry.egress.http1.fields import is_token
from skerry.egress.http1.model import Field, Malformed

HOP_BY_HOP = frozenset(
    {
        b"connection", b"keep-alive", b"proxy-connection", b"proxy-authorization", b"te", b"upgrade",
        b"http2-settings",
    }
)  # fmt: skip

# A peer that asks to have these taken out wants the next hop to see another message than we did.
_NOT_TO_BE_NAMED = frozenset(
    {
        b"host", b"authorization", b"cookie", b"set-cookie", b"transfer-encoding", b"expect", b"location",
        b"cache-control", b"date",
    }
)  # fmt: skip
_HTTP2 = frozenset({b"h2", b"h2c", b"http/2", b"http/2.0"})


@dataclass(slots=True)
class Hop:
    """What a head says about its own connection.

    Attributes:
        fields: The head's fields that go on, ``Connection`` rewritten in its place.
        upgrade: Protocol, lower case.
    """

    fields: list[Field]
    keep_alive: bool
    upgrade: bytes | None = None


def take_out(
    fields: list[Field], names: list[bytes], by_name: Mapping[bytes, Field], minor: int, *, may_upgrade: bool
) -> Hop:
    """Take out what concerns the connection.

    Args:
        names: Lower-case names of `fields`.
        may_upgrade: An ``Upgrade`` in this head has a meaning; otherwise it is dropped.
    Raises:
        Malformed: ``Connection`` names a field that is meant for everybody.
    """
    if minor and names.count(b"connection") == 1 and _says_only_keep_alive(by_name):
        return Hop(fields, True)
    options = _options(fields, names)
    upgrade = None
    if may_upgrade and minor == 1 and b"upgrade" in options:
        upgrade = _protocol(by_name.get(b"upgrade"))
    te = by_name.get(b"te")
    trailers = te is not None and minor == 1 and te[1].lower() == b"trailers" and names.count(b"te") == 1
    keep_alive = b"close" not in options if minor else b"keep-alive" in options and b"close" not in options

    dropped = HOP_BY_HOP | options
    kept = {b"connection"}
    if upgrade is not None:
        kept.add(b"upgrade")
    if trailers:
        kept.add(b"te")
    dropped -= kept
    going_on: list[Field] = []
    written = _connection(keep_alive, options, upgrade, trailers=trailers)
    for field, name in zip(fields, names, strict=True):
        if name in dropped:
            continue
        if name == b"connection":
            if not written:
                continue
            field = (field[0], written)
            written = b""
        elif name == b"upgrade" and upgrade is not None and b"," in field[1]:
            field = (field[0], upgrade)
        going_on.append(field)
    if written:
        going_on.append((b"Connection", written))
    return Hop(going_on, keep_alive, upgrade)


def set_connection(fields: list[Field], value: bytes) -> list[Field]:
    """The same fields with this as the only ``Connection``, in its place if there was one.

    Args:
        value: Empty: none.
    """
    changed: list[Field] = []
    for field in fields:
        if field[0].lower() == b"connection":
            if not value:
                continue
            field = (field[0], value)
            value = b""
        changed.append(field)
    if value:
        changed.append((b"Connection", value))
    return changed


def _says_only_keep_alive(by_name: Mapping[bytes, Field]) -> bool:
    """The usual case, told quickly: nothing to take out."""
    connection = by_name.get(b"connection")
    if connection is None or connection[1] not in (b"keep-alive", b"Keep-Alive"):
        return False
    return len(HOP_BY_HOP.intersection(by_name)) == 1


def _options(fields: list[Field], names: list[bytes]) -> frozenset[bytes]:
    values = [field[1] for field, name in zip(fields, names, strict=True) if name == b"connection"]
    if len(values) == 1 and values[0] in _COMMON:
        return _COMMON[values[0]]
    found = {option.strip(b" \t").lower() for value in values for option in value.split(b",")}
    found.discard(b"")
    for option in found:
        if not is_token(option):
            raise Malformed("Connection holds what is no token")
        if option in _NOT_TO_BE_NAMED or option.startswith((b"content-", b"sec-")):
            raise Malformed("Connection names a field that is meant for everybody")
    return frozenset(found)


_COMMON = {
    b"keep-alive": frozenset({b"keep-alive"}),
    b"Keep-Alive": frozenset({b"keep-alive"}),
    b"close": frozenset({b"close"}),
    b"Upgrade": frozenset({b"upgrade"}),
    b"upgrade": frozenset({b"upgrade"}),
}


def _protocol(field: Field | None) -> bytes | None:
    """The one protocol that an ``Upgrade`` asks for; None for HTTP/2, which is ignored."""
    if field is None:
        return None
    offered = {protocol.strip(b" \t").lower() for protocol in field[1].split(b",")} - _HTTP2
    if not offered:
        return None
    if len(offered) > 1:
        raise Malformed("Upgrade offers several protocols")
    protocol = offered.pop()
    if not all(is_token(part) for part in protocol.split(b"/", 1)):
        raise Malformed("Upgrade holds what is no protocol")
    return protocol


def _connection(
    keep_alive: bool, options: frozenset[bytes], upgrade: bytes | None, *, trailers: bool
) -> bytes:
    said = []
    if upgrade is not None:
        said.append(b"Upgrade")
    if trailers:
        said.append(b"TE")
    if not keep_alive and b"close" in options:
        said.append(b"close")
    elif keep_alive and b"keep-alive" in options:
        said.append(b"keep-alive")
    return b", ".join(said)
