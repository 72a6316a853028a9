"""Slots: the places of a request where a secret may stand, and nowhere else (G33). Pure.

``header:x-api-key``, ``header:authorization=Bearer {}``, ``basic:user``, ``basic:password``, ``query:key``,
``path:/bot{}/**``. The whole value must fit: what stands around the placeholder is a scheme and one space, or
exactly what the slot says. Without `slots` a rule has `DEFAULT`: the credential headers and both parts of
Basic.
"""

import binascii
import re
from base64 import b64decode, b64encode
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from skerry.policy.credential_headers import HEADERS, NEVER_SENT
from skerry.policy.names import BadPattern
from skerry.policy.paths import PathPattern
from skerry.policy.paths import parse as parse_path

MAX_SLOTS = 32

_TOKEN = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]{1,64}", re.ASCII)
_SCHEME = re.compile(rb"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,32} ")
_PARAMETER = re.compile(r"[A-Za-z0-9._~-]{1,64}", re.ASCII)
_AROUND = re.compile(r"[\x20-\x7e]{0,64}", re.ASCII)
_HOLE = "{}"
_STANDS_FOR_HOLE = "SKERRYHOLE"

_FORBIDDEN_HEADERS = frozenset(
    (
        "accept-encoding",
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "cookie",
        "date",
        "expect",
        "host",
        "keep-alive",
        "range",
        "referer",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "user-agent",
        "via",
    )
)


class SlotKind(StrEnum):
    """Which part of a request."""

    HEADER = "header"
    BASIC = "basic"
    QUERY = "query"
    PATH = "path"


_KINDS = frozenset(one.value for one in SlotKind)


@dataclass(frozen=True, slots=True)
class Slot:
    """One place.

    Attributes:
        name: Of the header (lower case) or parameter; ``user`` or ``password``; the pattern of a path.
        around: What stands before and after in a header; None: nothing, or a scheme and one space before.
        path: For `SlotKind.PATH`: the pattern, whose segment `hole` holds the placeholder.
    """

    kind: SlotKind
    name: str
    around: tuple[str, str] | None = None
    path: PathPattern | None = None
    hole: int = -1

    @property
    def text(self) -> str:
        """As it is written."""
        template = "" if self.around is None else f"={self.around[0]}{_HOLE}{self.around[1]}"
        return f"{self.kind.value}:{self.name}{template}"

    @property
    def field(self) -> bytes:
        """The header field that it is in, lower case; empty for the query and the path."""
        if self.kind is SlotKind.BASIC:
            return b"authorization"
        return self.name.encode("ascii") if self.kind is SlotKind.HEADER else b""

    def around_of(self, value: bytes, placeholder: bytes) -> tuple[bytes, bytes] | None:
        """What stands around the placeholder in a header's value, when the whole value fits this slot.

        Only for `SlotKind.HEADER`. None: it does not fit, or the placeholder is not there exactly once.
        """
        front, found, back = value.partition(placeholder)
        if not found or placeholder in back:
            return None
        if self.around is not None:
            fits = front == self.around[0].encode("ascii") and back == self.around[1].encode("ascii")
        else:
            fits = not back and (not front or _SCHEME.fullmatch(front) is not None)
        return (front, back) if fits else None

    def in_path(self, segments: tuple[str, ...], placeholder: str) -> int | None:
        """Which segment of a canonical path is the placeholder's, when the path fits this slot.

        Only for `SlotKind.PATH`.
        """
        if self.path is None or not self.path.matches(segments):
            return None
        front, back = self.path.segments[self.hole]
        return self.hole if segments[self.hole] == f"{front}{placeholder}{back}" else None

    def covers(self, other: "Slot") -> bool:
        """Whether whatever fits the other fits this one."""
        if self == other:
            return True
        if self.kind is not other.kind or self.name != other.name or self.kind is not SlotKind.HEADER:
            return False
        if self.around is not None or other.around is None:
            return False
        front, back = other.around
        return not back and (not front or _SCHEME.fullmatch(front.encode("ascii")) is not None)


