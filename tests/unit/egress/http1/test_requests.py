"""Requests as clients send them: heads, bodies, pipelining, what concerns the connection."""

import pytest

from skerry.egress.http1 import (
    END,
    Data,
    Framing,
    Malformed,
    RequestEvent,
    RequestHead,
    RequestReader,
    Trailers,
    Truncated,
    write_request,
)
from skerry.spec.settings import EgressLimits

GET = b"GET /a?b=c HTTP/1.1\r\nHost: a.example\r\n\r\n"


def _head(wire: bytes, *, proxy: bool = False) -> RequestHead:
    head = RequestReader(EgressLimits(), proxy=proxy).feed(wire)[0]
    assert isinstance(head, RequestHead)
    return head


def _request(*lines: bytes, line: bytes = b"GET / HTTP/1.1") -> bytes:
    return b"\r\n".join((line, b"Host: a.example", *lines, b"", b""))


def _body(events: list[RequestEvent]) -> bytes:
    return b"".join(bytes(event.data) for event in events if isinstance(event, Data))


def test_a_request_without_a_body() -> None:
    head, end = RequestReader(EgressLimits()).feed(GET)
    assert head == RequestHead(
        method=b"GET",
        target=b"/a?b=c",
        minor=1,
        fields=[(b"Host", b"a.example")],
        framing=Framing.NONE,
        host=b"a.example",
    )
    assert end is END


def test_order_case_and_duplicates_of_fields_are_kept() -> None:
    wire = _request(b"x-B: 1", b"X-a: 2", b"x-b: 3", b"COOKIE: d", b"E:", b"f: \xc3\xa9", b"G: a\tb")
    assert write_request(_head(wire)) == wire.replace(b"E:\r", b"E: \r")


def test_white_space_around_values_is_dropped() -> None:
    assert _head(_request(b"A: \t b c\t ")).fields[1] == (b"A", b"b c")


@pytest.mark.parametrize("step", [1, 3, 100])
def test_a_body_of_a_given_length(step: int) -> None:
    wire = _request(b"Content-Length: 11", line=b"PUT / HTTP/1.1") + b"hello world"
    reader = RequestReader(EgressLimits())
    events = [event for at in range(0, len(wire), step) for event in reader.feed(wire[at : at + step])]
    head = events[0]
    assert isinstance(head, RequestHead)
    assert (head.framing, head.length) == (Framing.LENGTH, 11)
    assert _body(events) == b"hello world"
    assert events[-1] is END


@pytest.mark.parametrize("step", [1, 3, 1000])
def test_a_chunked_body(step: int) -> None:
    wire = (
        _request(b"Transfer-Encoding: chunked", line=b"POST / HTTP/1.1")
        + b"5;name=value\r\nhello\r\n00a;x\r\n 0123\r\n\r\nZ\r\n1\r\n!\r\n0;last\r\n"
        + b"X-Checksum-Crc: abc\r\nx-dropped: y\r\n\r\n"
    )
    reader = RequestReader(EgressLimits())
    events = [event for at in range(0, len(wire), step) for event in reader.feed(wire[at : at + step])]
    assert _body(events) == b"hello 0123\r\n\r\nZ!"
    assert events[-2:] == [Trailers([(b"X-Checksum-Crc", b"abc")]), END]


def test_an_empty_chunked_body() -> None:
    wire = _request(b"Transfer-Encoding: chunked", line=b"POST / HTTP/1.1") + b"0\r\n\r\n"
    head, end = RequestReader(EgressLimits()).feed(wire)
    assert isinstance(head, RequestHead)
    assert head.framing is Framing.CHUNKED
    assert end is END


def test_a_large_body_is_handed_out_without_a_copy() -> None:
    reader = RequestReader(EgressLimits())
    reader.feed(_request(b"Content-Length: 200000", line=b"PUT / HTTP/1.1"))
    part = bytes(100_000)
    (event,) = reader.feed(part)
    assert isinstance(event, Data)
    assert event.data is part
    event = reader.feed(part + GET)[0]
    assert isinstance(event, Data)
    assert isinstance(event.data, memoryview)
    assert event.data == part


def test_requests_that_are_sent_ahead_wait() -> None:
    reader = RequestReader(EgressLimits())
    second = _request(b"Content-Length: 3", line=b"PUT /2 HTTP/1.1") + b"abc"
    assert len(reader.feed(GET + second + GET)) == 2
    assert reader.feed(b"") == []
    events = reader.next()
    assert _body(events) == b"abc"
    assert isinstance(events[0], RequestHead)
    assert events[0].target == b"/2"
    assert len(reader.next()) == 2
    assert reader.next() == []
    assert reader.idle


def test_a_thousand_requests_on_one_connection() -> None:
    reader = RequestReader(EgressLimits())
    for _ in range(1000):
        assert reader.feed(GET)[-1] is END
        assert reader.next() == []


