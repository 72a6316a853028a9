"""The parsed form of messages, as events of the readers and as what the writers take.

The fields of a parsed head are those that go on: what concerned only the peer's own connection is gone, and
``Connection`` is rewritten in its place. What policy sees is therefore what is sent.
"""

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
            this. Empty for CONNECT.
        authority: Of the absolute form or of CONNECT; None in origin form. It equals `host`.
        scheme: Of the absolute form, lower case; None in origin form.
        minor: 0 or 1, of HTTP/1.x.
        host: The value of ``Host``; None only in HTTP/1.0.
        length: For `Framing.LENGTH`, bytes.
        keep_alive: Another request may follow.
        expects_continue: The client waits for ``100 Continue``.
        upgrade: The protocol that is asked for, lower case; never a form of HTTP/2, which is ignored.
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
    host: bytes | None = None


@dataclass(slots=True)
class ResponseHead:
    """A response's head.

    ``framing`` already takes into account what the request's method and the status imply.

    Attributes:
        length: For `Framing.LENGTH`, bytes.
        keep_alive: Another answer may follow on the connection.
        upgrade: The protocol that is switched to, lower case; only with status 101.
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
class Interim:
    """An answer before the final one (1xx, but not 101)."""

    head: ResponseHead


@dataclass(slots=True)
class Data:
    """A piece of a body, without its framing; a view where copying would cost more."""

    data: bytes | memoryview


@dataclass(slots=True)
class Trailers:
    """Fields after the last chunk."""

    fields: list[Field] = field(default_factory=list)


@dataclass(slots=True)
class End:
    """The message is complete."""


@dataclass(slots=True)
class Upgraded:
    """The connection now speaks another protocol.

    Attributes:
        rest: What of it came together with the head.
    """

    rest: bytes


END = End()

RequestEvent = RequestHead | Data | Trailers | End
ResponseEvent = Interim | ResponseHead | Data | Trailers | End | Upgraded


class Malformed(Exception):
    """The peer's bytes are not plainly well-formed; the connection must be closed.

    Args:
        what: A fixed text; never holds bytes of the peer.
        status: What a client that sent such a request is answered with.
    """

    def __init__(self, what: str, status: int = 400) -> None:
        super().__init__(what)
        self.what = what
        self.status = status


class Truncated(Malformed):
    """The peer ended the connection within a message."""

    def __init__(self) -> None:
        super().__init__("the connection ended within a message")
