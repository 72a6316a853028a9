"""Responses as origins send them, and as hostile ones do."""

import pytest

from skerry.egress.http1 import (
    END,
    Data,
    Framing,
    Interim,
    Malformed,
    ResponseEvent,
    ResponseHead,
    ResponseReader,
    Trailers,
    Truncated,
    Upgraded,
    write_response,
)
from skerry.spec.settings import EgressLimits

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


def _response(*lines: bytes, status: bytes = b"HTTP/1.1 200 OK") -> bytes:
    return b"\r\n".join((status, *lines, b"", b""))


def _reader(method: bytes = b"GET", *, minor: int = 1, upgrade: bytes | None = None) -> ResponseReader:
    reader = ResponseReader(EgressLimits())
    reader.expect(method, minor=minor, upgrade=upgrade)
    return reader


def _head(wire: bytes, method: bytes = b"GET") -> ResponseHead:
    head = _reader(method).feed(wire)[0]
    assert isinstance(head, ResponseHead)
    return head


def _body(events: list[ResponseEvent]) -> bytes:
    return b"".join(bytes(event.data) for event in events if isinstance(event, Data))


@pytest.mark.parametrize("step", [1, 3, 1000])
def test_a_body_of_a_given_length(step: int) -> None:
    reader = _reader()
    events = [event for at in range(0, len(OK), step) for event in reader.feed(OK[at : at + step])]
    assert events[0] == ResponseHead(
        status=200,
        reason=b"OK",
        minor=1,
        fields=[(b"Content-Length", b"5")],
        framing=Framing.LENGTH,
        length=5,
    )
    assert _body(events) == b"hello"
    assert events[-1] is END
    assert reader.idle


@pytest.mark.parametrize("step", [1, 3, 1000])
def test_a_chunked_body_with_trailers(step: int) -> None:
    wire = _response(b"Transfer-Encoding: Chunked", b"Trailer: Grpc-Status") + (
        b"5  \r\nhello\r\n6;x=y\r\n world\r\n0\r\nGrpc-Status: 0\r\nContent-Length: 7\r\nX: y\r\n\r\n"
    )
    reader = _reader()
    events = [event for at in range(0, len(wire), step) for event in reader.feed(wire[at : at + step])]
    assert _body(events) == b"hello world"
    assert events[-2:] == [Trailers([(b"Grpc-Status", b"0"), (b"X", b"y")]), END]


def test_every_event_of_a_stream_is_handed_out_at_once() -> None:
    reader = _reader()
    reader.feed(_response(b"Content-Type: text/event-stream", b"Transfer-Encoding: chunked"))
    for number in range(50):
        event = b"data: %d\n\n" % number
        assert reader.feed(b"%x\r\n%b\r\n" % (len(event), event)) == [Data(event)]
    assert reader.feed(b"5\r\nda") == [Data(b"da")]


def test_a_body_that_ends_with_the_connection() -> None:
    reader = _reader()
    events = reader.feed(_response(b"A: b") + b"hel") + reader.feed(b"lo") + reader.eof()
    head = events[0]
    assert isinstance(head, ResponseHead)
    assert head.framing is Framing.CLOSE
    assert not head.keep_alive
    assert _body(events) == b"hello"
    assert events[-1] is END
    assert write_response(head) == _response(b"A: b", b"Connection: close")


@pytest.mark.parametrize(
    ("method", "status"),
    [(b"HEAD", b"200 OK"), (b"HEAD", b"404 x"), (b"GET", b"204 No Content"), (b"GET", b"304 Not Modified")],
)
@pytest.mark.parametrize("field", [b"Content-Length: 5", b"Transfer-Encoding: chunked", b"A: b"])
def test_answers_without_a_body(method: bytes, status: bytes, field: bytes) -> None:
    reader = _reader(method)
    head, end = reader.feed(_response(field, status=b"HTTP/1.1 " + status))
    assert isinstance(head, ResponseHead)
    assert head.framing is Framing.NONE
    assert head.keep_alive
    assert end is END
    reader.expect(b"GET")
    assert reader.feed(OK)[-1] is END


def test_no_length_goes_on_with_204() -> None:
    head = _head(_response(b"Content-Length: 5", b"A: b", status=b"HTTP/1.1 204 No Content"))
    assert head.fields == [(b"A", b"b")]
    assert head.length == 0


def test_answers_before_the_final_one() -> None:
    early = _response(b"Link: </a>", b"Content-Length: 9", status=b"HTTP/1.1 103 Early Hints")
    events = _reader().feed(_response(status=b"HTTP/1.1 100 Continue") + early + OK)
    assert [event.head.status for event in events if isinstance(event, Interim)] == [100, 103]
    assert isinstance(events[1], Interim)
    assert write_response(events[1].head) == _response(b"Link: </a>", status=b"HTTP/1.1 103 Early Hints")
    assert isinstance(events[2], ResponseHead)
    assert events[-1] is END


