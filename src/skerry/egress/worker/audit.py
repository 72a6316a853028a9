"""The sandbox's audit trail, as its worker writes it: one JSON object per connection, request and refusal.

Lines are numbered without gaps and handed to the broker. They hold names of secrets and slots, and never
values, placeholders, header values or query values.
"""

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Literal, Protocol

import msgspec

from skerry.egress.messages import Line
from skerry.egress.worker.limits import Clock
from skerry.egress.worker.repeats import Repeats
from skerry.policy.verdict import Mode, Reason

CONFIRM_S = 5.0
"""Longest wait for the broker to say that a line is in the file."""

MAX_TEXT = 1024
"""Characters of a name or path in a line; the rest is cut off."""


class Event(StrEnum):
    """What a line is about."""

    CONNECTION = "connection"
    """Something was decided about a connection."""
    CLOSED = "closed"
    """An allowed connection has ended."""
    REQUEST = "request"
    """Something was decided about a request; of an allowed one that carries a secret, before it is sent."""
    RESPONSE = "response"
    """An allowed request has been answered."""
    DNS = "dns"
    """A look-up was refused."""
    LIMIT = "limit"
    """A bound was met."""
    CLIENT_UNTRUSTED_CA = "client_untrusted_ca"
    """A client inside does not trust the sandbox's certificate authority."""
    SCRUBBED = "scrubbed"
    """A response held a secret."""
    REPEATED = "repeated"
    """The same as an earlier line, so many times more."""
    LOST = "lost"
    """So many lines could not be written."""


