"""Messages, from their parsed form to bytes. Nothing is ever sent on as it came."""

from collections.abc import Iterable, Sequence

from skerry.egress.http1.connection_fields import set_connection
from skerry.egress.http1.model import Field, Framing, RequestHead, ResponseHead


def write_request(head: RequestHead, *, target: bytes | None = None, extra: Iterable[Field] = ()) -> bytes:
    """A request's head in origin form, in the version that the client used.

    Args:
        target: Instead of `head.target`.
        extra: Further fields.
    Raises:
        ValueError: A part holds what would end its line.
    """
    fields = [*head.fields, *extra] if extra else head.fields
    version = b" HTTP/1.1" if head.minor else b" HTTP/1.0"
    return _block(head.method + b" " + (head.target if target is None else target) + version, fields)


def write_response(head: ResponseHead) -> bytes:
    """A response's head, as HTTP/1.1.

    Raises:
        ValueError: A part holds what would end its line.
    """
    return _block(b"HTTP/1.1 %d %b" % (head.status, head.reason), head.fields)


def close_after(head: RequestHead | ResponseHead) -> None:
    """Make this the last message of its connection."""
    head.keep_alive = False
    head.fields = set_connection(head.fields, b"close")


def make_chunked(head: RequestHead | ResponseHead) -> None:
    """Delimit a body whose length is to change by chunks instead.

    Only for messages with a body, and not for a client of HTTP/1.0.
    """
    fields = [field for field in head.fields if field[0].lower() != b"content-length"]
    if head.framing is not Framing.CHUNKED:
        fields.append((b"Transfer-Encoding", b"chunked"))
    head.fields, head.framing, head.length = fields, Framing.CHUNKED, 0


def chunk(data: bytes | memoryview) -> bytes:
    """One chunk; nothing for no data, which would end the body."""
    if not data:
        return b""
    return b"".join((b"%x\r\n" % len(data), data, b"\r\n"))


def last_chunk(trailers: Sequence[Field] = ()) -> bytes:
    """The end of a chunked body.

    Raises:
        ValueError: A trailer holds what would end its line.
    """
    return _block(b"0", trailers)


def _block(first: bytes, fields: Sequence[Field]) -> bytes:
    lines = [first]
    lines += map(b": ".join, fields)
    lines += (b"", b"")
    block = b"\r\n".join(lines)
    ends = len(lines) - 1
    if block.count(b"\n") != ends or block.count(b"\r") != ends or b"\0" in block:
        raise ValueError("a part of a head would end its line")
    return block
