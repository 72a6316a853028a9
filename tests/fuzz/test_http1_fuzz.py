"""Well-formed, damaged and random messages to the HTTP/1.1 engine, with h11 as a second opinion.

What the engine takes, h11 must read in the same way, before and after it was written anew: then nobody
behind the gateway can see another message, or another end of it, than policy saw.
"""

from hypothesis import HealthCheck, assume, event, given, settings
from hypothesis import strategies as st

from skerry.egress.http1 import (
    END,
    Data,
    Framing,
    Interim,
    Malformed,
    RequestHead,
    RequestReader,
    ResponseHead,
    ResponseReader,
    Trailers,
    Upgraded,
    chunk,
    last_chunk,
    looks_like_http,
    write_request,
    write_response,
)
from skerry.spec.settings import EgressLimits
from tests.harness import h11_peer
from tests.harness.h11_peer import Fields, Seen

LIMITS = EgressLimits()
FUZZ = settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
OF_THE_CONNECTION = {
    b"connection", b"keep-alive", b"proxy-connection", b"proxy-authorization", b"te", b"upgrade", b"alt-svc",
    b"http2-settings",
}  # fmt: skip

tokens = st.text("abcXYZ019-.!~", max_size=8).map(lambda text: b"X-" + text.encode())
values = st.binary(max_size=12).map(
    lambda raw: bytes(byte for byte in raw if byte == 9 or (byte >= 32 and byte != 127)).strip(b" \t")
)
field_lists = st.lists(
    st.tuples(tokens, values)
    | st.sampled_from(
        [
            (b"Accept", b"*/*"), (b"Connection", b"keep-alive"), (b"Connection", b"close"),
            (b"connection", b"x-a, Keep-Alive"), (b"X-A", b"own"), (b"Authorization", b"Bearer x"),
            (b"TE", b"trailers"), (b"Upgrade", b"websocket"), (b"Cookie", b"a=b; c=d"),
        ]
    ),
    max_size=6,
    unique_by=lambda field: b"Upgrade" if field[0] == b"Upgrade" else object(),
)  # fmt: skip
targets = st.text([chr(code) for code in range(0x21, 0x7F) if chr(code) != "#"], max_size=20).map(
    lambda text: b"/" + text.encode()
)
bodies = st.binary(max_size=200)


@st.composite
def framed(draw: st.DrawFn, *, may_close: bool) -> tuple[Fields, bytes]:
    """Fields that delimit a body, and the body in its framing."""
    body = draw(bodies)
    match draw(st.sampled_from(["none", "length", "chunked", *(["close"] if may_close else [])])):
        case "length":
            return [(b"Content-Length", b"%d" % len(body))], body
        case "chunked":
            cuts = sorted(draw(st.lists(st.integers(0, len(body)), max_size=4)))
            parts = [body[a:b] for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True)]
            extension = draw(st.sampled_from([b"", b";a", b';a=b; c="d e"']))
            chunks = [b"%x%b\r\n%b\r\n" % (len(part), extension, part) for part in parts if part]
            end = draw(st.sampled_from([b"0\r\n\r\n", b"000\r\n\r\n", b"0\r\nX-Checksum-A: b\r\n\r\n"]))
            return [(b"Transfer-Encoding", b"chunked")], b"".join(chunks) + end
        case "close":
            return [], body
        case _:
            return [], b""


def _block(fields: Fields) -> bytes:
    return b"".join(b"%b: %b\r\n" % field for field in fields) + b"\r\n"


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """A request that is well-formed."""
    method = draw(st.sampled_from([b"GET", b"POST", b"PUT", b"HEAD", b"OPTIONS", b"M-SEARCH"]))
    version = draw(st.sampled_from([b"1.1", b"1.1", b"1.1", b"1.0"]))
    framing, wire = draw(framed(may_close=False))
    if version == b"1.0" and framing and framing[0][0] == b"Transfer-Encoding":
        version = b"1.1"
    fields = draw(st.permutations([(b"Host", b"a.example"), *framing, *draw(field_lists)]))
    return b"%b %b HTTP/%b\r\n%b%b" % (method, draw(targets), version, _block(fields), wire)


