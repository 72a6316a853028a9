"""The name server of sandboxes: answers from policy alone, and nothing but well-formed questions get one."""

import struct
from ipaddress import IPv4Address

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.reversename
import pytest

from skerry.egress.dns import FramingError, QueryFramer, QueryLimit, SyntheticNames, answer, framed
from skerry.egress.dns.names import NamesExhausted

ALLOWED = {"api.example", "other.example", "xn--bcher-kva.example"}


def _names(limit: int = 2_000) -> SyntheticNames:
    return SyntheticNames(b"sbx", limit=limit)


def _ask(
    name: str, kind: str = "A", *, names: SyntheticNames | None = None, edns: bool = False
) -> dns.message.Message:
    query = dns.message.make_query(name, kind, use_edns=0 if edns else False)
    found = answer(query.to_wire(), _names() if names is None else names, ALLOWED.__contains__)
    assert found is not None
    assert len(found) <= 512
    response = dns.message.from_wire(found)
    assert query.is_response(response)
    assert response.flags & dns.flags.RA
    return response


def _address(response: dns.message.Message) -> IPv4Address:
    assert response.rcode() == dns.rcode.NOERROR
    (records,) = response.answer
    (record,) = records
    return IPv4Address(record.to_text())


def _is_empty(response: dns.message.Message) -> bool:
    (soa,) = response.authority
    return not response.answer and soa.rdtype == dns.rdatatype.SOA and soa.ttl <= 5


@pytest.mark.parametrize("edns", [False, True])
def test_an_allowed_name_has_one_synthetic_address(edns: bool) -> None:
    names = _names()
    found = _address(_ask("api.example", names=names, edns=edns))
    assert IPv4Address("198.18.0.2") <= found <= IPv4Address("198.19.255.254")
    assert _address(_ask("API.eXample", names=names)) == found
    assert _address(_ask("other.example", names=names)) != found
    assert names.name(found) == "api.example"


def test_the_question_is_repeated_as_it_was_written() -> None:
    assert _ask("aPi.ExamPle").question[0].name.to_text() == "aPi.ExamPle."


@pytest.mark.parametrize(
    "kind",
    [
        "AAAA",
        "HTTPS",
        "SVCB",
        "TXT",
        "MX",
        "SRV",
        "NS",
        "SOA",
        "CNAME",
        "CAA",
        "NULL",
        "PTR",
        "ANY",
        "TYPE65400",
    ],
)
def test_other_types_of_an_allowed_name_are_empty(kind: str) -> None:
    response = _ask("api.example", kind)
    assert response.rcode() == dns.rcode.NOERROR
    assert _is_empty(response)


@pytest.mark.parametrize(
    "name",
    [
        "no.example",
        "sub.api.example",
        "api.example.search.domain",
        "data-in-labels.no.example",
        "_http._tcp.api.example",
        r"b\195\188cher.example",
        r"api\.example",
        r"a\000pi.example",
        "127.1",
        "198.18.0.2",
        "x" * 63 + ".example",
    ],
)
@pytest.mark.parametrize("kind", ["A", "AAAA", "TXT"])
def test_what_is_not_allowed_does_not_exist(name: str, kind: str) -> None:
    names = _names()
    response = _ask(name, kind, names=names)
    assert response.rcode() == dns.rcode.NXDOMAIN
    assert _is_empty(response)
    assert len(names) == 0


def test_reverse_look_ups() -> None:
    names = _names()
    found = _address(_ask("api.example", names=names))
    pointer = dns.reversename.from_address(str(found)).to_text()
    response = _ask(pointer, "PTR", names=names)
    assert [record.to_text() for record in response.answer[0]] == ["api.example."]
    assert _is_empty(_ask(pointer, "A", names=names))
    for other in ("198.18.200.200", "8.8.8.8", "198.18.0.1"):
        if str(found) != other:
            unknown = _ask(dns.reversename.from_address(other).to_text(), "PTR", names=names)
            assert unknown.rcode() == dns.rcode.NXDOMAIN
    assert _ask("2.0.18.in-addr.arpa", "PTR", names=names).rcode() == dns.rcode.NXDOMAIN
    assert _ask("x.0.18.198.in-addr.arpa", "PTR", names=names).rcode() == dns.rcode.NXDOMAIN
    assert _ask("in-addr.arpa", "PTR", names=names).rcode() == dns.rcode.NXDOMAIN


def test_the_root_is_empty() -> None:
    assert _is_empty(_ask(".", "NS"))


def test_addresses_belong_to_the_sandbox_and_survive_its_worker() -> None:
    first, second, other = _names(), _names(), SyntheticNames(b"another")
    names = [f"n{number}.example" for number in range(200)]
    assert [first.address(name) for name in names] == [second.address(name) for name in reversed(names)][::-1]
    assert [first.address(name) for name in names] != [other.address(name) for name in names]
    assert len({first.address(name) for name in names}) == 200


def test_names_are_limited() -> None:
    names = _names(limit=1)
    assert _address(_ask("api.example", names=names)) == _address(_ask("api.example", names=names))
    assert _ask("other.example", names=names).rcode() == dns.rcode.SERVFAIL
    with pytest.raises(NamesExhausted):
        names.address("other.example")


def test_many_names_have_different_addresses() -> None:
    names = _names(limit=60_000)
    found = {names.address(f"{number}.example") for number in range(20_000)}
    assert len(found) == 20_000
    assert min(found) >= IPv4Address("198.18.0.2")
    assert max(found) <= IPv4Address("198.19.255.254")


def _wire(
    *, flags: int = 0x0100, counts: tuple[int, int, int, int] = (1, 0, 0, 0), body: bytes | None = None
) -> bytes:
    question = b"\x03api\x07example\0" + struct.pack(">HH", 1, 1)
    return struct.pack(">HHHHHH", 77, flags, *counts) + (question if body is None else body)


