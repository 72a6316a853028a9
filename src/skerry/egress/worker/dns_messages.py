"""The gateway's own questions to a resolver, and what their answers say. No I/O.

Source: RFC 1035; RFC 2308 (negative answers); RFC 6891 (EDNS); draft-vixie-dnsext-dns0x20.
"""

import secrets
from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Address, IPv6Address

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype

# dnspython imports these when it meets them first; by then no file may be opened any more.
import dns.rdtypes.ANY.CNAME
import dns.rdtypes.ANY.DNAME
import dns.rdtypes.ANY.OPT
import dns.rdtypes.ANY.RRSIG
import dns.rdtypes.ANY.SOA
import dns.rdtypes.IN.A
import dns.rdtypes.IN.AAAA

SHORTEST_TTL_S = 5
LONGEST_TTL_S = 300
NEGATIVE_TTL_S = 30
"""Of a name that is not there, when the answer does not say for how long."""

MAX_ADDRESSES = 32
_UDP_BYTES = 1232


class Kind(Enum):
    """Which addresses are asked for, in the order in which they are tried."""

    A = dns.rdatatype.A
    AAAA = dns.rdatatype.AAAA


@dataclass(frozen=True, slots=True)
class Question:
    """A question as it is sent.

    Attributes:
        wire: The message.
        labels: The name in the letter case that the answer has to repeat.
    """

    wire: bytes
    number: int
    kind: Kind
    labels: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Found:
    """What a name resolves to; no addresses: nothing of this kind.

    Attributes:
        exists: False: there is no such name, so nothing of any kind.
        ttl_s: How long this counts.
    """

    addresses: tuple[IPv4Address | IPv6Address, ...]
    ttl_s: int
    exists: bool = True


class Outcome(Enum):
    """Why a message gives no `Found`."""

    NOT_OURS = "it answers something else; the answer may still come"
    OTHER_CASE = "it does not repeat the letter case; ask over TCP"
    TRUNCATED = "ask over TCP"
    PLAINER = "the resolver does not understand EDNS"
    FAILED = "the resolver cannot say"


def question(name: str, kind: Kind, *, edns: bool = True, mixed_case: bool = True) -> Question:
    """Ask for a name's addresses, with a random number and random letter case.

    Args:
        name: Canonical, absolute.
    """
    shown = _mix_case(name) if mixed_case else name
    number = secrets.randbits(16)
    message = dns.message.make_query(
        dns.name.from_text(shown, dns.name.root),
        kind.value,
        use_edns=0 if edns else False,
        payload=_UDP_BYTES,
        id=number,
    )
    return Question(message.to_wire(), number, kind, message.question[0].name.labels)


def read(wire: bytes, asked: Question) -> Found | Outcome:
    """What an answer says. Never raises, whatever the bytes are."""
    try:
        message = dns.message.from_wire(wire, ignore_trailing=True, raise_on_truncation=False)
    except (dns.exception.DNSException, ValueError, ArithmeticError, LookupError, TypeError):
        # Only a header that is ours makes a broken message count.
        return Outcome.FAILED if wire[:2] == asked.number.to_bytes(2, "big") else Outcome.NOT_OURS
    if not isinstance(message, dns.message.QueryMessage) or message.id != asked.number:
        return Outcome.NOT_OURS
    if not message.flags & dns.flags.QR or message.opcode() != dns.opcode.QUERY:
        return Outcome.NOT_OURS
    if message.rcode() in (dns.rcode.FORMERR, dns.rcode.NOTIMP, dns.rcode.BADVERS):
        return Outcome.PLAINER
    problem = _question_problem(message, asked)
    if problem is not None:
        return problem
    if message.flags & dns.flags.TC:
        return Outcome.TRUNCATED
    return _found(message, asked)


def _mix_case(name: str) -> str:
    bits = secrets.randbits(len(name))
    return "".join(char.upper() if bits >> i & 1 else char for i, char in enumerate(name))


def _question_problem(message: dns.message.QueryMessage, asked: Question) -> Outcome | None:
    if len(message.question) != 1:
        return Outcome.NOT_OURS
    repeated = message.question[0]
    if repeated.rdtype != asked.kind.value or repeated.rdclass != dns.rdataclass.IN:
        return Outcome.NOT_OURS
    if repeated.name.labels == asked.labels:
        return None
    same = tuple(map(bytes.lower, repeated.name.labels)) == tuple(map(bytes.lower, asked.labels))
    return Outcome.OTHER_CASE if same else Outcome.NOT_OURS


def _found(message: dns.message.QueryMessage, asked: Question) -> Found | Outcome:
    rcode = message.rcode()
    if rcode not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
        return Outcome.FAILED
    try:
        chain = message.resolve_chaining()
    except (dns.exception.DNSException, LookupError):
        return Outcome.FAILED
    exists = rcode == dns.rcode.NOERROR
    if chain.answer is None or not exists:
        has_soa = any(rrset.rdtype == dns.rdatatype.SOA for rrset in message.authority)
        ttl_s = chain.minimum_ttl if has_soa else NEGATIVE_TTL_S
        return Found((), _bounded(ttl_s), exists)
    kind = IPv4Address if asked.kind is Kind.A else IPv6Address
    texts = [getattr(rdata, "address", "") for rdata in chain.answer]
    addresses = tuple(dict.fromkeys(kind(text) for text in texts if text))
    return Found(addresses[:MAX_ADDRESSES], _bounded(chain.minimum_ttl))


def _bounded(ttl_s: int) -> int:
    return max(SHORTEST_TTL_S, min(ttl_s, LONGEST_TTL_S))
