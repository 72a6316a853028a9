"""The classifier's questions about a connection's first bytes."""

import pytest

from skerry.egress.http1 import looks_like_http, looks_like_http2

HTTP = [
    b"GET / HTTP/1.1\r\n",
    b"OPTIONS * HTTP/1.1\r\n",
    b"CONNECT a.example:443 HTTP/1.1\r\n",
    b"GET http://a.example/ HTTP/1.1\r\n",
    b"M-SEARCH * HTTP/1.1\r\n",
    # Nearly requests: to be refused as such, not to pass as another protocol.
    b"get / HTTP/1.1\r\n",
    b"\r\nGET / HTTP/1.1\r\n",
    b"GET  /",
    b"GET\t/",
    b"GET a.example HTTP/1.1",
]
OTHER = [
    b"\x16\x03\x01\x02\x00\x01",
    b"SSH-2.0-OpenSSH_9.2\r\n",
    b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n",
    b"EHLO a.example\r\n",
    b"*1\r\n$4\r\nPING\r\n",
    b"\0\0\0\x08\x04\xd2\x16\x2f",
    b"\x80\x2e\x01\x00\x02",
    b"USER me\r\n",
    b"A" * 40,
]


@pytest.mark.parametrize("first", HTTP)
def test_requests(first: bytes) -> None:
    assert looks_like_http(first) is True
    assert looks_like_http2(first) is False


@pytest.mark.parametrize("first", OTHER)
def test_other_protocols(first: bytes) -> None:
    assert looks_like_http(first) is False
    assert looks_like_http2(first) is False


@pytest.mark.parametrize("first", HTTP)
def test_a_request_is_never_mistaken_while_it_comes(first: bytes) -> None:
    answers = [looks_like_http(first[:end]) for end in range(len(first) + 1)]
    assert False not in answers
    assert answers[0] is None
    assert answers[-1] is True


def test_the_preface_of_http_2() -> None:
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    answers = [looks_like_http2(preface[:end]) for end in range(len(preface) + 1)]
    assert answers == [None] * 12 + [True] * 13
    assert looks_like_http2(b"PRI * HTTP/1.1") is False
