"""Field lines (RFC 9112, section 5): split and judged as a block, with few passes in C over all of it."""

from skerry.egress.http1.model import Field, Malformed
from skerry.spec.settings import EgressLimits

# RFC 9110, section 5.6.2.
TOKEN = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
# Values hold no control characters but the tab; bytes above ASCII are opaque (RFC 9110, section 5.5).
_TEXT = bytes([0x09, *range(0x20, 0x7F), *range(0x80, 0x100)])

# At most once each, in either direction: peers differ in which of several they take.
_SINGLE = frozenset(
    {
        b"content-length", b"transfer-encoding", b"host", b"expect", b"upgrade", b"content-encoding",
        b"sec-websocket-key", b"sec-websocket-version", b"sec-websocket-accept",
    }
)  # fmt: skip
# Names that CGI-like servers take for the one with hyphens.
_CONFUSABLE = frozenset(
    {
        b"content_length", b"content_encoding", b"content_type", b"transfer_encoding", b"keep_alive",
        b"proxy_connection", b"proxy_authorization", b"http2_settings",
    }
)  # fmt: skip


def split_lines(head: bytes, limits: EgressLimits, *, before_fields: int = 1) -> list[bytes]:
    """The lines of a head or a trailer section, without their ends.

    Args:
        head: Without the empty line at its end.
        before_fields: Lines before the first field.
    Raises:
        Malformed: A bare CR or LF, another control character, a line that is too long, too many lines.
    """
    lines = head.split(b"\r\n")
    if len(lines) - before_fields > limits.fields:
        raise Malformed("too many fields", 431)
    # What is left without text must be the line ends that were split at, and nothing else.
    if head.translate(None, _TEXT) != b"\r\n" * (len(lines) - 1):
        raise Malformed("a control character in a head")
    if len(head) > limits.field_bytes and max(map(len, lines)) > limits.field_bytes:
        raise Malformed("a line of a head is too long", 431)
    return lines


def parse_fields(lines: list[bytes]) -> tuple[list[Field], list[bytes]]:
    """Fields, and their names in lower case.

    Raises:
        Malformed: A name is not a token (a folded line shows here too: its name begins with white space), or
            a field that may stand only once stands twice.
    """
    fields: list[Field] = []
    if not lines:
        return fields, []
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon:
            raise Malformed("a field without a colon")
        fields.append((name, value.strip(b" \t")))
    joined = b"\n".join([field[0] for field in fields]).lower()
    names = joined.split(b"\n")
    if len(joined.translate(None, TOKEN)) != len(names) - 1 or b"" in names:
        raise Malformed("a field name is not a token")
    if b"_" in joined and not _CONFUSABLE.isdisjoint(names):
        raise Malformed("a field name imitates another one")
    return fields, names


def refuse_duplicates(names: list[bytes]) -> None:
    """Raise `Malformed` if a field that may stand only once stands twice."""
    for name in _SINGLE.intersection(names):
        if names.count(name) > 1:
            raise Malformed("a field stands twice that may stand once")


def is_token(value: bytes) -> bool:
    """Whether it is a token of RFC 9110, section 5.6.2."""
    return bool(value) and not value.translate(None, TOKEN)
