"""Requests that servers are known to read in different ways: every one is refused, before anything of it
could be sent on."""

import pytest

from skerry.egress.http1 import END, Malformed, RequestEvent, RequestHead, RequestReader, Truncated
from skerry.spec.settings import EgressLimits

HOST = b"Host: a.example\r\n"
CHUNKED = b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"


def _get(*lines: bytes) -> bytes:
    return b"GET / HTTP/1.1\r\n" + HOST + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


def _post(*lines: bytes, body: bytes = b"hello") -> bytes:
    return b"POST / HTTP/1.1\r\n" + HOST + b"".join(line + b"\r\n" for line in lines) + b"\r\n" + body


HEADS = {
    # Framing: who disagrees about where a body ends can be made to see another request (smuggling).
    "content-length and transfer-encoding": _post(
        b"Content-Length: 5", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"
    ),
    "transfer-encoding and content-length": _post(
        b"Transfer-Encoding: chunked", b"Content-Length: 5", body=b"0\r\n\r\n"
    ),
    "two equal lengths": _post(b"Content-Length: 5", b"Content-Length: 5"),
    "two different lengths": _post(b"Content-Length: 5", b"Content-Length: 6"),
    "a list of equal lengths": _post(b"Content-Length: 5, 5"),
    "a length with a plus": _post(b"Content-Length: +5"),
    "a negative length": _post(b"Content-Length: -5"),
    "a hexadecimal length": _post(b"Content-Length: 0x5"),
    "a length with a leading zero": _post(b"Content-Length: 05"),
    "a length with an underscore": _post(b"Content-Length: 5_0"),
    "a length with a space": _post(b"Content-Length: 5 0"),
    "an empty length": _post(b"Content-Length:"),
    "a length that overflows": _post(b"Content-Length: 18446744073709551621"),
    "a length of other digits": _post("Content-Length: \u0665".encode()),
    "identity, chunked": _post(b"Transfer-Encoding: identity, chunked"),
    "chunked, identity": _post(b"Transfer-Encoding: chunked, identity"),
    "identity": _post(b"Transfer-Encoding: identity"),
    "gzip, chunked": _post(b"Transfer-Encoding: gzip, chunked"),
    "chunked, chunked": _post(b"Transfer-Encoding: chunked, chunked"),
    "two transfer-encodings": _post(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"),
    "a vertical tab before chunked": _post(b"Transfer-Encoding: \x0bchunked"),
    "a form feed after chunked": _post(b"Transfer-Encoding: chunked\x0c"),
    "chunked in upper case": _post(b"Transfer-Encoding: CHUNKED"),
    "chunked with a parameter": _post(b"Transfer-Encoding: chunked;q=1"),
    "chunked in quotes": _post(b'Transfer-Encoding: "chunked"'),
    "xchunked": _post(b"Transfer-Encoding: xchunked"),
    "an empty transfer-encoding": _post(b"Transfer-Encoding:"),
    "transfer-encoding in HTTP/1.0": (
        b"POST / HTTP/1.0\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    ),
    "transfer-encoding with an underscore": _post(b"Transfer_Encoding: chunked", body=b"0\r\n\r\n"),
    "content-length with an underscore": _post(b"Content_Length: 5"),
    # Lines and fields.
    "bare line feeds": b"GET / HTTP/1.1\nHost: a.example\n\n",
    "one bare line feed": _get(b"A: b\nC: d"),
    "a bare line feed before the empty line": b"GET / HTTP/1.1\r\nHost: a.example\n\r\n\r\n",
    "a bare carriage return in a value": _get(b"A: b\rC: d"),
    "a bare carriage return before the end": _get(b"A: b\r"),
    "carriage returns only": b"GET / HTTP/1.1\rHost: a.example\r\r\r\n\r\n",
    "NUL in a value": _get(b"A: b\0c"),
    "NUL in a name": _get(b"A\0: b"),
    "DEL in a value": _get(b"A: \x7f"),
    "escape in a value": _get(b"A: \x1b[31m"),
    "a folded line with a space": _get(b"A: b", b" c"),
    "a folded line with a tab": _get(b"A: b", b"\tc"),
    "a folded first line": b"GET / HTTP/1.1\r\n " + HOST + b"\r\n",
    "a folded transfer-encoding": _post(b"Transfer-Encoding:", b" chunked", body=b"0\r\n\r\n"),
    "a space before the colon": _post(b"Content-Length : 5"),
    "a tab before the colon": _post(b"Transfer-Encoding\t: chunked"),
    "an empty name": _get(b": b"),
    "no colon": _get(b"Ab"),
    "a name with a space": _get(b"A b: c"),
    "a name with brackets": _get(b"A[b]: c"),
    "a name beyond ASCII": _get("Å: b".encode()),
    "a name with a high bit": _get(b"Content-Length\xa0: 5"),
    "two authorizations in one name": _get(b"Authorization, X: b"),
    # Names of the host.
    "no host": b"GET / HTTP/1.1\r\nA: b\r\n\r\n",
    "two hosts": _get(b"Host: b.example"),
    "two equal hosts": _get(b"Host: a.example"),
    "an empty host": b"GET / HTTP/1.1\r\nHost:\r\n\r\n",
    "a list of hosts": b"GET / HTTP/1.1\r\nHost: a.example, b.example\r\n\r\n",
    "a host with a user": b"GET / HTTP/1.1\r\nHost: u@a.example\r\n\r\n",
    "a host with a path": b"GET / HTTP/1.1\r\nHost: a.example/b\r\n\r\n",
    "a host with a space": b"GET / HTTP/1.1\r\nHost: a.example b\r\n\r\n",
    "a host with a percent sign": b"GET / HTTP/1.1\r\nHost: a%2eexample\r\n\r\n",
    "a host with a backslash": b"GET / HTTP/1.1\r\nHost: a.example\\b\r\n\r\n",
    "a host with a fragment": b"GET / HTTP/1.1\r\nHost: a.example#b\r\n\r\n",
    "a host beyond ASCII": "GET / HTTP/1.1\r\nHost: a。example\r\n\r\n".encode(),
    "a host with two ports": b"GET / HTTP/1.1\r\nHost: a.example:1:2\r\n\r\n",
    "a host with an empty port": b"GET / HTTP/1.1\r\nHost: a.example:\r\n\r\n",
    "a host with port 0": b"GET / HTTP/1.1\r\nHost: a.example:0\r\n\r\n",
    "a host with a port that overflows": b"GET / HTTP/1.1\r\nHost: a.example:65979\r\n\r\n",
    "an absolute form with another authority": b"GET http://b.example/ HTTP/1.1\r\n" + HOST + b"\r\n",
    "an absolute form with another port": b"GET http://a.example:81/ HTTP/1.1\r\n" + HOST + b"\r\n",
    "an absolute form with a user": b"GET http://a.example@b.example/ HTTP/1.1\r\n" + HOST + b"\r\n",
    "an absolute form with a backslash": b"GET http://b.example\\a.example/ HTTP/1.1\r\n" + HOST + b"\r\n",
    "an absolute form without a host": b"GET http:/// HTTP/1.1\r\n" + HOST + b"\r\n",
    "an absolute form of another scheme": b"GET ftp://a.example/ HTTP/1.1\r\n" + HOST + b"\r\n",
    "an absolute form and no host field": b"GET http://a.example/ HTTP/1.1\r\n\r\n",
    # Request lines.
    "an empty line first": b"\r\n" + _get(),
    "HTTP/0.9": b"GET /\r\n\r\n",
    "HTTP/1.2": b"GET / HTTP/1.2\r\n" + HOST + b"\r\n",
    "HTTP/2.0": b"GET / HTTP/2.0\r\n" + HOST + b"\r\n",
    "HTTP/1.10": b"GET / HTTP/1.10\r\n" + HOST + b"\r\n",
    "http/1.1 in lower case": b"GET / http/1.1\r\n" + HOST + b"\r\n",
    "two spaces in the request line": b"GET  / HTTP/1.1\r\n" + HOST + b"\r\n",
    "a tab in the request line": b"GET\t/ HTTP/1.1\r\n" + HOST + b"\r\n",
    "a space at the end of the request line": b"GET / HTTP/1.1 \r\n" + HOST + b"\r\n",
    "a space before the method": b" GET / HTTP/1.1\r\n" + HOST + b"\r\n",
    "a space in the target": b"GET /a b HTTP/1.1\r\n" + HOST + b"\r\n",
    "a second version in the target": b"GET / HTTP/1.1 HTTP/1.1\r\n" + HOST + b"\r\n",
    "a NUL in the target": b"GET /\0 HTTP/1.1\r\n" + HOST + b"\r\n",
    "a fragment in the target": b"GET /a#b HTTP/1.1\r\n" + HOST + b"\r\n",
    "overlong UTF-8 in the target": b"GET /\xc0\xae\xc0\xae/ HTTP/1.1\r\n" + HOST + b"\r\n",
    "a target without a slash": b"GET a.example HTTP/1.1\r\n" + HOST + b"\r\n",
    "a target that is a query": b"GET ?a HTTP/1.1\r\n" + HOST + b"\r\n",
    "a star with GET": b"GET * HTTP/1.1\r\n" + HOST + b"\r\n",
    "a method in lower case": b"delete / HTTP/1.1\r\n" + HOST + b"\r\n",
    "a method that is no token": b"GE(T / HTTP/1.1\r\n" + HOST + b"\r\n",
    "a very long method": b"A" * 33 + b" / HTTP/1.1\r\n" + HOST + b"\r\n",
    "TRACE": b"TRACE / HTTP/1.1\r\n" + HOST + b"Authorization: Bearer x\r\n\r\n",
    "CONNECT": b"CONNECT a.example:443 HTTP/1.1\r\n" + HOST + b"\r\n",
    "CONNECT with a path": b"CONNECT / HTTP/1.1\r\n" + HOST + b"\r\n",
    "HTTP/2's preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    # What concerns the connection.
    "Connection names Host": _get(b"Connection: Host"),
    "Connection names Authorization": _get(b"Connection: close, authorization"),
    "Connection names Content-Length": _post(b"Content-Length: 5", b"Connection: Content-Length"),
    "Connection names Content-Type": _get(b"Connection: content-type"),
    "Connection names Transfer-Encoding": _post(
        b"Transfer-Encoding: chunked", b"Connection: transfer-encoding", body=b"0\r\n\r\n"
    ),
    "Connection names Cookie": _get(b"Connection: cookie"),
    "a second Connection names Host": _get(b"Connection: close", b"Connection: host"),
    "Connection holds no token": _get(b"Connection: a b"),
    "an unknown expectation": _post(b"Content-Length: 5", b"Expect: 200-maybe"),
    "two expectations": _post(b"Content-Length: 5", b"Expect: 100-continue", b"Expect: 100-continue"),
    "several upgrades": _get(b"Connection: Upgrade", b"Upgrade: websocket, tls/1.0"),
    "two Upgrade fields": _get(b"Connection: Upgrade", b"Upgrade: websocket", b"Upgrade: h2c"),
    "an upgrade with a body": (
        b"GET / HTTP/1.1\r\n" + HOST + b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Content-Length: 5\r\n\r\nhello"
    ),
}

BODIES = {
    "a line feed in a chunk extension": b"5;a=\nb\r\nhello\r\n0\r\n\r\n",
    "a bare line feed after a chunk size": b"5\nhello\r\n0\r\n\r\n",
    "a bare carriage return after a chunk size": b"5\rhello\r\n0\r\n\r\n",
    "a NUL in a chunk extension": b"5;\0\r\nhello\r\n0\r\n\r\n",
    "a long chunk extension": b"5;" + b"a" * 300 + b"\r\nhello\r\n0\r\n\r\n",
    "a chunk size with 0x": b"0x5\r\nhello\r\n0\r\n\r\n",
    "a chunk size with a plus": b"+5\r\nhello\r\n0\r\n\r\n",
    "a negative chunk size": b"-5\r\nhello\r\n0\r\n\r\n",
    "a chunk size with a space first": b" 5\r\nhello\r\n0\r\n\r\n",
    "a chunk size with a space after it": b"5 \r\nhello\r\n0\r\n\r\n",
    "a chunk size with an underscore": b"0_5\r\nhello\r\n0\r\n\r\n",
    "a chunk size that overflows": b"10000000000000005\r\nhello\r\n0\r\n\r\n",
    "an empty chunk size": b"\r\nhello\r\n0\r\n\r\n",
    "a chunk size that is only an extension": b";a\r\nhello\r\n0\r\n\r\n",
    "a chunk that is longer than it says": b"4\r\nhello\r\n0\r\n\r\n",
    "a chunk that is shorter than it says": b"6\r\nhello\r\n0\r\n\r\n",
    "a chunk that ends with a line feed": b"5\r\nhello\n0\r\n\r\n",
    "a trailer that is folded": b"0\r\nx-checksum: a\r\n b\r\n\r\n",
    "a trailer with a bare line feed": b"0\r\nx-checksum: a\n\r\n\r\n",
    "a trailer that delimits": b"0\r\nContent-Length: 5\r\n\r\n",
    "a trailer that authorizes": b"0\r\nAuthorization: Bearer x\r\n\r\n",
    "a trailer that names the host": b"0\r\nHost: b.example\r\n\r\n",
    "a trailer without a name": b"0\r\n: b\r\n\r\n",
    "too many trailers": b"0\r\n" + b"a: b\r\n" * 101 + b"\r\n",
    "trailers without an end": b"0\r\n" + b"abcdefg: h\r\n" * 7000,
}

LARGE = {
    "a head that is too large": _get(*[b"A: " + b"b" * 1000] * 66),
    "a head without an end": _get(*[b"A: " + b"b" * 1000] * 66)[:-4],
    "too many fields": _get(*[b"a: b"] * 100),
    "a field that is too long": _get(b"A: " + b"b" * 8192),
    "a target that is too long": b"GET /" + b"a" * 8192 + b" HTTP/1.1\r\n" + HOST + b"\r\n",
    "a line without an end": b"GET /" + b"a" * 70_000,
}


def _read(wire: bytes, step: int) -> list[RequestEvent]:
    """Every event until the reader refuses; it must."""
    reader = RequestReader(EgressLimits())
    events: list[RequestEvent] = []

    def feed_all() -> None:
        for at in range(0, len(wire), step):
            events.extend(reader.feed(wire[at : at + step]))

    with pytest.raises(Malformed) as caught:
        feed_all()
    assert not isinstance(caught.value, Truncated)
    with pytest.raises(Malformed):
        reader.feed(_get())
    return events


def test_the_table_holds_more_than_what_was_measured() -> None:
    assert len(HEADS) + len(BODIES) + len(LARGE) >= 31


@pytest.mark.parametrize("step", [1, 7, 1 << 20])
@pytest.mark.parametrize("wire", HEADS.values(), ids=HEADS)
def test_a_malformed_head_is_refused_whole(wire: bytes, step: int) -> None:
    assert _read(wire, step) == []


@pytest.mark.parametrize("step", [1, 7, 1 << 20])
@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_a_malformed_body_never_ends(body: bytes, step: int) -> None:
    assert END not in _read(CHUNKED + body, step)


@pytest.mark.parametrize("step", [1000, 1 << 20])
@pytest.mark.parametrize("wire", LARGE.values(), ids=LARGE)
def test_a_head_has_bounds(wire: bytes, step: int) -> None:
    assert _read(wire, step) == []


@pytest.mark.parametrize(
    "begun",
    [
        b"GET / HTTP/1.1\nHost: a.example\n",
        b"GET / HTTP/1.1\r\nHost: a.example\n",
        b"GET /\r\n",
        b"HELO a.example\r\n",
        b"\r\n",
        b"GET / HTTP/1.1\rHost: ",
    ],
)
def test_what_cannot_become_a_request_is_refused_before_it_ends(begun: bytes) -> None:
    for step in (1, len(begun)):
        assert _read(begun, step) == []


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("an absolute form with another authority", 421),
        ("TRACE", 405),
        ("CONNECT", 405),
        ("two hosts", 400),
        ("content-length and transfer-encoding", 400),
    ],
)
def test_the_answer_fits(name: str, status: int) -> None:
    with pytest.raises(Malformed) as caught:
        RequestReader(EgressLimits()).feed(HEADS[name])
    assert caught.value.status == status


