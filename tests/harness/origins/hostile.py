"""Answers of an origin that means harm, or is broken: ``/hostile/NAME``.

Each gets the request's credential, so that it can be given back in ways that are hard to see.
"""

import asyncio
import base64
import gzip
import zlib
from collections.abc import Callable, Iterator

_PIECE = b"x" * 65_536
_ENDLESS = 1 << 30
"""Bytes after which even an endless answer ends, so that no gateway takes it for ever."""


def _ok(body: bytes, *lines: bytes) -> bytes:
    head = b"\r\n".join([b"HTTP/1.1 200 OK", b"Content-Length: %d" % len(body), *lines])
    return head + b"\r\n\r\n" + body


def _chunked(*pieces: bytes, lines: tuple[bytes, ...] = (), trailers: bytes = b"") -> bytes:
    head = b"\r\n".join([b"HTTP/1.1 200 OK", b"Transfer-Encoding: chunked", *lines]) + b"\r\n\r\n"
    return (
        head + b"".join(b"%x\r\n%b\r\n" % (len(one), one) for one in pieces) + b"0\r\n" + trailers + b"\r\n"
    )


def _raw_deflate(data: bytes) -> bytes:
    made = zlib.compressobj(wbits=-15)
    return made.compress(data) + made.flush()


def _slices(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


MALFORMED: dict[str, bytes] = {
    "two-lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
    "equal-lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nab",
    "length-list": b"HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nab",
    "length-and-coding": (
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    ),
    "negative-length": b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nab",
    "signed-length": b"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nab",
    "other-coding": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "identity-coding": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\nab",
    "bare-lf": b"HTTP/1.1 200 OK\nContent-Length: 2\n\nab",
    "bare-cr": b"HTTP/1.1 200 OK\r\nX-A: a\rX-B: b\r\nContent-Length: 2\r\n\r\nab",
    "nul": b"HTTP/1.1 200 OK\r\nX-A: a\0b\r\nContent-Length: 2\r\n\r\nab",
    "folded": b"HTTP/1.1 200 OK\r\nX-A: a\r\n b\r\nContent-Length: 2\r\n\r\nab",
    "space-before-colon": b"HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nab",
    "bad-name": b"HTTP/1.1 200 OK\r\nX(A): a\r\nContent-Length: 2\r\n\r\nab",
    "bad-status": b"HTTP/1.1 20 OK\r\nContent-Length: 2\r\n\r\nab",
    "other-version": b"HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nab",
    "no-http": b"hello\r\n\r\n",
    "unasked-switch": b"HTTP/1.1 101 Switch\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    "chunk-size": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nab\r\n0\r\n\r\n",
    "chunk-overflow": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1"
    + b"0" * 16
    + b"\r\nab\r\n0\r\n\r\n",
    "chunk-end": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabXX0\r\n\r\n",
    "chunk-lf": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\nab\n0\n\n",
    "long-line": b"HTTP/1.1 200 OK\r\nX-A: " + b"a" * 100_000 + b"\r\nContent-Length: 0\r\n\r\n",
    "many-fields": b"HTTP/1.1 200 OK\r\n" + b"X-A: a\r\n" * 5_000 + b"Content-Length: 0\r\n\r\n",
    "many-interims": b"HTTP/1.1 103 Early Hints\r\n\r\n" * 100 + _ok(b"ab"),
    "early-end": b"HTTP/1.1 200 OK\r\nContent-Le",
    "cut-gzip": _ok(gzip.compress(b"y" * 5_000)[:-9], b"Content-Encoding: gzip"),
}
"""Whole answers that nobody should take for good ones."""

ENDLESS: dict[str, tuple[bytes, bytes]] = {
    "endless-head": (b"HTTP/1.1 200 OK\r\n", b"X-A: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n" * 1_000),
    "endless-line": (b"HTTP/1.1 200 OK\r\nX-A: ", _PIECE),
    "endless-status": (b"HTTP/1.1 200 ", _PIECE),
    "endless-interims": (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1_000),
    "endless-trailers": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
        b"X-A: aaaaaaaaaaaaaaaaaaa\r\n" * 1_000,
    ),
    "endless-extension": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;a=", _PIECE),
    "endless-zeros": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"0" * 65_536),
}
"""A beginning, and what comes after it again and again."""

