"""Well-formed, damaged and random ClientHellos.

Whatever comes: however it is cut, the same is found; what is found is a plain name; OpenSSL reads the same
name and protocols, or refuses.
"""

import contextlib
import ssl

from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from skerry.egress.hello import Hello, MalformedHello, parse
from tests.harness import client_hello
from tests.harness.client_hello import Extension, alpn, message, records, server_name, supported_versions

FUZZ = settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
BEGINNING = b"\x16\x03\x01\0\x80\1\0\0\x7c\3\3"
REAL = client_hello.of_openssl("a.example", ["h2", "http/1.1"])

ends = st.lists(st.integers(0, 800), max_size=10)
names = st.sampled_from(
    [b"a.example", b"B.Example", b"a.example.", b"1.2.3.4", b"a_b.example", b"x\0.example"]
)
extensions = st.one_of(
    st.lists(names, max_size=2).map(lambda found: server_name(*found)),
    st.lists(st.binary(max_size=4), max_size=3).map(lambda found: alpn(*found)),
    st.lists(st.sampled_from([0x0301, 0x0303, 0x0304, 0x1A1A]), max_size=3).map(
        lambda found: supported_versions(*found)
    ),
    st.tuples(st.sampled_from([0, 10, 16, 21, 43, 51, 0xFE0D, 0x0A0A]), st.binary(max_size=20)),
)


@st.composite
def hellos(draw: st.DrawFn) -> bytes:
    """A hello from parts, perhaps wrong ones, or OpenSSL's."""
    found: list[Extension] = draw(st.lists(extensions, max_size=5))
    handshake = draw(st.just(message(*found)) | st.just(REAL[5:]))
    return records(handshake, draw(st.integers(1, 700)))


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A hello with some bytes changed, and others after it."""
    wire = bytearray(draw(hellos() | st.just(REAL)))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(wire)))
        wire[at : at + draw(st.integers(0, 3))] = draw(st.binary(max_size=3))
    return bytes(wire) + draw(st.just(b"") | st.binary(max_size=20))


def _parse(wire: bytes) -> Hello | str | None:
    try:
        return parse(wire)
    except MalformedHello as error:
        return error.what


def _assert_sound(wire: bytes, ends: list[int]) -> Hello | str | None:
    """Whatever is found must be found as soon as it is there, and stay."""
    whole = _parse(wire)
    if isinstance(whole, Hello):
        assert parse(wire[: whole.length]) == whole
        assert _parse(wire[: whole.length - 1]) is None
    for end in ends:
        assert _parse(wire[:end]) in (None, whole)
        if isinstance(whole, Hello) and end < whole.length:
            assert _parse(wire[:end]) is None
    return whole


@FUZZ
@given(wire=damaged(), ends=ends)
def test_hellos_are_found_or_refused(wire: bytes, ends: list[int]) -> None:
    found = _assert_sound(wire, ends)
    event(type(found).__name__)
    if isinstance(found, Hello) and found.server_name is not None:
        assert found.server_name.replace(".", "").replace("-", "").isalnum()
        assert found.server_name.isascii()


@FUZZ
@given(wire=st.binary(max_size=200), begun=st.booleans(), ends=ends)
def test_random_bytes_are_refused_or_wait(wire: bytes, begun: bool, ends: list[int]) -> None:
    _assert_sound(BEGINNING + wire if begun else wire, ends)


def _ask_openssl(wire: bytes) -> tuple[bool, str | None]:
    """Whether OpenSSL as a server gets as far as the name, and the name."""
    seen: list[str | None] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.sni_callback = lambda _, name, __: seen.append(name)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    connection = context.wrap_bio(incoming, outgoing, server_side=True)
    incoming.write(wire)
    with contextlib.suppress(ssl.SSLError):
        connection.do_handshake()
    return bool(seen), seen[0] if seen else None


@FUZZ
@given(wire=damaged())
def test_openssl_sees_the_same_name(wire: bytes) -> None:
    """A name that OpenSSL, and so most origins, would act on is the one that policy was asked about."""
    found = _parse(wire)
    if not isinstance(found, Hello):
        return
    reached, name = _ask_openssl(wire)
    event(f"OpenSSL takes it: {reached}")
    if reached:
        assert name == found.server_name
