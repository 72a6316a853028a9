"""Requests: from bytes to events."""

import re

from skerry.egress.http1.body import Body, body_of
from skerry.egress.http1.connection_fields import HOP_BY_HOP, take_out
from skerry.egress.http1.fields import parse_fields, refuse_duplicates, split_lines
from skerry.egress.http1.framing import request_framing
from skerry.egress.http1.head_search import HeadSearch
from skerry.egress.http1.model import (
    END,
    Data,
    Field,
    Framing,
    Malformed,
    RequestEvent,
    RequestHead,
    Trailers,
    Truncated,
)
from skerry.egress.http1.target import DEFAULT_PORTS, same_authority, split_absolute, split_authority
from skerry.spec.settings import EgressLimits

# Methods are upper case: no server knows others, but some take `delete` for `DELETE` behind our back. Targets
# are ASCII without a fragment; which of the rest is canonical is policy's to say.
_REQUEST_LINE = re.compile(rb"([A-Z][A-Z0-9_-]{0,31}) ([!-\"$-~]+) HTTP/1\.([01])")

MAX_REMEMBERED_BYTES = 4_096
"""Of a head that is compared with the next one."""


def parse_request_head(head: bytes, limits: EgressLimits, *, proxy: bool = False) -> RequestHead:
    """Parse a request's head.

    Args:
        head: Without the empty line at its end.
        proxy: The client takes us for its proxy: CONNECT is allowed.
    Raises:
        Malformed: It is not plainly well-formed, or belongs to the forms that servers read in different ways.
    """
    lines = split_lines(head, limits)
    line = _REQUEST_LINE.fullmatch(lines[0])
    if line is None:
        raise Malformed("not a request line")
    method, target, version = line.groups()
    minor = 1 if version == b"1" else 0
    fields, names = parse_fields(lines[1:])
    by_name = dict(zip(names, fields, strict=True))
    if len(by_name) != len(names):
        refuse_duplicates(names)
    framing, length = request_framing(by_name, minor)
    request = RequestHead(method, target, minor, fields, framing, length)
    _judge_method(request, proxy=proxy)
    _set_host(request, by_name.get(b"host"))
    expect = by_name.get(b"expect")
    if expect is not None:
        if expect[1].lower() != b"100-continue":
            raise Malformed("an unknown expectation")
        request.expects_continue = minor == 1 and framing is not Framing.NONE
    if minor == 0 or not HOP_BY_HOP.isdisjoint(by_name):
        # Only fields that came stand in `fields` before a Host of our own.
        own = fields[: len(fields) - len(names)]
        hop = take_out(fields[len(own) :], names, by_name, minor, may_upgrade=method == b"GET")
        request.fields = own + hop.fields
        request.keep_alive = hop.keep_alive
        request.upgrade = hop.upgrade
        if hop.upgrade is not None and framing is not Framing.NONE:
            raise Malformed("an upgrade with a body")
    return request


def _judge_method(request: RequestHead, *, proxy: bool) -> None:
    if request.method == b"TRACE":
        raise Malformed("TRACE", 405)
    if request.method == b"CONNECT":
        if not proxy:
            raise Malformed("CONNECT within a connection to an origin", 405)
        if request.framing is not Framing.NONE:
            raise Malformed("CONNECT with a body")


def _set_host(request: RequestHead, host: Field | None) -> None:
    """Fill in what the target and ``Host`` say about the authority.

    Raises:
        Malformed: No host in HTTP/1.1, not a host, or the two differ (with status 421).
    """
    if host is not None:
        request.host = host[1]
        split_authority(host[1])
    elif request.minor:
        raise Malformed("no Host")
    target = request.target
    if target[0] == 0x2F and request.method != b"CONNECT":
        return
    if target == b"*":
        if request.method != b"OPTIONS":
            raise Malformed("the target * without OPTIONS")
        return
    default_port = None
    if request.method == b"CONNECT":
        request.authority, request.target = target, b""
        if split_authority(target)[1] is None:
            raise Malformed("CONNECT without a port")
        default_port = split_authority(target)[1]
    else:
        request.scheme, request.authority, request.target = split_absolute(target, request.method)
        default_port = DEFAULT_PORTS[request.scheme]
    if request.host is None:
        request.host = request.authority
        request.fields.insert(0, (b"Host", request.authority))
    elif not same_authority(request.host, request.authority, default_port):
        raise Malformed("Host and the request target name different authorities", 421)