def test_what_is_sent_ahead_is_bounded() -> None:
    limits = EgressLimits()
    reader = RequestReader(limits)
    reader.feed(GET)
    wanted = [reader.wants_data]
    reader.feed(bytes(limits.head_bytes))
    wanted.append(reader.wants_data)
    assert wanted == [True, False]
    assert reader.feed(bytes(2 * limits.buffer_bytes - limits.head_bytes)) == []
    with pytest.raises(Malformed, match="ahead"):
        reader.feed(b"x")


def test_states_that_deadlines_go_by() -> None:
    reader = RequestReader(EgressLimits())
    states = []
    for part in (b"", GET[:5], GET[5:]):
        reader.feed(part)
        states.append((reader.idle, reader.in_head))
    assert states == [(True, False), (False, True), (False, False)]


def test_an_end_within_a_request_is_an_error() -> None:
    reader = RequestReader(EgressLimits())
    reader.eof()
    reader.feed(GET)
    reader.eof()
    reader.next()
    reader.feed(_request(b"Content-Length: 3", line=b"PUT / HTTP/1.1") + b"ab")
    with pytest.raises(Truncated):
        reader.eof()
    with pytest.raises(Truncated):
        reader.feed(b"c")


def test_misuse_is_told() -> None:
    reader = RequestReader(EgressLimits())
    with pytest.raises(RuntimeError):
        reader.next()
    with pytest.raises(RuntimeError):
        reader.rest()


@pytest.mark.parametrize(
    ("target", "authority", "rest", "scheme"),
    [
        (b"http://a.example", b"a.example", b"/", b"http"),
        (b"HTTP://A.example:80/", b"A.example:80", b"/", b"http"),
        (b"https://a.example:443?q", b"a.example:443", b"/?q", b"https"),
        (b"http://a.example/x?http://b.example/", b"a.example", b"/x?http://b.example/", b"http"),
    ],
)
def test_the_absolute_form_is_split(target: bytes, authority: bytes, rest: bytes, scheme: bytes) -> None:
    head = _head(_request(line=b"GET " + target + b" HTTP/1.1"))
    assert (head.authority, head.target, head.scheme) == (authority, rest, scheme)
    assert write_request(head).startswith(b"GET " + rest + b" HTTP/1.1\r\nHost: a.example\r\n")


def test_the_absolute_form_stands_in_for_a_host_in_http_1_0() -> None:
    head = _head(b"GET http://a.example/ HTTP/1.0\r\nA: b\r\n\r\n")
    assert write_request(head) == b"GET / HTTP/1.0\r\nHost: a.example\r\nA: b\r\n\r\n"
    assert head.host == b"a.example"


def test_options_of_the_whole_server() -> None:
    assert _head(_request(line=b"OPTIONS * HTTP/1.1")).target == b"*"
    assert _head(_request(line=b"OPTIONS http://a.example HTTP/1.1")).target == b"*"


def test_a_proxy_takes_connect() -> None:
    wire = b"CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\nProxy-Authorization: x\r\n\r\n"
    reader = RequestReader(EgressLimits(), proxy=True)
    head, end = reader.feed(wire + b"\x16\x03\x01")
    assert isinstance(head, RequestHead)
    assert (head.authority, head.target) == (b"a.example:443", b"")
    assert head.fields == [(b"Host", b"a.example:443")]
    assert end is END
    assert reader.rest() == b"\x16\x03\x01"


@pytest.mark.parametrize(
    "wire",
    [
        b"CONNECT a.example HTTP/1.1\r\nHost: a.example\r\n\r\n",
        b"CONNECT a.example:443 HTTP/1.1\r\nHost: b.example:443\r\n\r\n",
        b"CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:22\r\n\r\n",
        b"CONNECT u@a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n",
        b"CONNECT http://a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n",
        b"CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\nContent-Length: 1\r\n\r\nx",
    ],
)
def test_a_proxy_refuses_odd_connects(wire: bytes) -> None:
    with pytest.raises(Malformed):
        RequestReader(EgressLimits(), proxy=True).feed(wire)


@pytest.mark.parametrize(
    "host", [b"a.example", b"a.example:443", b"CONNECT.example", b"[::1]:80", b"1.2.3.4"]
)
def test_hosts_that_are_well_formed(host: bytes) -> None:
    assert _head(b"GET / HTTP/1.1\r\nHost: " + host + b"\r\n\r\n").host == host


@pytest.mark.parametrize(
    ("version", "connection", "keep_alive"),
    [
        (b"1.1", None, True),
        (b"1.1", b"close", False),
        (b"1.1", b"Keep-Alive, CLOSE", False),
        (b"1.0", None, False),
        (b"1.0", b"keep-alive", True),
        (b"1.0", b"close, keep-alive", False),
    ],
)
def test_how_long_a_connection_lives(version: bytes, connection: bytes | None, keep_alive: bool) -> None:
    lines = () if connection is None else (b"Connection: " + connection,)
    head = _head(_request(*lines, line=b"GET / HTTP/" + version))
    assert head.keep_alive is keep_alive


