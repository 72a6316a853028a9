"""The incremental decoder: bounds, order of errors, what it keeps."""

import pytest

from skerry.protocol import frames, messages
from skerry.protocol.frames import FROM_AGENT, FROM_HOST, MAX_DATA_BYTES, MORE, Data, FrameDecoder, FrameType
from skerry.protocol.messages import MAX_MESSAGE_BYTES, ProtocolError

PING = frames.frame(FrameType.PING, b"12345678")


def _decoder(*chunks: bytes) -> FrameDecoder:
    decoder = FrameDecoder(FROM_AGENT)
    for chunk in chunks:
        decoder.feed(chunk)
    return decoder


def _part(data: bytes, number: int = 1, flags: int = MORE) -> bytes:
    return frames.frame(FrameType.RESPONSE, data, stream=number, flags=flags)


def test_directions_are_told_apart() -> None:
    welcome = frames.welcome(messages.Welcome(1, 2, 3))
    with pytest.raises(ProtocolError, match="type"):
        _decoder(welcome).decode(1)
    decoder = FrameDecoder(FROM_HOST)
    decoder.feed(welcome)
    assert decoder.decode(1) == [messages.Welcome(1, 2, 3)]


def test_frames_before_an_error_are_returned_first() -> None:
    decoder = _decoder(PING + PING + b"\xff" * 12)
    assert len(decoder.decode(100)) == 2
    assert decoder.pending
    for _ in range(2):
        with pytest.raises(ProtocolError):
            decoder.decode(100)


def test_no_more_frames_than_asked_for() -> None:
    decoder = _decoder(PING * 5)
    found = [(len(decoder.decode(2)), decoder.pending)]
    decoder.feed(PING)
    found += [(len(decoder.decode(3)), decoder.pending), (len(decoder.decode(3)), decoder.pending)]
    assert found == [(2, True), (3, True), (1, False)]
    assert decoder.held_bytes == 0


def test_largest_frame() -> None:
    wire = frames.data(1, 5, bytes(MAX_DATA_BYTES))
    assert len(wire) == 256 << 10
    decoder = _decoder(wire[:100_000], wire[100_000:])
    assert decoder.decode(1) == [Data(1, 5, bytes(MAX_DATA_BYTES))]


def test_length_is_judged_before_the_payload_comes() -> None:
    with pytest.raises(ProtocolError, match="length"):
        _decoder(frames.frame(FrameType.DATA, bytes(MAX_DATA_BYTES + 9), stream=1)[:12]).decode(1)


def test_a_large_read_is_not_kept_for_a_small_rest() -> None:
    decoder = _decoder(PING * 10_000 + PING[:5])
    while decoder.decode(1000):
        pass
    assert decoder.held_bytes == 5
    decoder.feed(PING[5:])
    assert len(decoder.decode(1)) == 1
    assert decoder.held_bytes == 0


def test_message_may_be_as_large_as_allowed_and_not_larger() -> None:
    message = messages.encode((1, True, bytes(MAX_MESSAGE_BYTES - 8)))
    assert len(message) == MAX_MESSAGE_BYTES
    decoder = _decoder(frames.split_message(FrameType.RESPONSE, message, 1))
    found: list[frames.Frame] = []
    while not found:
        found = decoder.decode(10)
    assert isinstance(found[0], messages.Response)
    with pytest.raises(ValueError, match="exceeds"):
        frames.split_message(FrameType.RESPONSE, message + b"x", 1)
    decoder = _decoder()
    part = _part(bytes(1 << 18)[: frames.MAX_PAYLOAD_BYTES])
    for _ in range(MAX_MESSAGE_BYTES // frames.MAX_PAYLOAD_BYTES):
        decoder.feed(part)
        decoder.decode(1)
    decoder.feed(part)
    with pytest.raises(ProtocolError, match="budget"):
        decoder.decode(1)


def test_unfinished_messages_have_a_budget_together() -> None:
    decoder = _decoder()
    decoder.budget_bytes = 100
    decoder.feed(_part(bytes(60), 1) + _part(bytes(40), 2))
    assert decoder.decode(5) == []
    assert decoder.held_bytes == 100
    decoder.feed(_part(b"x", 3))
    with pytest.raises(ProtocolError, match="budget"):
        decoder.decode(5)


def test_budget_is_given_back() -> None:
    body = messages.encode((1, True, bytes(60)))
    decoder = _decoder()
    decoder.budget_bytes = len(body)
    for _ in range(5):
        decoder.feed(_part(body[:-1]) + _part(body[-1:], flags=0))
        assert len(decoder.decode(5)) == 1
    assert decoder.held_bytes == 0


def test_number_of_unfinished_messages_is_bounded() -> None:
    most = frames.MAX_UNFINISHED_MESSAGES
    decoder = _decoder(b"".join(_part(b"x", n) for n in range(most)))
    assert decoder.decode(most) == []
    assert decoder.held_bytes == most
    decoder.feed(_part(b"x", most))
    with pytest.raises(ProtocolError, match="budget"):
        decoder.decode(1)


def test_requests_are_split_only_when_they_must() -> None:
    params = messages.ReadDirParams("x" * 1000)
    wire = frames.request(2**40 + 3, 5, "fs.read_dir", params)
    decoder = FrameDecoder(FROM_HOST)
    decoder.feed(wire)
    (request,) = decoder.decode(2)
    assert isinstance(request, messages.Request)
    assert (request.id, request.acked) == (2**40 + 3, 5)
    assert wire[8:12] == (3).to_bytes(4, "big")


def test_reset_cuts_long_texts() -> None:
    decoder = _decoder(frames.reset(1, "C" * 100, "m" * 5000))
    assert decoder.decode(1) == [frames.Reset(1, "C" * 64, "m" * 256)]