class RequestReader:
    """Reads the requests of one connection, one at a time.

    After `END` nothing is read until `next()`: what the client sends ahead is kept, within bounds.
    Once it has raised `Malformed` it raises it always.

    A head that is the same as the one before, byte for byte, is given out as the same object: nobody may
    change it, and whoever has decided about it can tell.

    Args:
        limits: Its `head_bytes`, `fields`, `field_bytes` and `buffer_bytes` are used.
        proxy: The client takes us for its proxy: CONNECT is allowed.
    """

    def __init__(self, limits: EgressLimits, *, proxy: bool = False) -> None:
        self._limits = limits
        self._proxy = proxy
        self._search = HeadSearch(limits, _REQUEST_LINE)
        self._held = b""
        self._body: Body | None = None
        self._at_end = False
        self._broken: Malformed | None = None
        self._last: RequestHead | None = None
        self._last_bytes = b""

    @property
    def idle(self) -> bool:
        """Between requests, with nothing of the next one here."""
        return self._body is None and not self._at_end and not self._held

    @property
    def in_head(self) -> bool:
        """A part of a head is here."""
        return self._body is None and not self._at_end and bool(self._held)

    @property
    def wants_data(self) -> bool:
        """False: so much was sent ahead that the client should be made to wait."""
        return not self._at_end or len(self._held) < self._limits.head_bytes

    def feed(self, data: bytes) -> list[RequestEvent]:
        """Take bytes of the client; up to one request's events.

        Raises:
            Malformed: The connection must be closed. Events of this call are lost, those of earlier calls
                stand; nothing of a head is given out before all of it was judged.
        """
        if self._broken is not None:
            raise self._broken
        if self._held:
            data = self._held + data
        if self._at_end:
            if len(data) > 2 * self._limits.buffer_bytes:
                raise self._break(Malformed("too much was sent ahead"))
            self._held = data
            return []
        return self._advance(data)

    def next(self) -> list[RequestEvent]:
        """Go on to the next request, with what was sent ahead.

        Raises:
            Malformed: As `feed`.
        """
        if not self._at_end:
            raise RuntimeError("the request before has not ended")
        self._at_end = False
        data, self._held = self._held, b""
        return self._advance(data) if data else []

    def rest(self) -> bytes:
        """Take what came after the request, which turned out to speak another protocol (CONNECT, Upgrade)."""
        if not self._at_end:
            raise RuntimeError("the request has not ended")
        data, self._held = self._held, b""
        return data

    def eof(self) -> None:
        """The client will send no more.

        Raises:
            Truncated: It stopped within a request.
        """
        if not self.idle and not self._at_end:
            raise self._break(Truncated())

    def _break(self, error: Malformed) -> Malformed:
        self._broken = error
        self._held = b""
        return error

    def _advance(self, data: bytes) -> list[RequestEvent]:
        try:
            return self._read(data)
        except Malformed as error:
            self._break(error)
            raise

    def _read(self, data: bytes) -> list[RequestEvent]:
        events: list[RequestEvent] = []
        at = 0
        if self._body is None:
            if self._last is not None and data.startswith(self._last_bytes) and self._search.fresh:
                head, at = self._last, len(self._last_bytes)
            else:
                end = self._search.find_end(data, 0)
                if end < 0:
                    self._held = data
                    return events
                at = end + 4
                head = parse_request_head(data[:end], self._limits, proxy=self._proxy)
                self._remember(data[:at], head)
            events.append(head)
            if head.framing is Framing.NONE:
                return self._end(events, data, at)
            self._body = body_of(head.framing, head.length, self._limits, of_request=True)
        pieces: list[Data | Trailers] = []
        at = self._body.decode(data, at, pieces)
        events += pieces
        if self._body.done:
            self._body = None
            return self._end(events, data, at)
        self._held = data[at:]
        return events

    def _remember(self, data: bytes, head: RequestHead) -> None:
        if len(data) <= MAX_REMEMBERED_BYTES:
            self._last, self._last_bytes = head, data

    def _end(self, events: list[RequestEvent], data: bytes, at: int) -> list[RequestEvent]:
        events.append(END)
        self._at_end = True
        self._held = data[at:]
        return events