def basic_parts(value: bytes) -> tuple[bytes, bytes] | None:
    """User and password of ``Basic …`` (RFC 7617); None when the value is not exactly that.

    The base64 must be canonical: what is judged is then what every origin decodes.
    """
    if value[:6].lower() != b"basic ":
        return None
    text = value[6:].strip(b" ")
    try:
        decoded = b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    user, colon, password = decoded.partition(b":")
    if not colon or b64encode(decoded) != text:
        return None
    return user, password


def basic_value(user: bytes, password: bytes) -> bytes:
    """The inverse of `basic_parts`."""
    return b"Basic " + b64encode(user + b":" + password)


def parse(text: str) -> Slot:
    """A slot as it is written.

    Raises:
        BadPattern: With what is wrong and what to write instead.
    """
    kind, colon, rest = text.partition(":")
    if not colon or kind not in _KINDS or len(text) > 512:
        raise BadPattern(
            "a slot is header:NAME, header:NAME=TEMPLATE, basic:user, basic:password, query:NAME or"
            " path:PATTERN"
        )
    match SlotKind(kind):
        case SlotKind.HEADER:
            return _header(rest)
        case SlotKind.BASIC:
            if rest not in ("user", "password"):
                raise BadPattern("write basic:user or basic:password")
            return Slot(SlotKind.BASIC, rest)
        case SlotKind.QUERY:
            if _PARAMETER.fullmatch(rest) is None:
                raise BadPattern("the name of a parameter has letters, digits and . _ ~ -")
            return Slot(SlotKind.QUERY, rest)
        case SlotKind.PATH:
            return _path(rest)


def for_rule(texts: Iterable[str]) -> tuple[Slot, ...]:
    """The slots of a rule; `DEFAULT` when it names none."""
    return tuple(map(parse, texts)) or DEFAULT


def _header(rest: str) -> Slot:
    name, equals, template = rest.partition("=")
    name = name.lower()
    if _TOKEN.fullmatch(name) is None:
        raise BadPattern("a slot in a header needs its name, as in header:x-api-key")
    alike = name.replace("_", "-")
    if alike in _FORBIDDEN_HEADERS or alike.startswith(("proxy-", "sec-", "x-forwarded-")):
        raise BadPattern(f"the header {name} cannot be a slot")
    if not equals:
        return Slot(SlotKind.HEADER, name)
    if template.count(_HOLE) != 1 or _AROUND.fullmatch(template) is None:
        raise BadPattern("the template of a slot has {} once, as in header:authorization=Bearer {}")
    front, _, back = template.partition(_HOLE)
    if front != front.lstrip() or back != back.rstrip():
        raise BadPattern("the template of a slot has no white space at its ends")
    return Slot(SlotKind.HEADER, name, (front, back))


def _path(rest: str) -> Slot:
    if rest.count(_HOLE) != 1:
        raise BadPattern("a slot in the path has {} once, as in path:/bot{}/**")
    pattern = parse_path(rest.replace(_HOLE, _STANDS_FOR_HOLE))
    segments = list(pattern.segments)
    hole = next(at for at, (front, back) in enumerate(segments) if _STANDS_FOR_HOLE in front + (back or ""))
    front, back = segments[hole]
    if back is not None:
        raise BadPattern("the segment with {} may not also hold a *")
    before, _, after = front.partition(_STANDS_FOR_HOLE)
    segments[hole] = (before, after)
    return Slot(SlotKind.PATH, rest, None, PathPattern(tuple(segments), pattern.below, rest), hole)


DEFAULT = (
    *(Slot(SlotKind.HEADER, name) for name in HEADERS if name.encode("ascii") != NEVER_SENT),
    Slot(SlotKind.BASIC, "user"),
    Slot(SlotKind.BASIC, "password"),
)
