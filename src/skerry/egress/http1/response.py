"""Responses: from bytes to events."""

import re

from skerry.egress.http1.body import Body, body_of
from skerry.egress.http1.connection_fields import HOP_BY_HOP, set_connection, take_out
from skerry.egress.http1.fields import parse_fields, refuse_duplicates, split_lines
from skerry.egress.http1.framing import response_framing
from skerry.egress.http1.head_search import HeadSearch
from skerry.egress.http1.model import (
    END,
    Data,
    Framing,
    Interim,
    Malformed,
    ResponseEvent,
    ResponseHead,
    Trailers,
    Truncated,
    Upgraded,
)
from skerry.spec.settings import EgressLimits

MAX_INTERIM = 16
# Servers leave out the space before an empty reason.
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9][0-9])(?: ([\t -~\x80-\xff]*))?")
# They would lead the client past us: to HTTP/3, to another host, to another port.
_NOT_SENT_ON = frozenset({b"alt-svc"})
_NO_BODY_EITHER = _NOT_SENT_ON | {b"content-length", b"transfer-encoding"}


def parse_response_head(head: bytes, limits: EgressLimits, *, method: bytes = b"GET") -> ResponseHead:
    """Parse a response's head.

    Args:
        head: Without the empty line at its end.
        method: Of the request that it answers.
    Raises:
        Malformed: It is not plainly well-formed.
    """
    lines = split_lines(head, limits)
    line = _STATUS_LINE.fullmatch(lines[0])
    if line is None:
        raise Malformed("not a status line")
    version, digits, reason = line.groups()
    minor, status = (1 if version == b"1" else 0), int(digits)
    fields, names = parse_fields(lines[1:])
    by_name = dict(zip(names, fields, strict=True))
    if len(by_name) != len(names):
        refuse_duplicates(names)
    framing, length = response_framing(by_name, minor, status, method)
    dropped = _NOT_SENT_ON
    if status < 200 or status == 204 or is_tunnel(status, method):
        # They have no body, whatever these fields say (RFC 9112, section 6.3).
        framing, length = Framing.NONE, 0
        dropped = _NO_BODY_EITHER
    if not dropped.isdisjoint(by_name):
        kept = [(field, name) for field, name in zip(fields, names, strict=True) if name not in dropped]
        fields, names = [field for field, _ in kept], [name for _, name in kept]
    response = ResponseHead(status, reason or b"", minor, fields, framing, length)
    if minor == 0 or not HOP_BY_HOP.isdisjoint(by_name):
        hop = take_out(fields, names, by_name, minor, may_upgrade=status == 101)
        response.fields, response.keep_alive, response.upgrade = hop.fields, hop.keep_alive, hop.upgrade
    if framing is Framing.CLOSE or not response.keep_alive:
        response.keep_alive = False
        response.fields = set_connection(response.fields, b"close")
    return response


def is_tunnel(status: int, method: bytes) -> bool:
    """Whether the connection is a tunnel after this answer to CONNECT."""
    return method == b"CONNECT" and 200 <= status < 300


class ResponseReader:
    """Reads the responses of one connection, one for each request.

    Once it has raised `Malformed` it raises it always.

    Args:
        limits: Its `head_bytes`, `fields` and `field_bytes` are used.
    """

    def __init__(self, limits: EgressLimits) -> None:
        self._limits = limits
        self._search = HeadSearch(limits, _STATUS_LINE)
        self._held = b""
        self._body: Body | None = None
        self._method: bytes | None = None
        self._minor = 1
        self._upgrade: bytes | None = None
        self._interims = 0
        self._upgraded = False
        self._broken: Malformed | None = None

    @property
    def idle(self) -> bool:
        """No answer is awaited, and nothing came that was not asked for: the connection can be used again."""
        return self._method is None and not self._held and not self._upgraded and self._broken is None

    def expect(self, method: bytes, *, minor: int = 1, upgrade: bytes | None = None) -> None:
        """A request was sent (or is being sent); its answer is awaited.

        Args:
            minor: Of the request's version.
            upgrade: Protocol that the request asked for, lower case.
        Raises:
            Malformed: Bytes came before the request that they pretend to answer.
        """
        if self._method is not None or self._upgraded:
            raise RuntimeError("another answer is awaited")
        if self._broken is not None:
            raise self._broken
        if self._held:
            raise self._break(Malformed("an answer that was not asked for"))
        self._method, self._minor, self._upgrade, self._interims = method, minor, upgrade, 0

    def feed(self, data: bytes) -> list[ResponseEvent]:
        """Take bytes of the origin; up to one final answer's events.

        What comes after an answer is kept, so that the answer itself counts, and refused by `expect`.

        Raises:
            Malformed: The connection must be closed. Events of this call are lost.
        """
        if self._broken is not None:
            raise self._broken
        if self._upgraded:
            raise RuntimeError("the connection speaks another protocol")
        if self._method is None:
            if data:
                raise self._break(Malformed("an answer that was not asked for"))
            return []
        try:
            return self._read(self._held + data if self._held else data)
        except Malformed as error:
            self._break(error)
            raise

    def eof(self) -> list[ResponseEvent]:
        """The origin will send no more.

        Raises:
            Truncated: It stopped before an answer or within one.
        """
        if self._broken is not None:
            raise self._broken
        if self._method is None:
            return []
        if self._body is None or not self._body.ends_with_connection:
            raise self._break(Truncated())
        self._method, self._body = None, None
        return [END]

    def _break(self, error: Malformed) -> Malformed:
        self._broken = error
        self._held = b""
        return error

    def _read(self, data: bytes) -> list[ResponseEvent]:
        events: list[ResponseEvent] = []
        at = 0
        while self._body is None:
            end = self._search.find_end(data, at)
            if end < 0:
                self._held = data[at:]
                return events
            head = self._parse(data[at:end])
            at = end + 4
            if 100 <= head.status < 200 and head.status != 101:
                self._count_interim()
                events.append(Interim(head))
                continue
            events.append(head)
            if head.status == 101 or is_tunnel(head.status, self._method or b""):
                return self._switch(events, data, at)
            if head.framing is Framing.NONE:
                return self._end(events, data, at)
            self._body = body_of(head.framing, head.length, self._limits, of_request=False)
        pieces: list[Data | Trailers] = []
        at = self._body.decode(data, at, pieces)
        events += pieces
        if self._body.done:
            return self._end(events, data, at)
        self._held = data[at:]
        return events

    def _parse(self, head: bytes) -> ResponseHead:
        response = parse_response_head(head, self._limits, method=self._method or b"")
        if response.framing is Framing.CHUNKED and self._minor == 0:
            raise Malformed("a chunked answer to HTTP/1.0")
        if response.status == 101 and (self._upgrade is None or response.upgrade != self._upgrade):
            raise Malformed("a switch to a protocol that was not asked for")
        return response

    def _count_interim(self) -> None:
        self._interims += 1
        if self._interims > MAX_INTERIM:
            raise Malformed("too many answers before the final one")

    def _switch(self, events: list[ResponseEvent], data: bytes, at: int) -> list[ResponseEvent]:
        self._method, self._upgraded, self._held = None, True, b""
        events.append(Upgraded(data[at:]))
        return events

    def _end(self, events: list[ResponseEvent], data: bytes, at: int) -> list[ResponseEvent]:
        events.append(END)
        self._method, self._body, self._held = None, None, data[at:]
        return events
