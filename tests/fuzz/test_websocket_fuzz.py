"""Good, damaged and random frames to the WebSocket reader.

However they are cut the same is found, what is found is written and read again as the same, and no more is
held than a header or a control frame.
"""

from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from skerry.egress.websocket import Control, Event, FrameReader, FrameWriter, MalformedFrame, Opcode, Piece

FUZZ = settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
MAX_HELD_BYTES = 14 + 125

controls = st.builds(Control, st.sampled_from([Opcode.PING, Opcode.PONG]), st.binary(max_size=125))


@st.composite
def conversations(draw: st.DrawFn) -> list[Event]:
    """Messages in fragments, with control frames in between."""
    events: list[Event] = []
    for _ in range(draw(st.integers(1, 4))):
        opcode = draw(st.sampled_from([Opcode.TEXT, Opcode.BINARY]))
        parts = draw(st.lists(st.binary(min_size=1, max_size=300), min_size=1, max_size=4))
        for at, part in enumerate(parts):
            events.append(Piece(opcode, part, first=at == 0, last=at == len(parts) - 1))
            events += draw(st.lists(controls, max_size=1))
    if draw(st.booleans()):
        events.append(Control(Opcode.CLOSE, draw(st.sampled_from([b"", b"\x03\xe8", b"\x0f\xa0bye"]))))
    return events


def _read(pieces: list[bytes], *, masked: bool) -> tuple[list[Event], bool]:
    """Events with the pieces of each message joined where they were cut, and whether it was refused."""
    reader = FrameReader(masked)
    found: list[Event] = []
    for piece in pieces:
        try:
            found += reader.feed(piece)
        except MalformedFrame:
            return found, True
        assert len(reader._held) <= MAX_HELD_BYTES
    return found, False


def _messages(events: list[Event]) -> list[tuple[Opcode, bytes, bool]]:
    """Control frames in order, and messages in order, whole or not."""
    done: list[tuple[Opcode, bytes, bool]] = []
    for found in events:
        if isinstance(found, Control):
            done.append((found.opcode, found.data, True))
        elif found.first:
            done.append((found.opcode, found.data, found.last))
        else:
            at = max(at for at, (opcode, _, _) in enumerate(done) if opcode < Opcode.CLOSE)
            assert not done[at][2]
            done[at] = (found.opcode, done[at][1] + found.data, found.last)
    return done


def _cut(wire: bytes, sizes: list[int]) -> list[bytes]:
    pieces, at = [], 0
    for size in sizes:
        pieces.append(wire[at : at + size])
        at += size
    return [*pieces, wire[at:]]


sizes = st.lists(st.integers(1, 200), max_size=10)


@FUZZ
@given(events=conversations(), masked=st.booleans(), cuts=sizes)
def test_what_is_written_is_read(events: list[Event], masked: bool, cuts: list[int]) -> None:
    writer = FrameWriter(masked)
    wire = b"".join(map(writer.write, events))
    assert _read([wire], masked=masked) == (events, False)
    found, refused = _read(_cut(wire, cuts), masked=masked)
    assert not refused
    assert _messages(found) == _messages(events)
    again = FrameWriter(not masked)
    passed_on = b"".join(map(again.write, found))
    assert _messages(_read([passed_on], masked=not masked)[0]) == _messages(events)


@FUZZ
@given(
    events=conversations(),
    masked=st.booleans(),
    damage=st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 3), st.binary(max_size=3)), max_size=3),
    cuts=sizes,
)
def test_damaged_frames_are_refused_or_read(
    events: list[Event], masked: bool, damage: list[tuple[int, int, bytes]], cuts: list[int]
) -> None:
    writer = FrameWriter(masked, lambda size: b"\x5a" * size)
    wire = bytearray(b"".join(map(writer.write, events)))
    for at, count, put in damage:
        start = at % (len(wire) + 1)
        wire[start : start + count] = put
    whole, refused = _read([bytes(wire)], masked=masked)
    found, refused_too = _read(_cut(bytes(wire), cuts), masked=masked)
    event("refused" if refused else "read")
    assert refused_too == refused
    if not refused:
        assert _messages(found) == _messages(whole)
    passed_on = b"".join(map(FrameWriter(not masked).write, found))
    assert _messages(_read([passed_on], masked=not masked)[0]) == _messages(found)


@FUZZ
@given(wire=st.binary(max_size=300), masked=st.booleans(), cuts=sizes)
def test_random_bytes(wire: bytes, masked: bool, cuts: list[int]) -> None:
    assert _read([wire], masked=masked)[1] == _read(_cut(wire, cuts), masked=masked)[1]