@st.composite
def responses(draw: st.DrawFn) -> bytes:
    """A response that is well-formed, perhaps with interim ones before it."""
    status = draw(st.sampled_from([200, 201, 204, 206, 301, 304, 404, 500]))
    reason = draw(values)
    framing, wire = draw(framed(may_close=True))
    if status in (204, 304):
        framing, wire = [], b""
    fields = draw(st.permutations([*framing, *draw(field_lists), (b"Alt-Svc", b"h3")]))
    interims = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * draw(st.integers(0, 2))
    return interims + b"HTTP/1.1 %d %b\r\n%b%b" % (status, reason, _block(fields), wire)


SPLINTERS = st.sampled_from(
    [
        b"\r\n", b"\n", b"\r", b" ", b"\t", b"\0", b":", b";", b"\x85", b"\xa0", b"\r\n ", b"\r\n\r\n",
        b"0\r\n\r\n", b"5\r\nhello\r\n", b"Content-Length: 3\r\n", b"Content-Length: 0\r\nX: ",
        b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: identity\r\n", b"chunked", b", chunked",
        b"Host: b.example\r\n", b"Connection: Host\r\n", b"HTTP/1.0", b"HTTP/1.1", b"GET / HTTP/1.1\r\n",
        b"http://a.example", b"Upgrade", b"HEAD", b"CONNECT", b"HTTP/1.1 200 OK\r\n", b"204", b"101",
    ]
)  # fmt: skip


@st.composite
def damaged(draw: st.DrawFn, messages: st.SearchStrategy[bytes]) -> bytes:
    """A message with some bytes changed, and perhaps another one after it."""
    wire = bytearray(draw(messages))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(wire)))
        splinter = draw(SPLINTERS | st.binary(min_size=1, max_size=3))
        wire[at : at + draw(st.integers(0, 4))] = splinter
    return bytes(wire) + draw(st.just(b"") | messages)


cut_sizes = st.lists(st.integers(1, 60), max_size=8)


def _pieces(wire: bytes, sizes: list[int]) -> list[bytes]:
    pieces, at = [], 0
    for size in sizes:
        pieces.append(wire[at : at + size])
        at += size
    return [*pieces, wire[at:]]


def _lower(fields: Fields) -> Fields:
    return [(name.lower(), value) for name, value in fields]


class _Read:
    """What a reader found up to the end of one message, its refusal or the end of the bytes."""

    def __init__(self, reader: RequestReader | ResponseReader, pieces: list[bytes]) -> None:
        self.head: RequestHead | ResponseHead | None = None
        self.body, self.trailers = b"", Trailers()
        self.ended = self.refused = self.upgraded = False
        self._reader = reader
        for at, piece in enumerate(pieces):
            try:
                self._take(list(reader.feed(piece)))
            except Malformed:
                self.refused = True
                return
            if self.ended or self.upgraded:
                self.rest = b"".join(pieces[at + 1 :])
                return

    def _take(self, events: list[object]) -> None:
        for found in events:
            match found:
                case RequestHead() | ResponseHead():
                    assert self.head is None
                    self.head = found
                case Data():
                    assert self.head is not None
                    assert len(found.data)
                    self.body += bytes(found.data)
                case Trailers():
                    self.trailers = found
                case Interim():
                    assert self.head is None
                case Upgraded():
                    self.upgraded = True
                case _:
                    assert found is END
                    assert not self.ended
                    self.ended = True

    def same(self, other: "_Read") -> bool:
        return (self.refused and other.refused) or (
            self.head,
            self.body,
            self.trailers,
            self.ended,
            self.refused,
        ) == (other.head, other.body, other.trailers, other.ended, other.refused)

    def written(self) -> bytes:
        """The message as it would be sent on."""
        assert self.head is not None
        head = write_request(self.head) if isinstance(self.head, RequestHead) else write_response(self.head)
        if self.head.framing is not Framing.CHUNKED:
            return head + self.body
        return head + chunk(self.body) + (last_chunk(self.trailers.fields) if self.ended else b"")


