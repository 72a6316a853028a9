"""WebSocket frames and handshakes as they pass through."""

from itertools import count

import pytest

from skerry.egress.http1 import Framing, Malformed, RequestHead, RequestReader, ResponseHead
from skerry.egress.websocket import (
    MAX_FRAME_BYTES,
    Control,
    Event,
    FrameReader,
    FrameWriter,
    MalformedFrame,
    Opcode,
    Piece,
    accept_value,
    apply_mask,
    check_request,
    check_response,
    without_extensions,
)
from skerry.spec.settings import EgressLimits

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


def frame(first: int, payload: bytes, mask: bytes = b"", *, size: int | None = None) -> bytes:
    """A frame by hand; `size` is the length it claims."""
    length = len(payload) if size is None else size
    bit = 0x80 if mask else 0
    if length < 126:
        header = bytes([first, bit | length])
    elif length < 1 << 16:
        header = bytes([first, bit | 126]) + length.to_bytes(2, "big")
    else:
        header = bytes([first, bit | 127]) + length.to_bytes(8, "big")
    return (
        header + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))
        if mask
        else header + payload
    )


def read(wire: bytes, *, masked: bool = False, step: int = 1 << 20) -> list[Event]:
    reader = FrameReader(masked)
    return [event for at in range(0, len(wire), step) for event in reader.feed(wire[at : at + step])]


def message(events: list[Event]) -> bytes:
    return b"".join(event.data for event in events if isinstance(event, Piece))


def test_the_examples_of_the_rfc() -> None:
    """RFC 6455, section 5.7."""
    hello = Piece(Opcode.TEXT, b"Hello", first=True, last=True)
    assert read(bytes.fromhex("810548656c6c6f")) == [hello]
    assert read(bytes.fromhex("818537fa213d7f9f4d5158"), masked=True) == [hello]
    assert read(bytes.fromhex("010348656c80026c6f")) == [
        Piece(Opcode.TEXT, b"Hel", first=True, last=False),
        Piece(Opcode.TEXT, b"lo", first=False, last=True),
    ]
    assert read(bytes.fromhex("890548656c6c6f")) == [Control(Opcode.PING, b"Hello")]
    assert read(bytes.fromhex("8a8537fa213d7f9f4d5158"), masked=True) == [Control(Opcode.PONG, b"Hello")]
    assert read(bytes.fromhex("827e0100") + bytes(256))[0] == Piece(Opcode.BINARY, bytes(256), True, True)
    assert len(message(read(bytes.fromhex("827f0000000000010000") + bytes(65536)))) == 65536


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("step", [1, 2, 5, 1000])
@pytest.mark.parametrize("length", [0, 1, 3, 125, 126, 127, 300])
def test_frames_in_pieces(masked: bool, step: int, length: int) -> None:
    payload = bytes(at % 251 for at in range(length))
    wire = frame(0x82, payload, b"\x01\x02\x03\x04" if masked else b"")
    events = read(wire, masked=masked, step=step)
    assert message(events) == payload
    pieces = [event for event in events if isinstance(event, Piece)]
    assert [piece.first for piece in pieces] == [True] + [False] * (len(pieces) - 1)
    assert [piece.last for piece in pieces] == [False] * (len(pieces) - 1) + [True]


@pytest.mark.parametrize("masked", [True, False])
def test_a_large_frame_streams(masked: bool) -> None:
    part = bytes(range(256)) * 256
    mask = b"\x0f\x1e\x2d\x3c" if masked else b""
    wire = frame(0x82, part * 16, mask)
    reader = FrameReader(masked)
    events: list[Event] = []
    for at in range(0, len(wire), 65_537):
        events += reader.feed(wire[at : at + 65_537])
        assert len(events) == at // 65_537 + 1
    assert message(events) == part * 16
    assert not reader.within_message


def test_control_frames_between_fragments() -> None:
    wire = frame(0x01, b"a") + frame(0x89, b"p") + frame(0x00, b"b") + frame(0x8A, b"") + frame(0x80, b"c")
    assert read(wire) == [
        Piece(Opcode.TEXT, b"a", first=True, last=False),
        Control(Opcode.PING, b"p"),
        Piece(Opcode.TEXT, b"b", first=False, last=False),
        Control(Opcode.PONG, b""),
        Piece(Opcode.TEXT, b"c", first=False, last=True),
    ]


