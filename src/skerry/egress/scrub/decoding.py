"""Undo the content codings of an answer so that it can be searched.

Only what the standard library can undo: gzip and deflate. Brotli and Zstandard are refused; they are not
offered to origins on requests that carry a secret.
"""

import zlib
from collections.abc import Iterator, Sequence
from typing import Protocol

from skerry.egress.http1.model import Field
from skerry.spec.settings import EgressLimits

MAX_CODINGS = 2
OUTPUT_BYTES = 65_536
"""Longest part that is decoded at once."""

_INPUT_BYTES = 4_096  # what is left of an input is copied at each end of a gzip member: keep it short
_RATIO_FREE_BYTES = 1 << 20  # a short answer of zeros may have any ratio
_GZIP_MAGIC = b"\x1f\x8b"


class Undecodable(Exception):
    """The codings cannot be undone here, the data are damaged, or they grow too much.

    Args:
        what: A fixed text; never holds bytes of the peer.
    """

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what


def codings(fields: list[Field]) -> tuple[str, ...]:
    """The content codings of an answer in the order in which they were applied, without ``identity``.

    Raises:
        Undecodable: There is one that cannot be undone, or more than `MAX_CODINGS`.
    """
    found: list[str] = []
    for name, value in fields:
        if name.lower() != b"content-encoding":
            continue
        for token in value.decode("latin-1").lower().split(","):
            coding = token.strip()
            if coding in ("", "identity"):
                continue
            if coding not in _CODINGS:
                raise Undecodable("a content coding that cannot be undone")
            found.append(coding)
    if len(found) > MAX_CODINGS:
        raise Undecodable("too many content codings")
    return tuple(found)


class Decoder:
    """One body. What it gives out may be read as slowly as one likes; the next part is decoded then.

    The bounds: all output is at most ``scrub_ratio`` times all input (after the first MiB), and the output
    for one input is at most ``scrub_window_bytes``.
    """

    def __init__(self, applied: tuple[str, ...], limits: EgressLimits) -> None:
        """Prepare for what `codings` returned."""
        self._stages = [_CODINGS[coding]() for coding in reversed(applied)]
        self._ratio = limits.scrub_ratio
        self._window_bytes = limits.scrub_window_bytes
        self._taken_bytes = 0
        self._given_bytes = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Decode; the iterator must be exhausted before the next call.

        Raises:
            Undecodable: Damaged, or a bound is reached; nothing of the answer may follow.
        """
        self._taken_bytes += len(data)
        most = min(
            self._given_bytes + self._window_bytes,
            max(_RATIO_FREE_BYTES, self._taken_bytes * self._ratio),
        )
        for part in _through(self._stages, data):
            self._given_bytes += len(part)
            if self._given_bytes > most:
                raise Undecodable("a compressed answer grew too much")
            yield part

    def end(self) -> None:
        """Check that the data were complete.

        Raises:
            Undecodable: They were not.
        """
        if not all(stage.complete for stage in self._stages):
            raise Undecodable("a compressed answer was cut short")


class _Stage(Protocol):
    @property
    def complete(self) -> bool: ...

    def feed(self, data: bytes) -> Iterator[bytes]: ...


def _through(stages: Sequence[_Stage], data: bytes) -> Iterator[bytes]:
    if not stages:
        if data:
            yield data
        return
    for part in stages[0].feed(data):
        yield from _through(stages[1:], part)


def _inflated(inflater: "zlib._Decompress", data: bytes) -> Iterator[bytes]:
    """Output for some input, in parts; ends at the end of the compressed stream too."""
    try:
        part = inflater.decompress(data, OUTPUT_BYTES)
        while part:
            yield part
            if inflater.eof or (len(part) < OUTPUT_BYTES and not inflater.unconsumed_tail):
                return
            part = inflater.decompress(inflater.unconsumed_tail, OUTPUT_BYTES)
    except zlib.error:
        raise Undecodable("damaged compressed data") from None


def _sliced(data: bytes) -> Iterator[bytes]:
    for at in range(0, len(data), _INPUT_BYTES):
        yield data[at : at + _INPUT_BYTES]


class _Gzip:
    """Any number of members (RFC 1952, section 2.2); zeros may follow, as tar and gzip allow."""

    def __init__(self) -> None:
        self._inflater: zlib._Decompress | None = None
        self._begin = b""
        self._members = 0

    @property
    def complete(self) -> bool:
        return self._inflater is None and not self._begin

    def feed(self, data: bytes) -> Iterator[bytes]:
        for part in _sliced(data):
            rest = part
            while rest:
                if self._inflater is None:
                    rest = self._next_member(rest)
                    continue
                yield from _inflated(self._inflater, rest)
                rest = b""
                if self._inflater.eof:
                    rest, self._inflater = self._inflater.unused_data, None

    def _next_member(self, data: bytes) -> bytes:
        """Start a member when its first two bytes are there; return what there is to inflate."""
        begin = self._begin + data
        if self._members and not self._begin:
            begin = begin.lstrip(b"\0")
        if len(begin) < len(_GZIP_MAGIC):
            self._begin = begin
            if not _GZIP_MAGIC.startswith(begin):
                raise Undecodable("damaged compressed data")
            return b""
        if not begin.startswith(_GZIP_MAGIC):
            raise Undecodable("damaged compressed data")
        self._begin = b""
        self._members += 1
        self._inflater = zlib.decompressobj(wbits=31)
        return begin


class _Deflate:
    """Deflate in a zlib frame, or bare, as some origins send it (RFC 9110, section 8.4.1.2)."""

    def __init__(self) -> None:
        self._begin = b""
        self._inflater: zlib._Decompress | None = None

    @property
    def complete(self) -> bool:
        return (self._inflater is None and not self._begin) or (
            self._inflater is not None and self._inflater.eof
        )

    def feed(self, data: bytes) -> Iterator[bytes]:
        if self._inflater is None:
            data = self._begin + data
            if len(data) < 2:
                self._begin = data
                return
            framed = data[0] & 0x0F == 8 and (data[0] << 8 | data[1]) % 31 == 0
            self._inflater = zlib.decompressobj(wbits=15 if framed else -15)
        for part in _sliced(data):
            if self._inflater.eof:
                raise Undecodable("damaged compressed data")
            yield from _inflated(self._inflater, part)
            if self._inflater.unused_data:
                raise Undecodable("damaged compressed data")


_CODINGS: dict[str, type[_Gzip] | type[_Deflate]] = {"gzip": _Gzip, "x-gzip": _Gzip, "deflate": _Deflate}