QUESTION = _wire()[12:]
OPT = b"\0" + struct.pack(">HHIH", 41, 1232, 0, 0)


@pytest.mark.parametrize(
    "wire",
    [
        _wire(counts=(2, 0, 0, 0), body=QUESTION * 2),
        _wire(counts=(0, 0, 0, 0), body=b""),
        _wire(counts=(1, 1, 0, 0)),
        _wire(counts=(1, 0, 1, 0)),
        _wire(counts=(1, 0, 0, 1)),
        _wire(counts=(1, 0, 0, 2), body=QUESTION + OPT * 2),
        _wire(body=QUESTION[:-1]),
        _wire(body=QUESTION + b"\0"),
        _wire(body=b"\xc0\x0c\0\1\0\1"),
        _wire(body=b"\x03api\xc0\x0c\0\1\0\1"),
        _wire(body=b"\x40" + b"a" * 64 + b"\0\0\1\0\1"),
        _wire(body=(b"\x3f" + b"a" * 63) * 4 + b"\0\0\1\0\1"),
        _wire(body=b"\x03ap"),
        _wire(body=b""),
        _wire(flags=0x0300),
        _wire(counts=(1, 0, 0, 1), body=QUESTION + OPT[:-1]),
        _wire(counts=(1, 0, 0, 1), body=QUESTION + OPT + b"x"),
        _wire(counts=(1, 0, 0, 1), body=QUESTION + b"\1a\0" + OPT[1:]),
        _wire(counts=(1, 0, 0, 1), body=QUESTION + b"\0" + struct.pack(">HHIH", 1, 1, 0, 0)),
        _wire(counts=(1, 0, 0, 1), body=QUESTION + OPT[:-2] + b"\0\3abc"),
        _wire(counts=(1, 0, 0, 1), body=QUESTION + OPT[:-2] + b"\0\5\0\x0a\0\x09x"),
        _wire(body=b"\x03api\x07example\0" + struct.pack(">HH", 41, 1)),
        _wire(body=QUESTION + b"x" * 2_000),
    ],
)
def test_malformed_queries(wire: bytes) -> None:
    names = _names()
    found = answer(wire, names, lambda name: True)
    assert found is not None
    assert dns.message.from_wire(found).rcode() == dns.rcode.FORMERR
    assert found[:2] == wire[:2]
    assert len(names) == 0


@pytest.mark.parametrize("wire", [b"", b"x" * 11, _wire(flags=0x8180)])
def test_what_may_not_even_be_a_query_has_no_answer(wire: bytes) -> None:
    assert answer(wire, _names(), lambda name: True) is None


@pytest.mark.parametrize("opcode", [1, 2, 4, 5, 15])
def test_other_operations(opcode: int) -> None:
    found = answer(_wire(flags=opcode << 11), _names(), lambda name: True)
    assert found is not None
    assert struct.unpack_from(">H", found, 2)[0] == 0x8080 | opcode << 11 | dns.rcode.NOTIMP


@pytest.mark.parametrize("cls", [2, 3, 4, 254, 255])
def test_other_classes(cls: int) -> None:
    body = b"\x07version\x04bind\0" + struct.pack(">HH", 16, cls)
    found = answer(_wire(body=body), _names(), lambda name: True)
    assert found is not None
    assert found[3] & 15 == dns.rcode.REFUSED


@pytest.mark.parametrize("kind", ["AXFR", "IXFR", "MAILA", "MAILB"])
def test_questions_about_zones(kind: str) -> None:
    body = b"\x03api\x07example\0" + struct.pack(">HH", dns.rdatatype.from_text(kind), 1)
    found = answer(_wire(body=body), _names(), lambda name: True)
    assert found is not None
    assert found[3] & 15 == dns.rcode.REFUSED


def test_edns() -> None:
    query = dns.message.make_query("api.example", "A", use_edns=0, want_dnssec=True, payload=4096)
    found = answer(query.to_wire(), _names(), lambda name: True)
    assert found is not None
    response = dns.message.from_wire(found)
    assert response.edns == 0
    assert response.ednsflags & dns.flags.DO
    assert response.options == ()
    version = dns.message.make_query("api.example", "A", use_edns=1)
    found = answer(version.to_wire(), _names(), lambda name: True)
    assert found is not None
    assert dns.message.from_wire(found).rcode() == dns.rcode.BADVERS


def test_options_are_passed_over() -> None:
    wire = _wire(counts=(1, 0, 0, 1), body=QUESTION + OPT[:-2] + b"\0\x0c\0\x0a\0\x08cookie!!")
    found = answer(wire, _names(), lambda name: True)
    assert found is not None
    assert dns.message.from_wire(found).rcode() == dns.rcode.NOERROR


def test_a_limit_of_queries() -> None:
    limit = QueryLimit(50, now_s=10)
    assert sum(limit.take(10) for _ in range(200)) == 100
    assert sum(limit.take(11) for _ in range(200)) == 50
    assert limit.refused == 250
    assert sum(limit.take(1_000) for _ in range(200)) == 100


def test_framing() -> None:
    first, second = _wire(), _wire(flags=0)
    stream = framed(first) + framed(second) + framed(first)[:9]
    for size in (1, 2, 5, 1_000):
        framer = QueryFramer()
        found = [one for at in range(0, len(stream), size) for one in framer.feed(stream[at : at + size])]
        assert found == [first, second]


@pytest.mark.parametrize("length", [0, 11, 1_233, 65_535])
def test_lengths_that_no_query_has(length: int) -> None:
    with pytest.raises(FramingError):
        QueryFramer().feed(length.to_bytes(2, "big"))
