"""What a sandbox's worker makes of first bytes and of resolvers' answers, whatever they are."""

import dns.message
import dns.rcode
import dns.rrset
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from skerry.egress.hello import MalformedHello, parse
from skerry.egress.http1.model import Malformed
from skerry.egress.http1.request import RequestReader
from skerry.egress.worker.classify import MAX_BYTES, Kind, kind_of
from skerry.egress.worker.dns_messages import (
    LONGEST_TTL_S,
    MAX_ADDRESSES,
    SHORTEST_TTL_S,
    Found,
    Outcome,
    question,
    read,
)
from skerry.egress.worker.dns_messages import Kind as AddressKind
from skerry.spec.settings import EgressLimits
from tests.harness import client_hello

FUZZ = settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))

HTTP = b"GET /a?b HTTP/1.1\r\nHost: a.test\r\n\r\n"
TLS = client_hello.of_openssl("a.test")
BEGINNINGS = [
    HTTP,
    TLS,
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"\x80\x2e\x01\0\2",
    b"SSH-2.0-x\r\n",
    b"\r\n GET http://",
]


@st.composite
def first_bytes(draw: st.DrawFn) -> bytes:
    """Bytes near those of a protocol."""
    data = bytearray(draw(st.sampled_from(BEGINNINGS) | st.binary(max_size=40)))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, min(len(data), 40)))
        data[at : at + draw(st.integers(0, 2))] = draw(
            st.binary(max_size=3) | st.sampled_from([b"\r\n", b" "])
        )
    return bytes(data)


@FUZZ
@given(first_bytes())
def test_what_a_parser_takes_is_never_passed_unread(data: bytes) -> None:
    kind = kind_of(data)
    event(str(kind))
    try:
        heads = RequestReader(EgressLimits()).feed(data)
    except Malformed:
        heads = []
    if heads:
        assert kind is Kind.HTTP
    try:
        hello = parse(data)
    except MalformedHello:
        hello = None
    if hello is not None:
        assert kind is Kind.TLS


@FUZZ
@given(first_bytes())
def test_a_kind_does_not_change_with_more_bytes(data: bytes) -> None:
    kinds = [kind_of(data[:size]) for size in range(min(len(data), 80) + 1)]
    found = [kind for kind in kinds if kind is not None]
    if b" HTTP/" in data:  # what is no method is only told by what follows it
        found = [kind for kind in found if kind is not Kind.OTHER]
    assert len(set(found)) <= 1
    if found:
        assert None not in kinds[kinds.index(found[0]) :]
    assert kind_of(data + b"\n" * MAX_BYTES) is not None


@st.composite
def answers(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """A question and an answer to it, made of parts and damaged."""
    asked = question("a.test", AddressKind.A)
    answer = dns.message.make_response(dns.message.from_wire(asked.wire))
    answer.set_rcode(
        draw(st.sampled_from([dns.rcode.NOERROR] * 3 + [dns.rcode.NXDOMAIN, dns.rcode.SERVFAIL]))
    )
    for text in draw(
        st.lists(
            st.sampled_from(
                [
                    ("a.test.", "A", "192.0.2.1"),
                    ("a.test.", "CNAME", "b.test."),
                    ("b.test.", "A", "10.0.0.1"),
                    ("b.test.", "CNAME", "a.test."),
                    ("c.test.", "A", "192.0.2.3"),
                    ("a.test.", "AAAA", "::1"),
                ]
            ),
            max_size=4,
        )
    ):
        ttl = draw(st.sampled_from([0, 60, 2**31 - 1]))
        answer.answer.append(dns.rrset.from_text(text[0], ttl, "IN", text[1], text[2]))
    wire = bytearray(answer.to_wire())
    for _ in range(draw(st.integers(0, 3))):
        wire[draw(st.integers(0, len(wire) - 1))] = draw(st.integers(0, 255))
    return asked.wire, bytes(wire[: draw(st.integers(0, len(wire)))] if draw(st.booleans()) else wire)


@FUZZ
@given(answers())
def test_answers_are_read_without_surprises(pair: tuple[bytes, bytes]) -> None:
    wire, answer = pair
    query = dns.message.from_wire(wire)
    asked = question("a.test", AddressKind.A)
    asked = type(asked)(wire, query.id, AddressKind.A, query.question[0].name.labels)
    found = read(answer, asked)
    event(str(found) if isinstance(found, Outcome) else "found")
    if isinstance(found, Found):
        assert SHORTEST_TTL_S <= found.ttl_s <= LONGEST_TTL_S
        assert len(found.addresses) <= MAX_ADDRESSES
        assert all(address.version == 4 for address in found.addresses)