def test_answers_before_the_final_one_are_counted() -> None:
    interim = _response(status=b"HTTP/1.1 100 Continue")
    reader = _reader()
    assert len(reader.feed(interim * 16)) == 16
    with pytest.raises(Malformed, match="too many"):
        reader.feed(interim)
    reader = _reader()
    reader.feed(interim * 16 + OK)
    reader.expect(b"GET")
    assert reader.feed(interim * 16 + OK)[-1] is END


def test_an_end_within_an_answer_is_an_error() -> None:
    for part in (b"", OK[:10], OK[:-1], _response(b"Transfer-Encoding: chunked") + b"5\r\nhello\r\n"):
        reader = _reader()
        reader.feed(part)
        with pytest.raises(Truncated):
            reader.eof()
        with pytest.raises(Truncated):
            reader.feed(b"x")


def test_the_end_between_answers_is_none() -> None:
    reader = _reader()
    reader.feed(OK)
    assert reader.eof() == []


def test_a_switch_of_protocols() -> None:
    wire = _response(
        b"Upgrade: websocket", b"Connection: upgrade", b"A: b", status=b"HTTP/1.1 101 Switching Protocols"
    )
    reader = _reader(upgrade=b"websocket")
    head, switched = reader.feed(wire + b"\x81\x00")
    assert isinstance(head, ResponseHead)
    assert head.upgrade == b"websocket"
    assert write_response(head) == wire.replace(b": upgrade", b": Upgrade")
    assert switched == Upgraded(b"\x81\x00")
    assert not reader.idle
    with pytest.raises(RuntimeError):
        reader.feed(b"x")
    with pytest.raises(RuntimeError):
        reader.expect(b"GET")


@pytest.mark.parametrize(
    ("upgrade", "lines"),
    [
        (None, (b"Upgrade: websocket", b"Connection: Upgrade")),
        (b"websocket", (b"Upgrade: h2c", b"Connection: Upgrade")),
        (b"websocket", (b"Upgrade: tls/1.0", b"Connection: Upgrade")),
        (b"websocket", (b"Connection: Upgrade",)),
        (b"websocket", (b"Upgrade: websocket",)),
    ],
)
def test_a_switch_that_was_not_asked_for(upgrade: bytes | None, lines: tuple[bytes, ...]) -> None:
    with pytest.raises(Malformed, match="switch"):
        _reader(upgrade=upgrade).feed(_response(*lines, status=b"HTTP/1.1 101 x"))


def test_an_upgrade_that_was_declined() -> None:
    reader = _reader(upgrade=b"websocket")
    assert reader.feed(OK)[-1] is END


def test_a_tunnel_through_a_proxy() -> None:
    reader = _reader(b"CONNECT")
    head, tunnel = reader.feed(_response(b"Content-Length: 5", status=b"HTTP/1.1 200 Connected") + b"\x16")
    assert isinstance(head, ResponseHead)
    assert tunnel == Upgraded(b"\x16")
    reader = _reader(b"CONNECT")
    assert reader.feed(_response(b"Content-Length: 0", status=b"HTTP/1.1 407 No"))[-1] is END


def test_bytes_that_nobody_asked_for() -> None:
    reader = ResponseReader(EgressLimits())
    with pytest.raises(Malformed, match="not asked for"):
        reader.feed(OK)


def test_an_answer_to_a_request_that_is_still_to_come() -> None:
    reader = _reader()
    assert reader.feed(OK + OK)[-1] is END
    assert not reader.idle
    with pytest.raises(Malformed, match="not asked for"):
        reader.expect(b"GET")


def test_one_answer_at_a_time() -> None:
    reader = _reader()
    with pytest.raises(RuntimeError):
        reader.expect(b"GET")


@pytest.mark.parametrize(
    ("lines", "written"),
    [
        ((b"A: 1", b'Alt-Svc: h3=":443"', b"B: 2"), (b"A: 1", b"B: 2")),
        ((b"Keep-Alive: timeout=5", b"Connection: keep-alive"), (b"Connection: keep-alive",)),
        ((b"connection: CLOSE", b"A: 1"), (b"connection: close", b"A: 1")),
        ((b"Upgrade: h2,h2c", b"Connection: Upgrade", b"A: 1"), (b"A: 1",)),
        ((b"Set-Cookie: a", b"set-cookie: b", b"Set-Cookie: a"),) * 2,
        (
            (b"Connection: x-a", b"Connection: keep-alive", b"X-A: 1", b"Alt-Svc: h3"),
            (b"Connection: keep-alive",),
        ),
        ((b"Via: 1.1 x", b"A:"), (b"Via: 1.1 x", b"A: ")),
    ],
)
def test_what_goes_on_to_the_client(lines: tuple[bytes, ...], written: tuple[bytes, ...]) -> None:
    wire = _response(b"Content-Length: 0", *lines)
    assert write_response(_head(wire)) == _response(b"Content-Length: 0", *written)