class SecretUse(msgspec.Struct, frozen=True):
    """A secret that a request carried, and where."""

    name: str
    slot: str


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is to be told. Everything that is not known or not meaningful stays out of the line.

    Attributes:
        flow: Which connection, counted in the worker's life.
        request_id: As the sandbox was told.
        host, port: Where to, as the sandbox asked for it.
        sni, authority: As the client named it, where it differs or was refused.
        dialled: The address that was connected to.
        path: See `AuditTrail.path`.
        sent_bytes, received_bytes: From and to the sandbox.
        strays: Where placeholders were that were left as they are, such as ``body`` or ``header:x-note``.
        scrubbed: Where secrets were masked in the answer, such as ``body:base64``.
        limit: The setting of the bound that was met.
        count: For `Event.REPEATED` and `Event.LOST`.
        note: Fixed words.
    """

    event: Event
    decision: Literal["allow", "deny", ""] = ""
    flow: int = 0
    request_id: str = ""
    rule: str = ""
    reason: Reason | None = None
    host: str = ""
    port: int = 0
    sni: str = ""
    authority: str = ""
    alpn: str = ""
    dialled: str = ""
    mode: Mode | None = None
    via: str = ""
    method: str = ""
    path: str = ""
    status: int = 0
    sent_bytes: int = 0
    received_bytes: int = 0
    duration_ms: int = 0
    secrets: tuple[SecretUse, ...] = ()
    strays: tuple[str, ...] = ()
    scrubbed: tuple[str, ...] = ()
    limit: str = ""
    count: int = 0
    note: str = ""

    def with_request(self, request_id: str) -> "Entry":
        """The same, about one request."""
        return msgspec.structs.replace(self, request_id=request_id)


class _Numbered(msgspec.Struct, frozen=True, kw_only=True):
    seq: int
    time_ms: int
    sandbox: str
    version: int


class Channel(Protocol):
    """The way to the broker."""

    def room(self) -> int:
        """How many messages more it takes now."""
        ...

    def send(self, message: Line) -> None:
        """Send, in order. Only while there is room."""
        ...


class AuditTrail:
    """Numbers lines and sends them.

    Args:
        sandbox: Its ID.
        next_seq: The first line's number.
        now_ms: Wall clock.
        version: Asked for the policy's present version.
    """

    def __init__(
        self,
        channel: Channel,
        *,
        sandbox: str,
        next_seq: int,
        clock: Clock,
        now_ms: Callable[[], int],
        version: Callable[[], int],
    ) -> None:
        self._channel = channel
        self._sandbox = sandbox
        self._next_seq = next_seq
        self._now_ms = now_ms
        self._version = version
        self._repeats: Repeats[Entry] = Repeats(clock)
        self._lost = 0
        self._clock = clock
        self._waiting: dict[int, tuple[Callable[[bool], None], float]] = {}
        self._placeholders: tuple[tuple[str, str], ...] = ()

    def know_placeholders(self, placeholders: Sequence[tuple[str, str]]) -> None:
        """What to keep out of paths from now on: placeholders and the names of their secrets."""
        self._placeholders = tuple(placeholders)

    def record(self, entry: Entry) -> None:
        """Write a line. One that finds no room is counted, and the count is told as soon as there is room.

        Of refusals that are the same, those after the hundredth in a minute are told as one number.
        """
        if entry.decision == "deny" or entry.event is Event.LIMIT:
            key = (entry.event, entry.reason, entry.limit, entry.host, entry.port)
            if not self._repeats.admit(key, entry):
                return
        self._put(entry, confirm=False)

    def when_written(self, entry: Entry, then: Callable[[bool], None]) -> None:
        """Write a line, and call back when it is in the file.

        Not a coroutine: every request with a secret waits here, and a task and a timer would cost more than
        the rest of it.

        Args:
            then: Called once; with False when there is no room (then at once), or no answer within
                `CONFIRM_S`: what the line is about must not be (`Reason.AUDIT_UNAVAILABLE`), though the line
                may be written.
        """
        seq = self._put(entry, confirm=True)
        if seq == 0:
            then(False)
        else:
            self._waiting[seq] = (then, self._clock() + CONFIRM_S)

    def written(self, seq: int) -> None:
        """The broker has written all lines up to this number."""
        # In order of their numbers.
        while self._waiting and (first := next(iter(self._waiting))) <= seq:
            then, _ = self._waiting.pop(first)
            then(True)

    def tick(self) -> None:
        """To be called about once a second: tells repeated refusals whose minute is over, and losses, and
        gives up what has waited for too long."""
        now_s = self._clock()
        while self._waiting and next(iter(self._waiting.values()))[1] <= now_s:
            then, _ = self._waiting.pop(next(iter(self._waiting)))
            then(False)
        for entry, count in self._repeats.due():
            self._put(_repeated(entry, count), confirm=False)
        if self._lost and self._channel.room() > 1:
            self._tell_lost()

    def path(self, target: bytes) -> str:
        """A request target as it may stand in a line: without query values, placeholders by their names."""
        text = target.decode("latin-1").encode("ascii", "backslashreplace").decode()
        for placeholder, name in self._placeholders:
            text = text.replace(placeholder, f"{{{name}}}")
        path, mark, query = text.partition("?")
        if mark:
            names = [part.partition("=")[0] for part in query[:MAX_TEXT].split("&")]
            path = f"{path}?{'&'.join(names)}"
        return path[:MAX_TEXT]

    def _put(self, entry: Entry, *, confirm: bool) -> int:
        room = self._channel.room()
        if self._lost and room > 1:
            self._tell_lost()
            room -= 1
        # One place is kept for the line that tells of losses.
        if room < 2:
            self._lost += 1
            return 0
        return self._send(entry, confirm)

    def _tell_lost(self) -> None:
        self._send(Entry(event=Event.LOST, count=self._lost), confirm=False)
        self._lost = 0

    def _send(self, entry: Entry, confirm: bool) -> int:
        seq = self._next_seq
        self._next_seq += 1
        front = msgspec.json.encode(
            _Numbered(seq=seq, time_ms=self._now_ms(), sandbox=self._sandbox, version=self._version())
        )
        # Two objects made one; an entry is never empty.
        text = front[:-1] + b"," + msgspec.json.encode(entry)[1:]
        self._channel.send(Line(seq, text, confirm))
        return seq


def _repeated(entry: Entry, count: int) -> Entry:
    return Entry(
        event=Event.REPEATED,
        decision=entry.decision,
        reason=entry.reason,
        rule=entry.rule,
        host=entry.host,
        port=entry.port,
        limit=entry.limit,
        count=count,
        note=str(entry.event),
    )
