"""What protocol a client speaks, by its first bytes. Pure.

In doubt the answer is one whose bytes are parsed strictly: what a lenient server could take for HTTP or TLS
is never called `Kind.OTHER`, since that is what passes unread.
"""

from enum import Enum, auto

from skerry.egress.http1.first_bytes import looks_like_http, looks_like_http2

MAX_BYTES = 8_192
"""What is still undecided after so many bytes is taken for HTTP, which is refused then."""

_TLS_HANDSHAKE = 0x16
_SSL2_CLIENT_HELLO = 1


class Kind(Enum):
    """What the first bytes are."""

    TLS = auto()
    HTTP = auto()
    HTTP2 = auto()
    """The preface of HTTP/2 in clear."""
    OTHER = auto()


def kind_of(data: bytes) -> Kind | None:
    """What a client speaks; None when more bytes are needed to know."""
    if not data:
        return None
    if data[0] == _TLS_HANDSHAKE:
        return Kind.TLS
    if data[0] & 0x80:
        # Old servers take the hello of SSL 2.0: two bytes of length, then its type.
        if len(data) < 3:
            return None
        return Kind.TLS if data[2] == _SSL2_CLIENT_HELLO else Kind.OTHER
    text_kind = _text_kind(data)
    return Kind.HTTP if text_kind is None and len(data) >= MAX_BYTES else text_kind


def method_of(data: bytes) -> bytes:
    """The method of `Kind.HTTP`, as far as it is there."""
    return data.split(b" ", 1)[0][:32]


def _text_kind(data: bytes) -> Kind | None:
    http2 = looks_like_http2(data)
    if http2 is not False:
        return Kind.HTTP2 if http2 else None
    # Servers skip empty lines before a request (RFC 9112, section 2.2); some skip all white space.
    text = data.lstrip()
    if not text:
        return None
    http = looks_like_http(text)
    if http is None:
        return None
    return Kind.HTTP if http else Kind.OTHER
