"""What is written: from the parsed form only, and never more than one message's head."""

import pytest

from skerry.egress.http1 import (
    Field,
    Framing,
    RequestHead,
    ResponseHead,
    chunk,
    close_after,
    last_chunk,
    make_chunked,
    write_request,
    write_response,
)


def _request(*fields: Field, framing: Framing = Framing.NONE) -> RequestHead:
    return RequestHead(b"GET", b"/a", 1, [(b"Host", b"a.example"), *fields], framing)


def _response(*fields: Field) -> ResponseHead:
    return ResponseHead(200, b"OK", 1, list(fields), Framing.NONE)


def test_another_target_and_further_fields() -> None:
    written = write_request(_request(), target=b"/b", extra=[(b"X", b"y")])
    assert written == b"GET /b HTTP/1.1\r\nHost: a.example\r\nX: y\r\n\r\n"


@pytest.mark.parametrize("evil", [b"a\r\nB: c", b"a\nB: c", b"a\rB: c", b"a\0", b"\r\n\r\nGET / HTTP/1.1"])
def test_nothing_can_end_its_line(evil: bytes) -> None:
    for head in (_request((b"A", evil)), _request((evil, b"a"))):
        with pytest.raises(ValueError, match="would end its line"):
            write_request(head)
    with pytest.raises(ValueError, match="would end its line"):
        write_request(_request(), target=b"/" + evil)
    with pytest.raises(ValueError, match="would end its line"):
        write_response(_response((b"A", evil)))
    with pytest.raises(ValueError, match="would end its line"):
        last_chunk([(b"A", evil)])


def test_closing() -> None:
    head = _response((b"connection", b"keep-alive"), (b"A", b"b"))
    close_after(head)
    assert write_response(head) == b"HTTP/1.1 200 OK\r\nconnection: close\r\nA: b\r\n\r\n"
    assert not head.keep_alive
    head = _response()
    close_after(head)
    assert write_response(head) == b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"


def test_a_body_whose_length_changes_is_sent_in_chunks() -> None:
    head = _response((b"content-length", b"5"), (b"A", b"b"))
    head.framing, head.length = Framing.LENGTH, 5
    make_chunked(head)
    assert write_response(head) == b"HTTP/1.1 200 OK\r\nA: b\r\nTransfer-Encoding: chunked\r\n\r\n"
    make_chunked(head)
    assert head.fields == [(b"A", b"b"), (b"Transfer-Encoding", b"chunked")]


def test_chunks() -> None:
    assert chunk(b"x" * 26) == b"1a\r\n" + b"x" * 26 + b"\r\n"
    assert chunk(memoryview(b"abc")) == b"3\r\nabc\r\n"
    assert chunk(b"") == b""
    assert last_chunk() == b"0\r\n\r\n"
    assert last_chunk([(b"A", b"b"), (b"C", b"d")]) == b"0\r\nA: b\r\nC: d\r\n\r\n"
