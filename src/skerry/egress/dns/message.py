"""DNS messages as far as a server without zones needs them: queries of one question are parsed, small answers
are written. RFC 1035 section 4, RFC 6891 (EDNS).

Not dnspython's parser: that one reads every record type, follows compression pointers and costs ten times as
much, and nothing of it is wanted for a question. It is the peer in the differential test.
"""

import struct
from dataclasses import dataclass

HEADER_BYTES = 12
MAX_NAME_BYTES = 255
MAX_QUERY_BYTES = 1_232

TYPE_A = 1
TYPE_SOA = 6
TYPE_PTR = 12
TYPE_OPT = 41
TYPE_IXFR = 251  # to 254: AXFR, MAILB, MAILA: questions about zones
TYPE_MAILA = 254
CLASS_IN = 1

NOERROR = 0
FORMERR = 1
SERVFAIL = 2
NXDOMAIN = 3
NOTIMP = 4
REFUSED = 5
BADVERS = 16

_RESPONSE = 0x8000
_OPCODE = 0x7800
_TRUNCATED = 0x0200
_RECURSION_DESIRED = 0x0100
_RECURSION_AVAILABLE = 0x0080
_CHECKING_DISABLED = 0x0010

_OWN_UDP_BYTES = 1_232
_DNSSEC_OK = 0x8000
_TO_QUESTION = b"\xc0\x0c"  # a compression pointer to the question's name

_Header = struct.Struct(">HHHHHH")
_Question = struct.Struct(">HH")
_Record = struct.Struct(">HHIH")


class Malformed(Exception):
    """Not a query that can be understood.

    Args:
        rcode: What to answer; None: nothing, since it may not even be a query.
    """

    def __init__(self, rcode: int | None) -> None:
        super().__init__("malformed query")
        self.rcode = rcode


@dataclass(frozen=True, slots=True)
class Query:
    """One question.

    Attributes:
        question: As received, to be repeated in the answer with the case of its letters.
        labels: Of the name; empty for the root.
        edns: It has an OPT record.
        edns_version: Of that.
        dnssec_ok: Its DO bit, which an answer repeats (RFC 3225).
    """

    id: int
    flags: int
    question: bytes
    labels: tuple[bytes, ...]
    type: int
    cls: int
    edns: bool = False
    edns_version: int = 0
    dnssec_ok: bool = False


def parse(wire: bytes) -> Query:
    """Read a query.

    Raises:
        Malformed: Several questions, records that do not belong there, compression in the question, bytes
            after the end, another operation than a query.
    """
    if len(wire) < HEADER_BYTES:
        raise Malformed(None)
    identity, flags, questions, answers, authorities, additional = _Header.unpack_from(wire)
    if flags & _RESPONSE:
        raise Malformed(None)  # answering an answer could go on for ever
    if flags & _OPCODE:
        raise Malformed(NOTIMP)
    if len(wire) > MAX_QUERY_BYTES or flags & _TRUNCATED:
        raise Malformed(FORMERR)
    if questions != 1 or answers or authorities or additional > 1:
        raise Malformed(FORMERR)
    labels, at = _labels(wire)
    if at + _Question.size > len(wire):
        raise Malformed(FORMERR)
    kind, cls = _Question.unpack_from(wire, at)
    at += _Question.size
    question = wire[HEADER_BYTES:at]
    edns, version, dnssec_ok = _opt(wire[at:]) if additional else (False, 0, False)
    if not additional and at != len(wire):
        raise Malformed(FORMERR)
    return Query(identity, flags, question, labels, kind, cls, edns, version, dnssec_ok)


def _labels(wire: bytes) -> tuple[tuple[bytes, ...], int]:
    """The name in the question and the offset after it."""
    labels: list[bytes] = []
    at = HEADER_BYTES
    while at < len(wire):
        size = wire[at]
        at += 1
        if not size:
            return tuple(labels), at
        if size > 63 or at + size >= len(wire) or at + size - HEADER_BYTES >= MAX_NAME_BYTES:
            raise Malformed(FORMERR)
        labels.append(wire[at : at + size])
        at += size
    raise Malformed(FORMERR)


def _opt(wire: bytes) -> tuple[bool, int, bool]:
    """Read the only record that may follow a question. Its options are passed over."""
    if len(wire) < 1 + _Record.size or wire[0]:
        raise Malformed(FORMERR)
    kind, _udp_bytes, extended, size = _Record.unpack_from(wire, 1)
    if kind != TYPE_OPT or 1 + _Record.size + size != len(wire):
        raise Malformed(FORMERR)
    at = 1 + _Record.size
    while at < len(wire):
        if at + 4 > len(wire):
            raise Malformed(FORMERR)
        at += 4 + int.from_bytes(wire[at + 2 : at + 4], "big")
    if at != len(wire):
        raise Malformed(FORMERR)
    return True, extended >> 16 & 0xFF, bool(extended & _DNSSEC_OK)


def response(query: Query, rcode: int, *, ttl_s: int = 0, data: bytes | None = None) -> bytes:
    """Write an answer.

    Args:
        data: Of one record of the question's type; None: there is none, and an authority record says for how
            long (``ttl_s``) that may be believed (RFC 2308).
    """
    parts = [query.question]
    negative = data is None and rcode in (NOERROR, NXDOMAIN)
    if data is not None:
        parts += [_TO_QUESTION, _Record.pack(query.type, query.cls, ttl_s, len(data)), data]
    elif negative:
        parts.append(_start_of_authority(ttl_s))
    if query.edns:
        flags = (rcode >> 4) << 24 | (_DNSSEC_OK if query.dnssec_ok else 0)
        parts += [b"\0", _Record.pack(TYPE_OPT, _OWN_UDP_BYTES, flags, 0)]
    flags = _response_flags(query.flags) | rcode & 0xF
    counts = (1, int(data is not None), int(negative), int(query.edns))
    return _Header.pack(query.id, flags, *counts) + b"".join(parts)


def refusal(wire: bytes, rcode: int) -> bytes:
    """Answer what could not be parsed, with its header alone."""
    identity, flags = struct.unpack_from(">HH", wire)
    return _Header.pack(identity, _response_flags(flags) | flags & _OPCODE | rcode, 0, 0, 0, 0)


def _response_flags(flags: int) -> int:
    return _RESPONSE | _RECURSION_AVAILABLE | flags & (_RECURSION_DESIRED | _CHECKING_DISABLED)


def _start_of_authority(ttl_s: int) -> bytes:
    """Of the root, as there is nothing else to name: no servers, and for how long."""
    data = b"\0\0" + struct.pack(">IIIII", 1, ttl_s, ttl_s, ttl_s, ttl_s)
    return b"\0" + _Record.pack(TYPE_SOA, CLASS_IN, ttl_s, len(data)) + data


def name_data(name: str) -> bytes:
    """A name as the data of a record, uncompressed; the name must be canonical."""
    labels = [label.encode("ascii") for label in name.split(".")]
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"
