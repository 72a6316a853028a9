"""Request paths: the one canonical form, and the patterns that limit them. Pure.

Where a rule limits paths, what it judged must be what the origin understands (M3). So the path is brought to
a canonical form, which is also what is sent, and every spelling that some server might read in another way is
refused: escaped slashes, backslashes, dots, NULs and controls, ``?`` and ``#``; double escapes; escapes of
characters that need none; overlong or broken UTF-8 and letters that some systems turn into a slash or dot;
``;`` parameters; empty segments; segments that end in a dot or a space; a fragment. Literal ``.`` and ``..``
are resolved, but not above the root. Hexadecimal digits become upper case. Paths have case.

Where no rule limits paths the target is sent as it came (`check` only refuses what no target may hold): some
interfaces need ``%2F`` in a segment, and exact bytes are kept.
"""

import re
import unicodedata
from dataclasses import dataclass, field

from skerry.policy.names import BadPattern

MAX_PATTERNS = 200
MAX_PATTERN_LENGTH = 2_048

_TARGET = re.compile(rb"[\x21\x22\x24-\x7e\x80-\xff]+")
_PLAIN = re.compile(rb"(?:/[A-Za-z0-9_~!$&'()*+,=:@.-]*[A-Za-z0-9_~!$&'()*+,=:@-])+/?")
_DOTS = re.compile(rb"/\.")
_SEGMENT = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,=:@-]|%[0-9A-F]{2})*", re.ASCII)
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_REFUSED = frozenset(range(0x20)) | frozenset(b"/\\;?#\x7f")
_HEX = frozenset(b"0123456789abcdefABCDEF")
_SPECIAL = frozenset("/\\.;%?#")


class NotCanonical(ValueError):
    """A target that may be read in more than one way. The text is fixed, and safe to show."""


@dataclass(frozen=True, slots=True)
class Target:
    """A request's target in canonical form.

    Attributes:
        segments: What stands between the slashes, escaped; the last one is empty after a trailing slash.
        query: As it came, with its question mark; empty when there is none.
    """

    segments: tuple[str, ...]
    query: bytes = b""
    _as_it_came: bytes = field(default=b"", repr=False, compare=False)

    @property
    def encoded(self) -> bytes:
        """What is to be sent."""
        if self._as_it_came:
            return self._as_it_came
        return b"/" + "/".join(self.segments).encode("ascii") + self.query


def check(raw: bytes) -> bool:
    """Whether bytes may be a target at all: origin form or ``*``, no white space, control or fragment."""
    return (raw[:1] == b"/" or raw == b"*") and _TARGET.fullmatch(raw) is not None


def canonical(raw: bytes) -> Target:
    """Bring an origin-form target (``/a/b?c``) to its canonical form.

    Raises:
        NotCanonical: See the module's text.
    """
    path, mark, rest = raw.partition(b"?")
    query = mark + rest
    if _TARGET.fullmatch(raw) is None:
        raise NotCanonical("white space, a control character or a fragment in the target")
    if path == b"/":
        return Target(("",), query)
    if _PLAIN.fullmatch(path) is not None and _DOTS.search(path) is None:
        return Target(tuple(path[1:].decode("ascii").split("/")), query, raw)
    if path[:1] != b"/":
        raise NotCanonical("the target is not a path")
    return Target(_resolved([_segment(part) for part in path[1:].split(b"/")]), query)


def _resolved(parts: list[str]) -> tuple[str, ...]:
    done: list[str] = []
    last = len(parts) - 1
    for at, part in enumerate(parts):
        if part in (".", ".."):
            if part == ".." and not done:
                raise NotCanonical("the path leads above its root")
            if part == "..":
                done.pop()
            if at == last:
                done.append("")
            continue
        if not part and at != last:
            raise NotCanonical("an empty segment in the path")
        if part.endswith((".", "%20")):
            raise NotCanonical("a segment of the path ends in a dot or a space")
        done.append(part)
    return tuple(done)


def _segment(part: bytes) -> str:
    """Check one segment and write its escapes in upper case."""
    if b"%" not in part and part.isascii():
        if b";" in part:
            raise NotCanonical("parameters (;) in the path")
        text = part.decode("ascii")
        if _SEGMENT.fullmatch(text) is None:
            raise NotCanonical("a character in the path that must be escaped")
        return text
    written, decoded = _escapes(part)
    try:
        plain = decoded.decode("utf-8")
    except UnicodeDecodeError:
        raise NotCanonical("escapes in the path that are not UTF-8") from None
    if not plain.isascii():
        _check_letters(plain)
    if _SEGMENT.fullmatch(written) is None:
        raise NotCanonical("a character in the path that must be escaped")
    return written


def _escapes(part: bytes) -> tuple[str, bytes]:
    """The segment with upper-case escapes, and what it stands for."""
    written: list[str] = []
    decoded = bytearray()
    at = 0
    while at < len(part):
        byte = part[at]
        if byte != 0x25:
            if byte > 0x7E or byte in _REFUSED:
                raise NotCanonical("a character in the path that must be escaped, or parameters (;)")
            written.append(chr(byte))
            decoded.append(byte)
            at += 1
            continue
        digits = part[at + 1 : at + 3]
        if len(digits) != 2 or not _HEX.issuperset(digits):
            raise NotCanonical("a percent sign in the path without two hexadecimal digits")
        value = int(digits, 16)
        if value in _REFUSED:
            raise NotCanonical("an escaped slash, backslash, mark or control character in the path")
        if value in _UNRESERVED:
            raise NotCanonical("an escape in the path that is not needed")
        if value == 0x25 and len(part) >= at + 5 and _HEX.issuperset(part[at + 3 : at + 5]):
            raise NotCanonical("a doubly escaped character in the path")
        written.append(f"%{value:02X}")
        decoded.append(value)
        at += 3
    return "".join(written), bytes(decoded)