def test_a_request_hidden_behind_a_malformed_one_is_not_read() -> None:
    reader = RequestReader(EgressLimits())
    smuggled = b"GET /admin HTTP/1.1\r\n" + HOST + b"\r\n"
    with pytest.raises(Malformed):
        reader.feed(HEADS["content-length and transfer-encoding"] + smuggled)
    with pytest.raises(RuntimeError):
        reader.next()


@pytest.mark.parametrize(
    ("wire", "host", "target"),
    [
        (b"GET / HTTP/1.1\r\nHost: other.example\r\n\r\n", b"other.example", b"/"),
        (b"GET /a/../b HTTP/1.1\r\n" + HOST + b"\r\n", b"a.example", b"/a/../b"),
        (b"GET /%2e%2e/b HTTP/1.1\r\n" + HOST + b"\r\n", b"a.example", b"/%2e%2e/b"),
        (b"GET //b.example/c;d?e HTTP/1.1\r\n" + HOST + b"\r\n", b"a.example", b"//b.example/c;d?e"),
        (b"GET /a\\b%00 HTTP/1.1\r\n" + HOST + b"\r\n", b"a.example", b"/a\\b%00"),
    ],
)
def test_what_is_for_policy_to_judge_is_told_as_it_came(wire: bytes, host: bytes, target: bytes) -> None:
    """The rest of the measured table: another name than the connection's, paths that are not canonical."""
    head = RequestReader(EgressLimits()).feed(wire)[0]
    assert isinstance(head, RequestHead)
    assert (head.host, head.target) == (host, target)
