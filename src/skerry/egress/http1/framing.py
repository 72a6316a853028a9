"""What delimits a message's body, from its fields (RFC 9112, section 6)."""

from collections.abc import Mapping

from skerry.egress.http1.model import Field, Framing, Malformed

# 2**60 - 1: more than any body, and far from what overflows anywhere.
_MOST_DIGITS = 18


def request_framing(by_name: Mapping[bytes, Field], minor: int) -> tuple[Framing, int]:
    """How a request's body is delimited, and its length.

    Stricter than the RFC: both fields together, any coding but exactly ``chunked``, and lengths with leading
    zeros are refused, because what stands behind us may read them otherwise.

    Args:
        by_name: Fields by lower-case name; neither of the two stands twice.
    """
    coding = by_name.get(b"transfer-encoding")
    length = by_name.get(b"content-length")
    if coding is None:
        if length is None:
            return Framing.NONE, 0
        return Framing.LENGTH, content_length(length[1])
    if length is not None:
        raise Malformed("both Content-Length and Transfer-Encoding")
    if minor == 0:
        raise Malformed("Transfer-Encoding in HTTP/1.0")
    if coding[1] != b"chunked":
        raise Malformed("a transfer coding other than chunked")
    return Framing.CHUNKED, 0


def response_framing(
    by_name: Mapping[bytes, Field], minor: int, status: int, method: bytes
) -> tuple[Framing, int]:
    """How a response's body is delimited, and its length (RFC 9112, section 6.3).

    Args:
        method: Of the request that is answered.
    """
    coding = by_name.get(b"transfer-encoding")
    length = by_name.get(b"content-length")
    if coding is not None:
        if length is not None:
            raise Malformed("both Content-Length and Transfer-Encoding")
        if minor == 0:
            raise Malformed("Transfer-Encoding in HTTP/1.0")
        if coding[1].lower() != b"chunked":
            raise Malformed("a transfer coding other than chunked")
    length_bytes = 0 if length is None else content_length(length[1])
    if status < 200 or status in (204, 304) or method == b"HEAD":
        return Framing.NONE, 0
    if coding is not None:
        return Framing.CHUNKED, 0
    if length is not None:
        return Framing.LENGTH, length_bytes
    return Framing.CLOSE, 0


def content_length(value: bytes) -> int:
    """A length in bytes.

    Raises:
        Malformed: Anything but decimal digits, or leading zeros.
    """
    # isdigit() of bytes knows ASCII digits only.
    if not value.isdigit() or len(value) > _MOST_DIGITS or (value[0] == 0x30 and len(value) > 1):
        raise Malformed("Content-Length is not a plain number")
    return int(value)
