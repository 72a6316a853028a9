"""What a sandbox's answers must not contain, and how it is found in one pass.

Needles are compared after folding to lower case. The automaton holds only the first bytes of each
(`ANCHOR_BYTES`), which keeps it small enough for a processor's cache and quick to build; what follows an
anchor is compared directly. Slices of values (`SLICE_BYTES`) need no pattern per offset: an anchor stands
at every fourth one, so each slice contains one.
"""

import itertools
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ahocorasick_rs import BytesAhoCorasick, Implementation, MatchKind

from skerry.egress.messages import Secret
from skerry.egress.scrub.encodings import base64_cores, per_byte
from skerry.egress.scrub.pieces import SLICE_BYTES, cut, encoded_slice_starts, public_length, slice_starts

MAX_NEEDLES = 2_000
MAX_NEEDLE_TEXT_BYTES = 1 << 20
MIN_VALUE_BYTES = 8
ANCHOR_BYTES = 16

SLICE = "slice"

_STRIDE = 4
_SLICE_ANCHOR_BYTES = SLICE_BYTES - _STRIDE + 1
_PIECE_BYTES = 16
_MAX_SAME_SLICE = 16
_START_BYTES = 3
_LINE_END = b"\r\n"


class Match(NamedTuple):
    """A part of the data that must not go on: ``data[start:end]``."""

    start: int
    end: int
    secret: str
    encoding: str


@dataclass(frozen=True, slots=True)
class _Whole:
    text: bytes
    secret: str
    encoding: str


@dataclass(frozen=True, slots=True)
class _Value:
    """A folded value, or its base64, and a byte 1 at each offset where a slice begins."""

    folded: bytes
    starts: bytes
    secret: str


