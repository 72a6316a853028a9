"""The first message of a TLS client: what is told of it, and what is refused."""

import pytest

from skerry.egress.hello import (
    MAX_HELLO_BYTES,
    MAX_RECORDS,
    MAX_WIRE_BYTES,
    Hello,
    HelloReader,
    MalformedHello,
    parse,
)
from tests.harness.client_hello import (
    alpn,
    message,
    of_openssl,
    records,
    server_name,
    supported_versions,
    vector,
)

NAME = server_name(b"a.example")


def _feed_bytewise(wire: bytes) -> list[Hello | None]:
    reader = HelloReader()
    return [reader.feed(wire[at : at + 1]) for at in range(len(wire))]


def test_a_hello_of_openssl() -> None:
    wire = of_openssl("api.a.example", ["h2", "http/1.1"])
    assert parse(wire) == Hello("api.a.example", (b"h2", b"http/1.1"), has_ech=False, length=len(wire))
    assert parse(wire + b"more") == parse(wire)


def test_a_hello_without_a_name() -> None:
    found = parse(of_openssl(None))
    assert found is not None
    assert (found.server_name, found.alpn) == (None, ())


def test_a_hello_without_extensions() -> None:
    wire = records(message())
    assert parse(wire) == Hello(None, (), has_ech=False, length=len(wire))


@pytest.mark.parametrize("size", [1, 3, 5, 100, 511])
def test_a_hello_over_several_records(size: int) -> None:
    whole = of_openssl("a.example", ["h2"])
    wire = records(whole[5:], size)
    found = parse(wire)
    assert found == Hello("a.example", (b"h2",), has_ech=False, length=len(wire))


@pytest.mark.parametrize("size", [7, 16_384])
def test_a_hello_over_several_segments(size: int) -> None:
    wire = records(message(NAME, alpn(b"h2")), size)
    assert [parse(wire[:end]) for end in range(len(wire))] == [None] * len(wire)
    found = _feed_bytewise(wire)
    assert found[:-1] == [None] * (len(wire) - 1)
    assert found[-1] == parse(wire)
    assert parse(wire) is not None


def test_a_large_hello() -> None:
    def wire(padding: int) -> bytes:
        return records(message(NAME, (21, bytes(padding))))

    most = MAX_HELLO_BYTES - len(message(NAME, (21, b"")))
    found = parse(wire(most))
    assert found is not None
    assert found.server_name == "a.example"
    with pytest.raises(MalformedHello, match="too long"):
        parse(wire(most + 1))


def test_a_hello_that_is_too_long_is_refused_at_its_beginning() -> None:
    with pytest.raises(MalformedHello, match="too long"):
        parse(b"\x16\x03\x01\x40\x00\x01\x00\x40\x01")


def test_a_hello_over_too_many_records() -> None:
    handshake = message(NAME, (21, bytes(1_500)))
    assert parse(records(handshake, 2)) is not None
    wire = records(handshake, 1)[: 6 * MAX_RECORDS]
    assert parse(wire[:-1]) is None
    with pytest.raises(MalformedHello, match="too many records"):
        parse(wire)
    assert len(wire) < MAX_WIRE_BYTES


@pytest.mark.parametrize("kind", [0xFE0D, 0xFFCE])
def test_an_encrypted_hello_is_told(kind: int) -> None:
    found = parse(records(message(NAME, (kind, b"\0\0\1"))))
    assert found is not None
    assert found.has_ech
    assert found.server_name == "a.example"


def test_unknown_extensions_and_values_pass() -> None:
    wire = records(message((0x0A0A, b""), NAME, supported_versions(0x7A7A, 0x0304), alpn(b"\x8a\x8a", b"h2")))
    found = parse(wire)
    assert found is not None
    assert found.alpn == (b"\x8a\x8a", b"h2")


@pytest.mark.parametrize(
    "name",
    [b"a.example", b"A.Example", b"localhost", b"xn--bcher-kva.example", b"a--b.example", b"1a.2.b3",
     b"a" * 63 + b".example", b"0x1.example", (b"a." * 126) + b"a"],
)  # fmt: skip
def test_names_that_are_plain(name: bytes) -> None:
    found = parse(records(message(server_name(name))))
    assert found is not None
    assert found.server_name == name.decode()