GIVING_BACK: dict[str, Callable[[bytes], bytes]] = {
    "status": lambda value: b"HTTP/1.1 200 " + value + b"\r\nContent-Length: 0\r\n\r\n",
    "interim": lambda value: b"HTTP/1.1 103 Early Hints\r\nLink: <" + value + b">\r\n\r\n" + _ok(b"ab"),
    "trailer": lambda value: _chunked(b"ab", trailers=b"X-Sum: " + value + b"\r\n"),
    "trailer-name": lambda value: _chunked(b"ab", trailers=value.split()[-1] + b": 1\r\n"),
    "field-name": lambda value: _ok(b"ab", value.split()[-1] + b": 1"),
    "cookie": lambda value: _ok(b"ab", b"Set-Cookie: s=" + value.split()[-1] + b"; Path=/"),
    "etag": lambda value: _ok(b"ab", b'ETag: W/"' + value + b'"'),
    "gzip-twice": lambda value: _ok(gzip.compress(gzip.compress(value)), b"Content-Encoding: gzip, gzip"),
    "two-fields-gzip": lambda value: _ok(
        gzip.compress(gzip.compress(value)), b"Content-Encoding: gzip", b"Content-Encoding: gzip"
    ),
    "GZIP": lambda value: _ok(gzip.compress(value), b"Content-Encoding: GZIP"),
    "gzip-identity": lambda value: _ok(gzip.compress(value), b"Content-Encoding: identity, x-gzip"),
    "members": lambda value: _ok(
        gzip.compress(value[:20]) + gzip.compress(value[20:]), b"Content-Encoding: gzip"
    ),
    "zlib": lambda value: _ok(zlib.compress(value), b"Content-Encoding: deflate"),
    "deflate": lambda value: _ok(_raw_deflate(value), b"Content-Encoding: deflate"),
    "stored-gzip": lambda value: _ok(gzip.compress(value, 0), b"Content-Encoding: gzip"),
    "claims-br": lambda value: _ok(value, b"Content-Encoding: br"),
    "claims-gzip": lambda value: _ok(value, b"Content-Encoding: gzip"),
    "claims-none": lambda value: _ok(value, b"Content-Encoding: none"),
    "claims-utf7": lambda value: _ok(value, b"Content-Encoding: utf-8"),
    "utf16be": lambda value: _ok(
        value.decode().encode("utf-16-be"), b"Content-Type: text/plain; charset=utf-16"
    ),
    "utf16le-bom": lambda value: _ok(value.decode().encode("utf-16")),
    "utf32": lambda value: _ok(value.decode().encode("utf-32-le")),
    "html-hex": lambda value: _ok(b"".join(b"&#x%x;" % one for one in value)),
    "html-padded": lambda value: _ok(b"".join(b"&#%03d;" % one for one in value)),
    "backslash-x": lambda value: _ok(b"".join(b"\\x%02x" % one for one in value)),
    "percent-lower": lambda value: _ok(b"".join(b"%%%02x" % one for one in value)),
    "percent-twice": lambda value: _ok(b"".join(b"%%25%02x" % one for one in value)),
    "json-slash": lambda value: _ok(value.replace(b"/", b"\\/")),
    "basic": lambda value: _ok(base64.b64encode(b"user:" + value.split()[-1])),
    "base64-of-all": lambda value: _ok(base64.b64encode(b'{"authorization":"' + value + b'"}')),
    "base64-lines": lambda value: _ok(base64.encodebytes(b"x" * 40 + value)),
    "base64-folded": lambda value: _ok(b"\n".join(_slices(base64.b64encode(value), 20))),
    "octal": lambda value: _ok(b"".join(b"\\%03o" % one for one in value)),
    "numbers": lambda value: _ok(str(list(value)).encode()),
    "hex-spaced": lambda value: _ok(value.hex(" ").encode()),
    "cdata": lambda value: _ok(b"<![CDATA[" + value + b"]]>"),
    "swapped": lambda value: _ok(value.swapcase()),
    "twice": lambda value: _ok(value + value),
    "first-half": lambda value: _ok(value[: len(value) // 2 + 4]),
    "second-half": lambda value: _ok(value[len(value) // 2 - 4 :]),
    "extension": lambda value: (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;a=" + value[-30:] + b"\r\nab\r\n0\r\n\r\n"
    ),
    "multipart": lambda value: _ok(
        b"--b\r\nContent-Disposition: form-data\r\n\r\n" + value + b"\r\n--b--\r\n",
        b"Content-Type: multipart/byteranges; boundary=b",
    ),
    "by-close": lambda value: b"HTTP/1.1 200 OK\r\n\r\n" + value,
    "http10": lambda value: b"HTTP/1.0 200 OK\r\n\r\n" + value,
    "partial": lambda value: (
        b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-%d/99\r\nContent-Length: %d\r\n\r\n"
        % (len(value) - 1, len(value))
        + value
    ),
    "location": lambda value: (
        b"HTTP/1.1 302 Found\r\nLocation: https://other.test/?k="
        + value.split()[-1]
        + b"\r\nContent-Length: 0\r\n\r\n"
    ),
    "refresh": lambda value: _ok(b"ab", b"Refresh: 0; url=http://other.test/" + value.split()[-1]),
    "challenge": lambda value: (
        b"HTTP/1.1 401 No\r\nWWW-Authenticate: Bearer realm="
        + value.split()[-1]
        + b"\r\nContent-Length: 0\r\n\r\n"
    ),
    "after-the-end": lambda value: (
        _ok(b"ab") + b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(value) + value
    ),
    "no-content": lambda value: b"HTTP/1.1 204 No Content\r\n\r\n" + value,
}
"""The credential, somewhere in an answer."""


async def misbehave(name: str, credential: bytes, writer: asyncio.StreamWriter) -> None:
    """Answer so. The connection is to be closed afterwards."""
    if name in MALFORMED:
        writer.write(MALFORMED[name])
    elif name in GIVING_BACK:
        writer.write(GIVING_BACK[name](credential))
    elif name in ENDLESS:
        begin, piece = ENDLESS[name]
        writer.write(begin)
        await _pour(writer, (piece for _ in range(_ENDLESS // len(piece))))
    elif name == "bomb":
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n")
        await _pour(writer, _chunks(_zeros(_ENDLESS)))
    elif name == "double-bomb":
        body = gzip.compress(b"".join(_zeros(_ENDLESS)))
        writer.write(_ok(body, b"Content-Encoding: gzip, gzip"))
    elif name == "silence":
        await asyncio.sleep(3600)
    elif name == "reset":
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nonly this")
        await writer.drain()
        writer.transport.abort()
    await writer.drain()


async def _pour(writer: asyncio.StreamWriter, pieces: Iterator[bytes]) -> None:
    for piece in pieces:
        writer.write(piece)
        await writer.drain()


def _chunks(pieces: Iterator[bytes]) -> Iterator[bytes]:
    for piece in pieces:
        if piece:
            yield b"%x\r\n%b\r\n" % (len(piece), piece)


def _zeros(size: int) -> Iterator[bytes]:
    """Gzip of very many zeros."""
    made = zlib.compressobj(9, wbits=31)
    piece = bytes(1 << 20)
    for _ in range(size // len(piece)):
        yield made.compress(piece)
    yield made.flush()