@pytest.mark.parametrize(
    ("status", "lines", "keep_alive", "added"),
    [
        (b"HTTP/1.1 200 OK", (), True, ()),
        (b"HTTP/1.0 200 OK", (), False, (b"Connection: close",)),
        (b"HTTP/1.0 200 OK", (b"Connection: keep-alive",), True, ()),
        (b"HTTP/1.1 200 OK", (b"Connection: close",), False, ()),
    ],
)
def test_how_long_a_connection_lives(
    status: bytes, lines: tuple[bytes, ...], keep_alive: bool, added: tuple[bytes, ...]
) -> None:
    head = _head(_response(b"Content-Length: 0", *lines, status=status))
    assert head.keep_alive is keep_alive
    assert write_response(head) == _response(b"Content-Length: 0", *lines, *added)


@pytest.mark.parametrize(
    ("status", "written"),
    [
        (b"HTTP/1.1 200", b"HTTP/1.1 200 "),
        (b"HTTP/1.1 200 ", b"HTTP/1.1 200 "),
        (b"HTTP/1.1 999 Request denied", b"HTTP/1.1 999 Request denied"),
        ("HTTP/1.1 404 não".encode(), "HTTP/1.1 404 não".encode()),
    ],
)
def test_status_lines(status: bytes, written: bytes) -> None:
    assert write_response(_head(_response(b"Content-Length: 0", status=status))) == _response(
        b"Content-Length: 0", status=written
    )


MALFORMED = {
    "a length and a coding": _response(b"Content-Length: 5", b"Transfer-Encoding: chunked"),
    "two lengths": _response(b"Content-Length: 5", b"Content-Length: 5"),
    "an odd length": _response(b"Content-Length: +5"),
    "an odd length of 204": _response(b"Content-Length: x", status=b"HTTP/1.1 204 x"),
    "another coding": _response(b"Transfer-Encoding: gzip, chunked"),
    "identity": _response(b"Transfer-Encoding: identity"),
    "a coding in HTTP/1.0": _response(b"Transfer-Encoding: chunked", status=b"HTTP/1.0 200 OK"),
    "a folded line": _response(b"A: b", b" c"),
    "a space before the colon": _response(b"A : b"),
    "bare line feeds": b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
    "a bare carriage return": _response(b"A: b\rc"),
    "NUL": _response(b"A: b\0"),
    "a control character in the reason": _response(status=b"HTTP/1.1 200 O\x1bK"),
    "no status": _response(status=b"HTTP/1.1 OK"),
    "a short status": _response(status=b"HTTP/1.1 20 OK"),
    "a long status": _response(status=b"HTTP/1.1 2000 OK"),
    "status 099": _response(status=b"HTTP/1.1 099 OK"),
    "another version": _response(status=b"HTTP/2 200 OK"),
    "ICY": _response(status=b"ICY 200 OK"),
    "no head at all": b"<html>\r\n",
    "Connection names Content-Length": _response(b"Content-Length: 5", b"Connection: content-length"),
    "Connection names Set-Cookie": _response(b"Set-Cookie: a", b"Connection: set-cookie"),
    "too many fields": _response(*[b"a: b"] * 101),
    "a head without an end": b"HTTP/1.1 200 OK\r\n" + b"a: " + b"b" * 70_000,
    "a chunk size that is none": _response(b"Transfer-Encoding: chunked") + b"x\r\n",
    "a line feed in a chunk extension": _response(b"Transfer-Encoding: chunked") + b"5;a\nb\r\nhello\r\n",
    "endless chunk extensions": _response(b"Transfer-Encoding: chunked") + b"5;" + b"a" * 300,
    "endless trailers": _response(b"Transfer-Encoding: chunked") + b"0\r\n" + b"a: b\r\n" * 12_000,
}


@pytest.mark.parametrize("step", [1, 1 << 20])
@pytest.mark.parametrize("wire", MALFORMED.values(), ids=MALFORMED)
def test_malformed_answers(wire: bytes, step: int) -> None:
    if len(wire) > 50_000:
        step = max(step, 1000)
    reader = _reader()
    events: list[ResponseEvent] = []

    def feed_all() -> None:
        for at in range(0, len(wire), step):
            events.extend(reader.feed(wire[at : at + step]))

    with pytest.raises(Malformed) as caught:
        feed_all()
    assert not isinstance(caught.value, Truncated)
    assert END not in events
    assert not reader.idle
    with pytest.raises(Malformed):
        reader.feed(OK)
    with pytest.raises(Malformed):
        reader.eof()


def test_a_chunked_answer_to_http_1_0() -> None:
    with pytest.raises(Malformed):
        _reader(minor=0).feed(_response(b"Transfer-Encoding: chunked"))