def test_empty_fragments() -> None:
    wire = frame(0x02, b"") + frame(0x00, b"") + frame(0x00, b"x") + frame(0x80, b"")
    assert read(wire) == [
        Piece(Opcode.BINARY, b"", first=True, last=False),
        Piece(Opcode.BINARY, b"x", first=False, last=False),
        Piece(Opcode.BINARY, b"", first=False, last=True),
    ]


def test_closing() -> None:
    reader = FrameReader(masked=False)
    assert reader.feed(frame(0x88, b"\x03\xe8bye")) == [Control(Opcode.CLOSE, b"\x03\xe8bye")]
    assert reader.closed
    with pytest.raises(MalformedFrame, match="after"):
        reader.feed(b"\x81")


MALFORMED = {
    "a reserved bit": frame(0xC1, b"x"),
    "the last reserved bit": frame(0x91, b"x"),
    "an unknown data frame": frame(0x83, b"x"),
    "an unknown control frame": frame(0x8B, b"x"),
    "a masked frame of a server": frame(0x81, b"x", b"abcd"),
    "a long ping": frame(0x89, bytes(126)),
    "a fragmented ping": frame(0x09, b"x"),
    "a continuation of nothing": frame(0x80, b"x"),
    "a message within a message": frame(0x01, b"x") + frame(0x81, b"y"),
    "a continuation after the end": frame(0x81, b"x") + frame(0x80, b"y"),
    "a 16 bit length that is not needed": b"\x82\x7e\x00\x7d" + bytes(125),
    "a 64 bit length that is not needed": b"\x82\x7f" + (65_535).to_bytes(8, "big"),
    "a length with the highest bit": b"\x82\x7f" + (1 << 63).to_bytes(8, "big"),
    "a length beyond bounds": b"\x82\x7f" + (MAX_FRAME_BYTES + 1).to_bytes(8, "big"),
    "half a code": frame(0x88, b"\x03"),
    "code 1005": frame(0x88, b"\x03\xed"),
    "code 999": frame(0x88, b"\x03\xe7"),
    "code 5000": frame(0x88, b"\x13\x88"),
    "a reason that is not UTF-8": frame(0x88, b"\x03\xe8\xff"),
}


@pytest.mark.parametrize("step", [1, 1000])
@pytest.mark.parametrize("wire", MALFORMED.values(), ids=MALFORMED)
def test_malformed_frames(wire: bytes, step: int) -> None:
    reader = FrameReader(masked=False)

    def feed_all() -> None:
        for at in range(0, len(wire), step):
            reader.feed(wire[at : at + step])

    with pytest.raises(MalformedFrame) as caught:
        feed_all()
    assert caught.value.code in {1002, 1007, 1009}
    with pytest.raises(MalformedFrame):
        reader.feed(frame(0x81, b"x"))


def test_an_unmasked_frame_of_a_client() -> None:
    with pytest.raises(MalformedFrame):
        read(frame(0x81, b"x"), masked=True)


@pytest.mark.parametrize("masked", [True, False])
def test_what_is_written_is_read_again(masked: bool) -> None:
    events: list[Event] = [
        Piece(Opcode.TEXT, b"a" * 125, first=True, last=False),
        Control(Opcode.PING, b"x" * 125),
        Piece(Opcode.TEXT, b"b" * 126, first=False, last=False),
        Piece(Opcode.TEXT, b"c" * 65_536, first=False, last=True),
        Piece(Opcode.BINARY, b"", first=True, last=True),
        Control(Opcode.CLOSE, b""),
    ]
    keys = count(1)
    writer = FrameWriter(masked, lambda size: next(keys).to_bytes(size, "big"))
    wire = b"".join(writer.write(event) for event in events)
    assert read(wire, masked=masked) == events
    assert read(writer.close(1011), masked=masked) == [Control(Opcode.CLOSE, b"\x03\xf3")]


def test_every_frame_has_a_key_of_its_own() -> None:
    writer = FrameWriter(masked=True)
    ping = Control(Opcode.PING, b"hello")
    assert len({writer.write(ping)[2:6] for _ in range(50)}) == 50


