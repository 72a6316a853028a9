"""Bodies (RFC 9112, sections 6 and 7): bytes in, pieces without their framing out."""

import re
from typing import Protocol

from skerry.egress.http1.fields import parse_fields, split_lines
from skerry.egress.http1.head_search import HeadSearch
from skerry.egress.http1.model import Data, Framing, Malformed, Trailers
from skerry.spec.settings import EgressLimits

MAX_CHUNK_LINE_BYTES = 256
# Below this a copy is cheaper than a view.
_VIEW_BYTES = 4096

_EXTENSIONS = rb"(?:;[\t\x20-\x7e]*)?"
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})" + _EXTENSIONS + rb"\r\n")
# Some servers pad the size with spaces.
_PADDED_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})[ ]{0,16}" + _EXTENSIONS + rb"\r\n")
_CHUNK_LINE_BEGUN = re.compile(rb"(?:[0-9A-Fa-f]{1,15}[ ]{0,16}" + _EXTENSIONS + rb"\r?)?")

# Trailers of a request that are sent on; all are about the content alone.
_REQUEST_TRAILERS = frozenset(
    {
        b"content-digest", b"repr-digest", b"digest", b"content-md5", b"etag", b"server-timing",
        b"x-amz-trailer-signature", b"x-goog-hash",
    }
)  # fmt: skip
_REQUEST_TRAILER_FAMILIES = (b"x-amz-checksum-", b"x-checksum", b"grpc-")
# RFC 9110, section 6.5.1: what must not come after the content.
_NEVER_TRAILERS = frozenset(
    {
        b"transfer-encoding", b"content-length", b"content-encoding", b"content-type", b"content-range",
        b"host", b"connection", b"keep-alive", b"te", b"trailer", b"upgrade", b"expect", b"range",
        b"authorization", b"proxy-authorization", b"proxy-authenticate", b"www-authenticate", b"cookie",
        b"set-cookie", b"location", b"cache-control", b"max-forwards", b"alt-svc", b"http2-settings",
    }
)  # fmt: skip


class Body(Protocol):
    """A body that is being read.

    Attributes:
        done: It is complete.
        ends_with_connection: The end of the connection is its end.
    """

    done: bool
    ends_with_connection: bool

    def decode(self, data: bytes, at: int, events: list[Data | Trailers]) -> int:
        """Take what can be taken.

        Args:
            data: Bytes, of which those before `at` are taken already.
            events: What is found is added here.
        Returns:
            Where what is not yet taken begins; it must be given again, with what comes after it.
        """
        ...


def body_of(framing: Framing, length: int, limits: EgressLimits, *, of_request: bool) -> Body:
    """The reader of a body. ``Framing.NONE`` has none."""
    if framing is Framing.CHUNKED:
        return ChunkedBody(limits, of_request=of_request)
    if framing is Framing.CLOSE:
        return CloseBody()
    return LengthBody(length)


def _piece(data: bytes, start: int, end: int) -> Data:
    if end - start == len(data):
        return Data(data)
    if end - start < _VIEW_BYTES:
        return Data(data[start:end])
    return Data(memoryview(data)[start:end])


class LengthBody:
    """A body whose length is known."""

    ends_with_connection = False

    def __init__(self, length: int) -> None:
        self._left = length
        self.done = length == 0

    def decode(self, data: bytes, at: int, events: list[Data | Trailers]) -> int:
        """See `Body.decode`."""
        end = min(at + self._left, len(data))
        if end > at:
            events.append(_piece(data, at, end))
            self._left -= end - at
            self.done = self._left == 0
        return end


class CloseBody:
    """A body that ends with the connection."""

    ends_with_connection = True
    done = False

    def decode(self, data: bytes, at: int, events: list[Data | Trailers]) -> int:
        """See `Body.decode`."""
        if at < len(data):
            events.append(_piece(data, at, len(data)))
        return len(data)


class ChunkedBody:
    """A body in chunks. Extensions are dropped."""

    ends_with_connection = False

    def __init__(self, limits: EgressLimits, *, of_request: bool) -> None:
        self._limits = limits
        self._of_request = of_request
        self._line = _CHUNK_LINE if of_request else _PADDED_CHUNK_LINE
        self._left = 0
        self._within_chunk = False
        self._in_trailers = False
        self._trailers = HeadSearch(limits)
        self.done = False

    def decode(self, data: bytes, at: int, events: list[Data | Trailers]) -> int:
        """See `Body.decode`."""
        size = len(data)
        while not self._in_trailers:
            if self._left:
                if at == size:
                    return at
                end = min(at + self._left, size)
                events.append(_piece(data, at, end))
                self._left -= end - at
                at = end
            elif self._within_chunk:
                if size - at < 2:
                    if data[at:] not in (b"", b"\r"):
                        raise Malformed("a chunk does not end where it should")
                    return at
                if data[at : at + 2] != b"\r\n":
                    raise Malformed("a chunk does not end where it should")
                self._within_chunk = False
                at += 2
            else:
                begun = at
                at = self._start_chunk(data, at)
                if at == begun:
                    return at
        return self._decode_trailers(data, at, events)

    def _start_chunk(self, data: bytes, at: int) -> int:
        """Read a chunk's first line; returns `at` if it is not there yet."""
        line = self._line.match(data, at)
        if line is None:
            if len(data) - at > MAX_CHUNK_LINE_BYTES or not _CHUNK_LINE_BEGUN.fullmatch(data, at):
                raise Malformed("not a chunk size")
            return at
        if line.end() - at > MAX_CHUNK_LINE_BYTES:
            raise Malformed("the line of a chunk is too long")
        self._left = int(line[1], 16)
        self._within_chunk = self._left > 0
        self._in_trailers = self._left == 0
        return line.end()

    def _decode_trailers(self, data: bytes, at: int, events: list[Data | Trailers]) -> int:
        if data.startswith(b"\r\n", at):
            self.done = True
            return at + 2
        end = self._trailers.find_end(data, at)
        if end < 0:
            return at
        fields, names = parse_fields(split_lines(data[at:end], self._limits, before_fields=0))
        kept = [field for field, name in zip(fields, names, strict=True) if self._goes_on(name)]
        if kept:
            events.append(Trailers(kept))
        self.done = True
        return end + 4

    def _goes_on(self, name: bytes) -> bool:
        if name in _NEVER_TRAILERS:
            if self._of_request:
                raise Malformed("a field that must not be a trailer")
            return False
        if self._of_request:
            return name in _REQUEST_TRAILERS or name.startswith(_REQUEST_TRAILER_FAMILIES)
        return True
