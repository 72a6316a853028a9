"""One request and its answer, as far as they can be told without I/O."""

from dataclasses import dataclass

from skerry.egress.http1 import (
    Data,
    End,
    Framing,
    RequestHead,
    Trailers,
    chunk,
    last_chunk,
)
from skerry.egress.substitution.model import Carried
from skerry.egress.substitution.placeholders import Strays
from skerry.egress.worker.inspect_answer import Answer
from skerry.policy.verdict import Reason

MAX_STRAYS = 16
"""Places that are named in an audit line."""


@dataclass(slots=True)
class Admitted:
    """A request that may be sent. Not changed any more.

    Attributes:
        head: As the client sent it: policy looks at it again when rules change.
        wire: The head as it goes to the origin. It may hold values of secrets.
        rule: What allowed it.
        path: For the audit trail.
        carried: Which secrets, and in which slots; `secrets` has their names, each once.
        strays: Where placeholders are that do nothing.
        scrub: The answer is searched for secrets.
        bound: The host has secrets.
        max_request_bytes, max_response_bytes: None: no limit.
        websocket_key: The request is for a WebSocket, with this key.
        generation: Of the rules that it was decided by.
        repeatable: The same head will be admitted too while these count, if budgets allow it.
    """

    head: RequestHead
    wire: bytes
    rule: str
    path: str
    carried: tuple[Carried, ...] = ()
    secrets: tuple[str, ...] = ()
    strays: tuple[str, ...] = ()
    scrub: bool = False
    bound: bool = False
    max_request_bytes: int | None = None
    max_response_bytes: int | None = None
    websocket_key: bytes | None = None
    generation: int = 0
    repeatable: bool = False

    @property
    def has_body(self) -> bool:
        """The request has a body."""
        return self.head.framing is not Framing.NONE

    def __repr__(self) -> str:
        return f"Admitted({self.rule!r})"


class Stopped(Exception):
    """The request may not go on.

    Args:
        secret: Whose placeholder strayed.
        cut: The sandbox's network must be cut.
    """

    def __init__(self, reason: Reason, secret: str = "", *, cut: bool = False) -> None:
        super().__init__(reason.value)
        self.reason = reason
        self.secret = secret
        self.cut = cut


class Exchange:
    """A request that was admitted, and what becomes of it.

    Attributes:
        ready: It may be sent: the origin is connected, and what has to be recorded first is.
        requested: The request has come whole.
        told: Something of the final answer was given to the client.
        strays: Where placeholders were that do nothing.

    Args:
        started_s: Of the event loop's clock.
        on_stray: By secret: what to do with a request that has its placeholder in the body.
    """

    __slots__ = (
        "_chunked", "_left", "_on_stray", "_searched", "_waiting", "admitted", "answer", "ready",
        "request_id", "requested", "sent_bytes", "started_s", "strays", "told",
    )  # fmt: skip

    def __init__(
        self,
        admitted: Admitted,
        answer: Answer,
        *,
        request_id: str,
        started_s: float,
        searched: Strays | None,
        on_stray: dict[str, str],
    ) -> None:
        self.admitted = admitted
        self.answer = answer
        self.request_id = request_id
        self.started_s = started_s
        self.ready = False
        self.requested = False
        self.told = False
        self.sent_bytes = 0
        self.strays = list(admitted.strays)
        self._chunked = admitted.head.framing is Framing.CHUNKED
        self._left = admitted.max_request_bytes
        self._searched = searched
        self._on_stray = on_stray
        self._waiting = [admitted.wire]

    def take(self, event: Data | Trailers | End) -> None:
        """What comes of the request after its head; it waits for `due`.

        Raises:
            Stopped: It holds what it must not.
        """
        if isinstance(event, Data):
            self._take_data(event)
        elif isinstance(event, Trailers):
            self._waiting.append(last_chunk(event.fields))
            self._chunked = False
        else:
            if self._chunked:
                self._waiting.append(last_chunk())
            self.requested = True

    def due(self) -> bytes:
        """What is to be sent to the origin now."""
        waiting, self._waiting = self._waiting, []
        return waiting[0] if len(waiting) == 1 else b"".join(waiting)

    def _take_data(self, event: Data) -> None:
        piece = event.data
        self.sent_bytes += len(piece)
        if self._left is not None and self.sent_bytes > self._left:
            raise Stopped(Reason.BODY_TOO_LARGE)
        self.search(piece)
        self._waiting.append(chunk(piece) if self._chunked else bytes(piece))

    def search(self, piece: bytes | memoryview) -> None:
        """Look for placeholders in what the client says after the head.

        Raises:
            Stopped: There is one whose rule does not want it there.
        """
        if self._searched is None:
            return
        for name, _ in self._searched.feed(bytes(piece)):
            found = f"body:{name}"
            if found not in self.strays and len(self.strays) < MAX_STRAYS:
                self.strays.append(found)
            on_stray = self._on_stray.get(name, "forward")
            if on_stray != "forward":
                raise Stopped(Reason.STRAY_PLACEHOLDER, name, cut=on_stray == "kill")