def test_masking_is_its_own_inverse() -> None:
    for length in range(20):
        data = bytes(range(100, 100 + length))
        assert apply_mask(apply_mask(data, b"\x00\xff\x13\x80"), b"\x00\xff\x13\x80") == data


def _request(*lines: bytes, method: bytes = b"GET", version: bytes = b"1.1") -> RequestHead:
    wire = b"\r\n".join(
        (method + b" /chat HTTP/" + version, b"Host: a.example", b"Connection: Upgrade", *lines, b"", b"")
    )
    head = RequestReader(EgressLimits()).feed(wire)[0]
    assert isinstance(head, RequestHead)
    return head


GOOD = (b"Upgrade: websocket", b"Sec-WebSocket-Key: " + KEY, b"Sec-WebSocket-Version: 13")


def _response(*fields: tuple[bytes, bytes], upgrade: bytes | None = b"websocket") -> ResponseHead:
    return ResponseHead(101, b"x", 1, list(fields), Framing.NONE, upgrade=upgrade)


def test_a_handshake() -> None:
    request = _request(*GOOD, b"Sec-WebSocket-Protocol: chat, superchat")
    key = check_request(request)
    assert key == KEY
    assert accept_value(key) == ACCEPT
    check_response(_response((b"Sec-Websocket-Accept", ACCEPT)), key, request)
    check_response(
        _response((b"Sec-WebSocket-Accept", ACCEPT), (b"sec-websocket-protocol", b"superchat")), key, request
    )


@pytest.mark.parametrize(
    ("lines", "method", "version"),
    [
        (GOOD[1:], b"GET", b"1.1"),
        ((b"Upgrade: tls/1.0", *GOOD[1:]), b"GET", b"1.1"),
        (GOOD[:2], b"GET", b"1.1"),
        ((*GOOD[:2], b"Sec-WebSocket-Version: 8"), b"GET", b"1.1"),
        ((GOOD[0], GOOD[2]), b"GET", b"1.1"),
        ((GOOD[0], GOOD[2], b"Sec-WebSocket-Key: " + KEY[:-1]), b"GET", b"1.1"),
        ((GOOD[0], GOOD[2], b"Sec-WebSocket-Key: c2hvcnQ="), b"GET", b"1.1"),
        ((*GOOD, b"Sec-WebSocket-Protocol: a b"), b"GET", b"1.1"),
        (GOOD, b"POST", b"1.1"),
        (GOOD, b"GET", b"1.0"),
    ],
)
def test_requests_that_are_no_handshake(lines: tuple[bytes, ...], method: bytes, version: bytes) -> None:
    with pytest.raises(Malformed):
        check_request(_request(*lines, method=method, version=version))


def test_two_keys_are_not_even_a_request() -> None:
    with pytest.raises(Malformed):
        _request(*GOOD, b"Sec-WebSocket-Key: " + KEY)


@pytest.mark.parametrize(
    "response",
    [
        _response(),
        _response((b"Sec-WebSocket-Accept", ACCEPT[:-1] + b"x")),
        _response((b"Sec-WebSocket-Accept", ACCEPT), (b"Sec-WebSocket-Accept", ACCEPT)),
        _response((b"Sec-WebSocket-Accept", ACCEPT), upgrade=None),
        _response((b"Sec-WebSocket-Accept", ACCEPT), (b"Sec-WebSocket-Extensions", b"permessage-deflate")),
        _response((b"Sec-WebSocket-Accept", ACCEPT), (b"Sec-WebSocket-Protocol", b"other")),
        _response((b"Sec-WebSocket-Accept", ACCEPT), (b"Sec-WebSocket-Protocol", b"chat, superchat")),
    ],
)
def test_answers_that_do_not_fit(response: ResponseHead) -> None:
    request = _request(*GOOD, b"Sec-WebSocket-Protocol: chat", b"Sec-WebSocket-Protocol: superchat")
    with pytest.raises(Malformed):
        check_response(response, KEY, request)


def test_extensions_are_not_offered() -> None:
    request = _request(*GOOD, b"sec-websocket-extensions: permessage-deflate", b"A: b")
    without = without_extensions(request.fields)
    assert [field for field in request.fields if field not in without] == [
        (b"sec-websocket-extensions", b"permessage-deflate")
    ]