@pytest.mark.parametrize(
    "name",
    [b"", b".", b"a.example.", b".a.example", b"a..example", b"a_b.example", b"a b.example", b"a.example ",
     b"a.example\0", b"a.example\0.b.example", b"a.example\n", b"-a.example", b"a-.example", b"*.example",
     b"a.example:443", b"a@b.example", b"a/b", b"a%2eexample", b"a\\b.example", b"1.2.3.4", b"127.1",
     b"2130706433", b"0x7f.1", b"0x7f000001", b"a.0x", b"[::1]", b"::1", b"::ffff:1.2.3.4",
     b"a" * 64 + b".example", (b"a." * 126) + b"aa", "bücher.example".encode(), b"a\xff.example",
     "a\u3002example".encode(), "a\uff0eexample".encode(), "a\u200b.example".encode()],
)  # fmt: skip
def test_names_that_are_not(name: bytes) -> None:
    with pytest.raises(MalformedHello, match="server_name"):
        parse(records(message(server_name(name))))


MALFORMED = {
    "SSL 2": b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10",
    "SSL 2 with TLS 1.2 in it": b"\x80\x2e\x01\x03\x03\x00\x15\x00\x00\x00\x10",
    "SSH": b"SSH-2.0-x\r\n",
    "HTTP": b"GET / HTTP/1.1\r\n",
    "an alert": b"\x15\x03\x01\x00\x02\x02\x28",
    "application data": b"\x17\x03\x03\x00\x05hello",
    "another record version": b"\x16\x02\x00\x00\x05hello",
    "an empty record": b"\x16\x03\x01\x00\x00",
    "a record that is too long": b"\x16\x03\x01\x40\x01\x01\x00",
    "a ServerHello": records(b"\x02" + vector(3, bytes(40))),
    "an alert in between": (
        records(message(NAME)[:20]) + b"\x15\x03\x01\x00\x02\x01\x00" + records(message(NAME)[20:])
    ),
    "two hellos in one record": records(message(NAME) + message(NAME)),
    "a beginning of another message": records(message(NAME) + b"\x01"),
    "TLS 1.1": records(message(NAME, version=0x0302)),
    "TLS 1.0": records(message(NAME, version=0x0301)),
    "SSL 3": records(message(NAME, version=0x0300)),
    "TLS 1.3 in the old place": records(message(NAME, version=0x0304)),
    "TLS 1.1 only, in the new place": records(message(NAME, supported_versions(0x0302, 0x0301))),
    "no versions": records(message(NAME, supported_versions())),
    "half a version": records(message(NAME, (43, b"\x01\x03"))),
    "a long session identifier": records(message(NAME, session=bytes(33))),
    "no ciphers": records(message(NAME, ciphers=b"")),
    "half a cipher": records(message(NAME, ciphers=b"\x13\x01\xc0")),
    "no compression methods": records(message(NAME, compression=b"")),
    "compression only": records(message(NAME, compression=b"\x01")),
    "bytes after the extensions": records(message(NAME, after=b"x")),
    "half a length of extensions": records(message(after=b"\0")),
    "half an extension": records(message(after=vector(2, b"\0\0"))),
    "an extension that is too long": records(message(after=vector(2, b"\0\x17\0\x05x"))),
    "two names": records(message(server_name(b"a.example", b"b.example"))),
    "two name extensions": records(message(NAME, server_name(b"b.example"))),
    "two equal extensions": records(message((23, b""), (23, b""))),
    "a name of another kind": records(message(server_name(b"a.example", kind=1))),
    "no names in the extension": records(message((0, vector(2, b"")))),
    "an empty name extension": records(message((0, b""))),
    "bytes after the names": records(message((0, NAME[1] + b"x"))),
    "a name that is too long for its list": records(message((0, vector(2, b"\0\0\x20a")))),
    "an empty list of protocols": records(message(alpn())),
    "an empty protocol": records(message(alpn(b"h2", b""))),
    "bytes after the protocols": records(message((16, alpn(b"h2")[1] + b"x"))),
}


@pytest.mark.parametrize("wire", MALFORMED.values(), ids=MALFORMED)
def test_what_is_no_hello(wire: bytes) -> None:
    with pytest.raises(MalformedHello):
        parse(wire)
    with pytest.raises(MalformedHello):
        _feed_bytewise(wire)


def test_no_bytes_of_the_peer_stand_in_an_error() -> None:
    with pytest.raises(MalformedHello) as caught:
        parse(records(message(server_name(b"s3cret_"))))
    assert "s3cret" not in repr(caught.value)
