"""The parsed form of a message head, and what delimits its body."""

from dataclasses import dataclass, field
from enum import Enum, auto

Field = tuple[bytes, bytes]
"""Name as received (its case is kept), value without surrounding white space."""


class Framing(Enum):
    """What delimits a body (RFC 9112, section 6)."""

    NONE = auto()
    LENGTH = auto()
    CHUNKED = auto()
    CLOSE = auto()


@dataclass(slots=True)
class RequestHead:
    """A request's head.

    Attributes:
        target: Origin form as received (``/a?b``), or ``*``; an absolute form is split into `authority` and
            this.
        authority: Of the absolute form or of CONNECT; None in origin form.
        scheme: Of the absolute form, lower case; None in origin form.
        minor: 0 or 1, of HTTP/1.x.
        length: For `Framing.LENGTH`, bytes.
    """

    method: bytes
    target: bytes
    minor: int
    fields: list[Field]
    framing: Framing
    length: int = 0
    authority: bytes | None = None
    scheme: bytes | None = None
    keep_alive: bool = True
    expects_continue: bool = False
    upgrade: bytes | None = None


@dataclass(slots=True)
class ResponseHead:
    """A response's head.

    ``framing`` already takes into account what the request's method and the status imply.
    """

    status: int
    reason: bytes
    minor: int
    fields: list[Field]
    framing: Framing
    length: int = 0
    keep_alive: bool = True
    upgrade: bytes | None = None


@dataclass(slots=True)
class Trailers:
    """Fields after the last chunk."""

    fields: list[Field] = field(default_factory=list)


class Malformed(Exception):
    """The peer's bytes are not plainly well-formed; the connection must be closed.

    Args:
        what: A fixed text; never holds bytes of the peer.
    """

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what