def _check_letters(plain: str) -> None:
    """Refuse letters that a careless origin turns into a character with a meaning, and invisible ones."""
    for letter in plain:
        if letter.isascii():
            continue
        if unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"):
            raise NotCanonical("an invisible character in the path")
        if letter in "\u2044\u2215\u29f8\u2216\u29f5" or _SPECIAL.intersection(
            unicodedata.normalize("NFKC", letter)
        ):
            raise NotCanonical("a letter in the path that looks like a slash, dot or mark")


@dataclass(frozen=True, slots=True)
class PathPattern:
    """``/repos/acme/*/issues``, ``/v1/**``, ``/files/*.json``.

    Attributes:
        segments: Front and back of each; a back of None: the front is the whole segment. Otherwise one
            character at least must be between them.
        below: It ends in ``**``: anything, also nothing, may follow the last slash.
        text: As it was written.
    """

    segments: tuple[tuple[str, str | None], ...]
    below: bool
    text: str

    def matches(self, segments: tuple[str, ...]) -> bool:
        """Whether a canonical path is one of these."""
        wanted = self.segments
        if len(segments) != len(wanted) and not (self.below and len(segments) > len(wanted)):
            return False
        if self.below and len(segments) == len(wanted):
            return False
        return all(map(_fits, wanted, segments))

    def covers(self, other: "PathPattern") -> bool:
        """Whether every path of the other is one of these; may say no where it is so."""
        if other.below and not self.below:
            return False
        if len(other.segments) < len(self.segments) or (
            not self.below and len(other.segments) != len(self.segments)
        ):
            return False
        if self.below and not other.below and len(other.segments) == len(self.segments):
            return False
        return all(
            mine == theirs or (theirs[1] is None and _fits(mine, theirs[0])) or _wider(mine, theirs)
            for mine, theirs in zip(self.segments, other.segments, strict=False)
        )


def _fits(wanted: tuple[str, str | None], segment: str) -> bool:
    front, back = wanted
    if back is None:
        return segment == front
    return len(segment) > len(front) + len(back) and segment.startswith(front) and segment.endswith(back)


def _wider(mine: tuple[str, str | None], theirs: tuple[str, str | None]) -> bool:
    return (
        mine[1] is not None
        and theirs[1] is not None
        and theirs[0].startswith(mine[0])
        and theirs[1].endswith(mine[1])
    )


class Paths:
    """Several patterns, quick to ask."""

    __slots__ = ("_below", "_plain", "_wild", "patterns")

    def __init__(self, patterns: tuple[PathPattern, ...]) -> None:
        self.patterns = patterns
        self._plain = frozenset(
            tuple(front for front, _ in one.segments)
            for one in patterns
            if not one.below and all(back is None for _, back in one.segments)
        )
        self._below = any(one.below and not one.segments for one in patterns)
        self._wild = tuple(
            one for one in patterns if one.below or any(back is not None for _, back in one.segments)
        )

    def allow(self, segments: tuple[str, ...]) -> bool:
        """Whether one of the patterns has this canonical path."""
        return self._below or segments in self._plain or any(one.matches(segments) for one in self._wild)


def parse(text: str) -> PathPattern:
    """A pattern as it is written in a rule.

    Segments are literal, or hold one ``*`` that stands for one character or more of that segment. ``**`` may
    be the last segment: everything below, so ``/v1/**`` has ``/v1/`` and ``/v1/a/b``, but not ``/v1``.

    Raises:
        BadPattern: With what is wrong.
    """
    if len(text) > MAX_PATTERN_LENGTH:
        raise BadPattern(f"a path pattern may have {MAX_PATTERN_LENGTH} characters")
    if not text.startswith("/"):
        raise BadPattern("a path pattern starts with a slash, such as /v1/**")
    if "?" in text or "#" in text:
        raise BadPattern("a path pattern has no query and no fragment")
    parts = text[1:].split("/")
    below = parts[-1] == "**"
    if below:
        parts.pop()
    last = -1 if below else len(parts) - 1
    segments = tuple(_pattern_segment(part, last=at == last) for at, part in enumerate(parts))
    return PathPattern(segments, below, text)


def parse_all(texts: tuple[str, ...]) -> Paths:
    """All patterns of a rule."""
    return Paths(tuple(map(parse, texts)))


def _pattern_segment(part: str, *, last: bool) -> tuple[str, str | None]:
    if "**" in part:
        raise BadPattern("** may only be the last segment of a path pattern, as in /v1/**")
    if part.count("*") > 1:
        raise BadPattern("a segment of a path pattern may hold one *")
    if not part and not last:
        raise BadPattern("an empty segment in a path pattern")
    if part in (".", ".."):
        raise BadPattern("write a path pattern in its canonical form, without . and ..")
    front, star, back = part.partition("*")
    literal = front + ("x" if star else "") + back
    try:
        canon = _resolved([_segment(literal.encode("utf-8"))])
    except NotCanonical as error:
        raise BadPattern(f"{error}; such a path is never allowed, so the pattern matches nothing") from None
    if canon != (literal,):
        raise BadPattern(
            "write a path pattern in its canonical form: without . and .., with upper-case escapes"
        )
    return front, back if star else None
