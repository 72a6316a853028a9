"""What first bytes are taken for: in doubt something that is parsed strictly."""

import pytest

from skerry.egress.worker.classify import MAX_BYTES, Kind, kind_of, method_of
from tests.harness.client_hello import of_openssl


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (of_openssl("api.example.com"), Kind.TLS),
        (b"\x16", Kind.TLS),
        (b"\x80\x2e\x01\x00\x02", Kind.TLS),  # SSL 2
        (b"\x80\x2e\x04", Kind.OTHER),
        (b"GET / HTTP/1.1\r\n", Kind.HTTP),
        (b"GET /", Kind.HTTP),
        (b"\r\n\r\nGET / HTTP/1.1\r\n", Kind.HTTP),
        (b" \t GET / HTTP/1.1\r\n", Kind.HTTP),
        (b"\x0b\x0cGET / HTTP/1.1\r\n", Kind.HTTP),
        (b"get /index HTTP/1.1\r\n", Kind.HTTP),
        (b"GET\thttp://a/ HTTP/1.1\r\n", Kind.HTTP),
        (b"CONNECT a:443 HTTP/1.1\r\n", Kind.HTTP),
        (b"FROB x HTTP/1.1\r\n", Kind.HTTP),
        (b"G@T /x HTTP/1.1\r\n", Kind.HTTP),
        (b"\x01GET /x HTTP/1.1\r\n", Kind.HTTP),
        (b"SSH-2.0-name comment\r\nHTTP/1.1", Kind.OTHER),
        (b"OPTIONS * HTTP/1.1\r\n", Kind.HTTP),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Kind.HTTP2),
        (b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n", Kind.OTHER),
        (b"\x00\x00\x00\x08\x04\xd2\x16\x2f", Kind.OTHER),  # PostgreSQL asks for TLS
        (b"*1\r\n$4\r\nPING\r\n", Kind.OTHER),  # Redis
        (b"EHLO mail\r\n", Kind.OTHER),
        (b"\r\n" * MAX_BYTES, Kind.HTTP),
    ],
)
def test_kind(data: bytes, kind: Kind) -> None:
    assert kind_of(data) is kind


@pytest.mark.parametrize("data", [b"", b"G", b"GET", b"GET ", b"PRI * HTT", b"\r\n", b"\x80\x2e"])
def test_not_enough(data: bytes) -> None:
    assert kind_of(data) is None


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\n", b"PRI * HTTP/2.0", b"SSH-2.0-x y\r\n"])
def test_more_bytes_never_make_another_kind(data: bytes) -> None:
    kinds = [kind_of(data[:size]) for size in range(len(data) + 1)]
    known = [kind for kind in kinds if kind is not None]
    assert len(set(known)) == 1


def test_method() -> None:
    assert method_of(b"HEAD / HTTP/1.1\r\n") == b"HEAD"
