"""Any bytes to the name server, with dnspython as a second opinion on what was asked and on the answers."""

import struct
from contextlib import suppress

import dns.exception
import dns.flags
import dns.message
import dns.rcode
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from skerry.egress.dns import FramingError, QueryFramer, SyntheticNames, answer, framed
from skerry.egress.dns.message import Malformed, parse

FUZZ = settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
ALLOWED = frozenset({"api.example", "a.b.c.example", "x"})

label = st.one_of(
    st.sampled_from([b"api", b"example", b"API", b"in-addr", b"arpa", b"198", b"18", b"0", b"a.b", b"x"]),
    st.binary(min_size=1, max_size=63),
)
short = st.integers(0, 0xFFFF)


@st.composite
def queries(draw: st.DrawFn) -> bytes:
    """Queries, mostly well-formed."""
    name = b"".join(bytes([len(one)]) + one for one in draw(st.lists(label, max_size=5))) + b"\0"
    kind = draw(st.sampled_from([1, 12, 28, 65, 16, 255, 252]) | short)
    cls = draw(st.sampled_from([1, 1, 1, 3]) | short)
    flags = draw(st.sampled_from([0x0100, 0x0120, 0]) | short)
    edns = draw(st.booleans())
    wire = struct.pack(">HHHHHH", draw(short), flags, 1, 0, 0, edns) + name + struct.pack(">HH", kind, cls)
    if edns:
        options = draw(st.sampled_from([b"", b"\0\x0a\0\x08abcdefgh", b"\0\x0a\0\x09abcdefgh"]))
        wire += b"\0" + struct.pack(
            ">HHIH", 41, 1232, draw(st.sampled_from([0, 0x8000, 0x10000])), len(options)
        )
        wire += options
    return wire


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """Queries with some bytes changed, lost or added."""
    wire = bytearray(draw(queries()))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(wire)))
        wire[at : at + draw(st.integers(0, 2))] = draw(st.binary(max_size=2))
    return bytes(wire)


@FUZZ
@given(st.one_of(queries(), damaged(), st.binary(max_size=600)))
def test_any_bytes(wire: bytes) -> None:
    names = SyntheticNames(b"sbx")
    found = answer(wire, names, ALLOWED.__contains__)
    assert set(names._addresses) <= ALLOWED
    if found is None:
        assert len(wire) < 12 or wire[2] & 0x80
        return
    assert len(found) <= 512
    assert found[:2] == wire[:2]
    response = dns.message.from_wire(found)
    assert response.flags & dns.flags.QR
    event(dns.rcode.to_text(response.rcode()))
    if response.rcode() in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
        assert response.question == dns.message.from_wire(wire).question


@FUZZ
@given(st.one_of(queries(), damaged()))
def test_dnspython_understands_the_same_question(wire: bytes) -> None:
    try:
        query = parse(wire)
    except Malformed:
        return
    other = dns.message.from_wire(wire)
    assert other.id == query.id
    if query.cls in (1, 3) and query.type not in (0, 41, 250):
        (question,) = other.question
        assert question.name.labels == (*query.labels, b"")
        assert (question.rdtype, question.rdclass) == (query.type, query.cls)
    assert (other.edns >= 0) == query.edns


@FUZZ
@given(st.lists(st.binary(min_size=12, max_size=60), max_size=5), st.binary(max_size=4), st.integers(1, 30))
def test_framing(messages: list[bytes], rest: bytes, size: int) -> None:
    stream = b"".join(map(framed, messages)) + rest
    framer = QueryFramer()
    found: list[bytes] = []
    with suppress(FramingError):
        for at in range(0, len(stream), size):
            found += framer.feed(stream[at : at + size])
    assert found == messages[: len(found)]
    assert len(found) == len(messages) or rest