def _assert_h11_agrees(read: _Read, seen: Seen | None) -> None:
    assert read.head is not None
    assert seen is not None, "taken, but refused by h11"
    assert (seen.rest is not None) == read.ended
    assert seen.body == read.body
    head = read.head
    if isinstance(head, RequestHead):
        assert seen.line[0] == head.method
        if head.authority is None:
            assert seen.line[1] == head.target
        hosts = [value for name, value in _lower(seen.fields) if name == b"host"]
        assert hosts == ([] if head.host is None or (head.minor == 0 and not hosts) else [head.host])
    else:
        assert seen.line == (head.status, head.reason)
    sent = [field for field in head.fields if field[0].lower() != b"connection"]
    came = [field for field in seen.fields if field[0].lower() not in OF_THE_CONNECTION]
    if isinstance(head, ResponseHead) and head.status == 204:
        came = [field for field in came if field[0].lower() not in (b"content-length", b"transfer-encoding")]
    extra = [field for field in came if field not in sent]
    named = {
        option.strip(b" \t").lower()
        for name, value in _lower(seen.fields)
        if name == b"connection"
        for option in value.split(b",")
    }
    assert {name for name, _ in _lower(extra)} <= named
    if not isinstance(head, RequestHead) or head.authority is None:
        assert [field for field in sent if field[0].lower() not in OF_THE_CONNECTION] == [
            field for field in came if field[0].lower() not in named
        ]


@FUZZ
@given(wire=requests(), sizes=cut_sizes)
def test_well_formed_requests_are_taken_as_h11_takes_them(wire: bytes, sizes: list[int]) -> None:
    read = _Read(RequestReader(LIMITS), _pieces(wire, sizes))
    assume(not (read.refused and b"Upgrade" in wire))  # an upgrade with a body
    assert read.ended
    _assert_h11_agrees(read, h11_peer.request(wire))
    again = _Read(RequestReader(LIMITS), [read.written()])
    assert again.same(read)
    _assert_h11_agrees(read, h11_peer.request(read.written()))


@FUZZ
@given(wire=responses(), sizes=cut_sizes, method=st.sampled_from([b"GET", b"HEAD"]))
def test_well_formed_responses_are_taken_as_h11_takes_them(
    wire: bytes, sizes: list[int], method: bytes
) -> None:
    reader = ResponseReader(LIMITS)
    reader.expect(method)
    read = _Read(reader, _pieces(wire, sizes))
    assert not read.refused
    if not read.ended:
        read.ended = reader.eof() == [END]
    assert read.ended
    _assert_h11_agrees(read, h11_peer.response(wire, method, ends=True))
    _assert_h11_agrees(read, h11_peer.response(read.written(), method, ends=True))


@FUZZ
@given(wire=damaged(requests()), sizes=cut_sizes)
def test_damaged_requests_are_refused_or_read_as_h11_reads_them(wire: bytes, sizes: list[int]) -> None:
    read = _Read(RequestReader(LIMITS), [wire])
    assert _Read(RequestReader(LIMITS), _pieces(wire, sizes)).same(read)
    event("refused" if read.refused else "ended" if read.ended else "waits")
    if read.refused or read.head is None:
        return
    assert looks_like_http(wire)
    _assert_h11_agrees(read, h11_peer.request(wire))
    _assert_h11_agrees(read, h11_peer.request(read.written()))
    if read.ended:
        # A second request can only be where h11 sees the first one end.
        seen = h11_peer.request(wire)
        assert seen is not None
        assert isinstance(read._reader, RequestReader)
        assert read._reader.rest() == seen.rest


@FUZZ
@given(wire=damaged(responses()), sizes=cut_sizes, method=st.sampled_from([b"GET", b"HEAD"]))
def test_damaged_responses_are_refused_or_read_as_h11_reads_them(
    wire: bytes, sizes: list[int], method: bytes
) -> None:
    reads = []
    for pieces in ([wire], _pieces(wire, sizes)):
        reader = ResponseReader(LIMITS)
        reader.expect(method)
        reads.append(_Read(reader, pieces))
    read = reads[0]
    assert reads[1].same(read)
    event("refused" if read.refused else "ended" if read.ended else "waits")
    if read.refused or read.head is None:
        return
    _assert_h11_agrees(read, h11_peer.response(wire, method))
    _assert_h11_agrees(read, h11_peer.response(read.written(), method))


@FUZZ
@given(wire=st.binary(max_size=300), sizes=cut_sizes)
def test_random_bytes_are_no_requests(wire: bytes, sizes: list[int]) -> None:
    read = _Read(RequestReader(LIMITS), _pieces(wire, sizes))
    assert read.head is None
    assert not read.ended