class Needles:
    """All that answers to one sandbox are searched for; immutable, shared by its connections.

    False when there is nothing to look for.
    """

    def __init__(self, secrets: Sequence[Secret]) -> None:
        """Make the needles of all secrets that have a value and whose answers are to be scrubbed.

        With many or long secrets the parts that are looked for get longer, and unlikely encodings are left
        out, so that there are at most `MAX_NEEDLES`.

        Raises:
            ValueError: A value has fewer than `MIN_VALUE_BYTES`, or there are too many secrets.
        """
        values = [
            (secret.rule.name, secret.value, secret.rule.placeholder_prefix.encode())
            for secret in secrets
            if secret.value is not None and secret.rule.scrub != "off"
        ]
        if any(len(value) < MIN_VALUE_BYTES for _, value, _ in values):
            raise ValueError(f"a secret has fewer than {MIN_VALUE_BYTES} bytes")
        if len(values) * _STRIDE > MAX_NEEDLES:
            raise ValueError("too many secrets")
        self._anchors: dict[bytes, list[_Whole | tuple[_Value, int]]] = {}
        texts: set[bytes] = set()
        for name, value, prefix in values:
            texts.update(self._add(name, value, prefix, share=len(values)))
        self.count = len(self._anchors)
        self.longest = max(map(len, texts), default=0)
        if texts:
            self._compile(texts)

    def __bool__(self) -> bool:
        return bool(self._anchors)

    def __repr__(self) -> str:
        return f"Needles({self.count})"

    def _add(self, name: str, value: bytes, prefix: bytes, *, share: int) -> set[bytes]:
        """Add the anchors of a secret and return all texts that they stand for."""
        public = public_length(value, prefix)
        slices = slice_starts(value, public)
        texts = self._add_slices(name, value, slices, most=MAX_NEEDLES // 4 // share)
        for whole in _wholes(name, value, public, share):
            texts.add(whole.text)
            self._anchors.setdefault(whole.text[:ANCHOR_BYTES], []).append(whole)
        # Line ends cut base64 anywhere. Nothing is held back for these: that would be for nearly any letter.
        cores = {core for url in (False, True) for _, core, _, _ in base64_cores(value, url=url)}
        for core in sorted(cores):
            starts = encoded_slice_starts(value, core, public)
            self._add_slices(name, core, starts, most=MAX_NEEDLES // 4 // share // len(cores))
        return texts

    def _add_slices(self, name: str, text: bytes, starts: list[int], *, most: int) -> set[bytes]:
        """Add anchors of at most so many slices, as many as there may be, and return these."""
        if not most:
            return set()
        stride = _STRIDE * -(-len(text) // (_STRIDE * most))
        slices = _Value(text.lower(), _flags(text, starts, stride), name)
        texts: set[bytes] = set()
        for at in range(0, len(text) - _SLICE_ANCHOR_BYTES + 1, stride):
            covered = [start for start in range(max(0, at - _STRIDE + 1), at + 1) if slices.starts[start]]
            if not covered:
                continue
            texts.update(slices.folded[start : start + SLICE_BYTES] for start in covered)
            candidates = self._anchors.setdefault(slices.folded[at : at + _SLICE_ANCHOR_BYTES], [])
            if len(candidates) < _MAX_SAME_SLICE:
                candidates.append((slices, at))
        return texts

    def _compile(self, texts: set[bytes]) -> None:
        self._candidates = list(self._anchors.values())
        self._automaton = _automaton(self._anchors)
        self._texts = sorted(texts)
        self._inner = bytes(sorted({byte for text in texts for byte in text[:-1]}))
        self._starts = _automaton({text[:_START_BYTES] for text in texts})
        self._short_starts = {text[:size] for text in texts for size in range(1, _START_BYTES)}

    def find(self, folded: bytes) -> list[Match]:
        """All matches that lie wholly in data that has been folded to lower case. They may overlap."""
        found: list[Match] = []
        if not self._anchors:
            return found
        done: dict[tuple[str, int], int] = {}  # ends of runs that have been followed already
        for pattern, start, _ in self._automaton.find_matches_as_indexes(folded, overlapping=True):
            for candidate in self._candidates[pattern]:
                if isinstance(candidate, _Whole):
                    if folded.startswith(candidate.text, start):
                        end = start + len(candidate.text)
                        found.append(Match(start, end, candidate.secret, candidate.encoding))
                    continue
                value, offset = candidate
                run = (value.secret, start - offset)
                if start >= done.get(run, 0):
                    begin, done[run], offset = _run(folded, start, value, offset)
                    found.extend(_slices(begin, done[run], offset, value))
        return found

    def held(self, folded: bytes) -> int:
        """How many bytes at the end may be the beginning of a needle whose rest is to come: the longest tail
        that is a proper prefix of a needle."""
        if not self._anchors:
            return 0
        tail = folded[-(self.longest - 1) :]
        run = len(tail) - len(tail.rstrip(self._inner))
        if not run:
            return 0
        tail = tail[-run:]
        for _, start, _ in self._starts.find_matches_as_indexes(tail, overlapping=True):
            if self._begins_longer(tail[start:]):
                return run - start
        sizes = range(min(run, _START_BYTES - 1), 0, -1)
        return next((size for size in sizes if tail[-size:] in self._short_starts), 0)

    def _begins_longer(self, text: bytes) -> bool:
        at = bisect_left(self._texts, text)
        if at < len(self._texts) and self._texts[at] == text:
            at += 1
        return at < len(self._texts) and self._texts[at].startswith(text)


def _automaton(patterns: Iterable[bytes]) -> BytesAhoCorasick:
    return BytesAhoCorasick(list(patterns), MatchKind.Standard, Implementation.DFA)


def _run(folded: bytes, start: int, value: _Value, offset: int) -> tuple[int, int, int]:
    """How far the data around an anchor agree with a value: begin, end, and the value's offset at begin."""
    begin, end = start, start + _SLICE_ANCHOR_BYTES
    text, back = value.folded, offset
    if start >= offset and folded.startswith(text, start - offset):
        return start - offset, start - offset + len(text), 0
    while begin and back and folded[begin - 1] == text[back - 1]:
        begin, back = begin - 1, back - 1
    last = min(len(folded), begin + len(text) - back)
    while end < last and folded[end] == text[back + end - begin]:
        end += 1
    return begin, end, back


def _slices(begin: int, end: int, offset: int, value: _Value) -> Iterator[Match]:
    """The parts of such a run that consist of slices."""
    ends = end - begin - SLICE_BYTES + 1
    at = 0
    while at < ends:
        at = value.starts.find(1, offset + at, offset + ends) - offset
        if at < 0:
            return
        stop = value.starts.find(0, offset + at, offset + ends) - offset
        stop = ends if stop < at else stop
        yield Match(begin + at, begin + stop + SLICE_BYTES - 1, value.secret, SLICE)
        at = stop


def _flags(text: bytes, starts: list[int], stride: int) -> bytes:
    """A byte 1 at each offset where a slice begins that gives the value away and contains an anchor."""
    flags = bytearray(len(text))
    for start in starts:
        if -start % stride < _STRIDE:
            flags[start] = 1
    return bytes(flags)


def _wholes(name: str, value: bytes, public: int, share: int) -> list[_Whole]:
    """A secret's needles but for slices: as many as one of ``share`` secrets may have."""
    most = MAX_NEEDLES // 2 // share
    piece_bytes = _PIECE_BYTES
    wholes = _encoded(name, value, cut(value, public, piece_bytes))
    while len(wholes) > most and piece_bytes < len(value):
        piece_bytes = -(-piece_bytes * len(wholes) // most)
        wholes = _encoded(name, value, cut(value, public, piece_bytes))
    return _within(wholes, most, MAX_NEEDLE_TEXT_BYTES // share)


def _encoded(name: str, value: bytes, pieces: list[tuple[int, int]]) -> list[_Whole]:
    """All encodings of all pieces, the most likely encodings first, each text once."""
    found: dict[bytes, str] = {}
    names = [encoding for encoding, _ in per_byte(b"")]
    columns = [[text for _, text in per_byte(value[begin:end])] for begin, end in pieces]
    rows = [(names[row], [column[row] for column in columns]) for row in range(len(names))]
    encodings = [*rows[:1], *_base64(value, pieces), *rows[1:]]
    for encoding, texts in encodings:
        for text in texts:
            found.setdefault(text.lower().lstrip(_LINE_END), encoding)
    return [_Whole(text, name, encoding) for text, encoding in found.items() if len(text) >= MIN_VALUE_BYTES]


def _base64(value: bytes, pieces: list[tuple[int, int]]) -> Iterator[tuple[str, list[bytes]]]:
    for url in (False, True):
        for encoding, core, lead, trail in base64_cores(value, url=url):
            inner = [min(len(core), -(-end * 4 // 3)) for _, end in pieces[:-1]]
            bounds = [pieces[0][0] * 4 // 3, *inner, len(core)]
            texts = [core[begin:end] for begin, end in itertools.pairwise(bounds)]
            yield encoding, [*texts, (lead if not bounds[0] else b"") + texts[0], texts[-1] + trail]


def _within(wholes: list[_Whole], most: int, most_bytes: int) -> list[_Whole]:
    kept: list[_Whole] = []
    for whole in wholes[:most]:
        most_bytes -= len(whole.text)
        if most_bytes < 0 and kept:
            break
        kept.append(whole)
    return kept