@pytest.mark.parametrize(
    ("lines", "written"),
    [
        ((b"A: 1", b"connection: keep-alive", b"B: 2"), (b"A: 1", b"connection: keep-alive", b"B: 2")),
        ((b"Connection: close, X-Own", b"x-own: 1", b"B: 2"), (b"Connection: close", b"B: 2")),
        ((b"Connection: x-own", b"X-OWN: 1", b"x-Own: 2", b"B: 2"), (b"B: 2",)),
        ((b"Connection: ,, close ,", b"B: 2"), (b"Connection: close", b"B: 2")),
        ((b"Connection: close", b"B: 2", b"Connection: x", b"X: 1"), (b"Connection: close", b"B: 2")),
        ((b"Keep-Alive: timeout=5", b"Proxy-Connection: x", b"B: 2"), (b"B: 2",)),
        ((b"Proxy-Authorization: Basic eA==", b"B: 2"), (b"B: 2",)),
        ((b"TE: trailers", b"B: 2"), (b"TE: trailers", b"B: 2", b"Connection: TE")),
        ((b"TE: gzip;q=1, trailers", b"Connection: TE", b"B: 2"), (b"B: 2",)),
        ((b"Upgrade: websocket", b"B: 2"), (b"B: 2",)),
        (
            (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AA", b"B: 2"),
            (b"B: 2",),
        ),
        ((b"HTTP2-Settings: AA", b"B: 2"), (b"B: 2",)),
        (
            (b"Connection: Upgrade", b"Upgrade: h2c, websocket"),
            (b"Connection: Upgrade", b"Upgrade: websocket"),
        ),
        (
            (b"Upgrade: WebSocket", b"Connection: keep-alive, upgrade"),
            (b"Upgrade: WebSocket", b"Connection: Upgrade, keep-alive"),
        ),
    ],
)
def test_what_concerns_the_connection_does_not_go_on(
    lines: tuple[bytes, ...], written: tuple[bytes, ...]
) -> None:
    assert write_request(_head(_request(*lines))) == _request(*written)


def test_an_upgrade_is_told() -> None:
    assert _head(_request(b"Connection: Upgrade", b"Upgrade: WebSocket")).upgrade == b"websocket"
    assert _head(_request(b"Connection: Upgrade", b"Upgrade: SPDY/3.1")).upgrade == b"spdy/3.1"
    assert _head(_request(b"Connection: Upgrade", b"Upgrade: h2c")).upgrade is None
    assert _head(_request(b"Upgrade: websocket")).upgrade is None
    old = _request(b"Connection: Upgrade", b"Upgrade: websocket", line=b"GET / HTTP/1.0")
    assert _head(old).upgrade is None


def test_what_comes_with_an_upgrade_is_kept() -> None:
    reader = RequestReader(EgressLimits())
    reader.feed(_request(b"Connection: Upgrade", b"Upgrade: websocket") + b"\x81\x80")
    assert reader.rest() == b"\x81\x80"


def test_an_expectation_is_told() -> None:
    lines = (b"Content-Length: 3", b"Expect: 100-Continue")
    assert _head(_request(*lines, line=b"PUT / HTTP/1.1")).expects_continue
    assert not _head(_request(*lines, line=b"PUT / HTTP/1.0")).expects_continue
    assert not _head(_request(b"Expect: 100-continue")).expects_continue


def test_the_largest_head_passes() -> None:
    limits = EgressLimits()
    wire = _request(*[b"A: " + b"b" * 8189] * 7)
    wire = wire[:-2] + b"C: " + b"d" * (limits.head_bytes + 4 - len(wire) - 5) + b"\r\n\r\n"
    assert len(wire) == limits.head_bytes + 4
    assert len(_head(wire).fields) == 9
    assert len(_head(_request(*[b"a: b"] * 99)).fields) == 100


def test_no_bytes_of_the_peer_stand_in_an_error() -> None:
    with pytest.raises(Malformed) as caught:
        _head(_request(b"Authorization: Bearer s3cret\0"))
    assert "s3cret" not in repr(caught.value)


def test_the_same_head_again_is_the_same_object() -> None:
    reader = RequestReader(EgressLimits())
    request = b"POST /a HTTP/1.1\r\nHost: example.com\r\nContent-Length: 2\r\n\r\n"
    first = reader.feed(request + b"ab")
    # In pieces it is parsed anew.
    assert reader.next() == []
    assert reader.feed(request[:20]) == []
    second = reader.feed(request[20:] + b"cd")
    assert second[0] == first[0]
    assert reader.next() == []
    third = reader.feed(request + b"ef" + request + b"gh")
    fourth = reader.next()
    assert third[0] is second[0]
    assert fourth[0] is third[0]
    assert [bytes(event.data) for event in (third[1], fourth[1]) if isinstance(event, Data)] == [b"ef", b"gh"]
    assert reader.next() == []
    other = reader.feed(request.replace(b"/a", b"/b") + b"ij")
    assert isinstance(other[0], RequestHead)
    assert other[0].target == b"/b"
