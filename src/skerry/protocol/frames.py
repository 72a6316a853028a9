"""Frames of the agent channel: bytes to frames and back. Source: `docs/agent-channel.md`, "Frames"."""

import struct
from collections.abc import Callable
from enum import IntEnum
from typing import NamedTuple

from msgspec import Struct

from skerry.protocol import messages
from skerry.protocol.messages import MAX_MESSAGE_BYTES, ProtocolError

MAX_PAYLOAD_BYTES = 262_132
MAX_DATA_BYTES = MAX_PAYLOAD_BYTES - 8
MAX_UNFINISHED_BYTES = 16 << 20
MAX_UNFINISHED_MESSAGES = 1024
MORE = 1

_HEADER = struct.Struct(">IBBHI")
_DATA_HEADER = struct.Struct(">IBBHIQ")
_HEADER_BYTES = _HEADER.size
_ONE = struct.Struct(">Q")
_TWO = struct.Struct(">QQ")
_FRAME_ONE = struct.Struct(">IBBHIQ")
_FRAME_TWO = struct.Struct(">IBBHIQQ")


class FrameType(IntEnum):
    """The ``type`` field."""

    HELLO = 1
    WELCOME = 2
    REQUEST = 3
    RESPONSE = 4
    EXIT = 5
    PING = 6
    PONG = 7
    DATA = 8
    END = 9
    RESET = 10
    CREDIT = 11
    ATTACH = 12
    GAP = 13
    DETACH = 14


FROM_AGENT = frozenset(FrameType) - {FrameType.WELCOME, FrameType.REQUEST, FrameType.DETACH}
FROM_HOST = frozenset(FrameType) - {FrameType.HELLO, FrameType.RESPONSE, FrameType.EXIT, FrameType.GAP}


class Ping(Struct, frozen=True, gc=False):
    """Asks for a `Pong` with the same 8 bytes."""

    payload: bytes


class Pong(Struct, frozen=True, gc=False):
    """Answers a `Ping`."""

    payload: bytes


class Data(Struct, frozen=True, gc=False):
    """Bytes of a stream; ``offset`` is that of the first one."""

    stream: int
    offset: int
    data: bytes


class End(Struct, frozen=True, gc=False):
    """The sender is done; ``total`` is the length of the whole stream."""

    stream: int
    total: int


class Reset(Struct, frozen=True, gc=False):
    """One side gives the stream up."""

    stream: int
    code: str
    message: str


class Credit(Struct, frozen=True, gc=False):
    """The receiver has ``consumed`` so much and may be sent the bytes below ``limit``."""

    stream: int
    consumed: int
    limit: int


class Attach(Struct, frozen=True, gc=False):
    """The receiver wants the bytes from ``start`` up to ``limit``."""

    stream: int
    start: int
    limit: int


class Gap(Struct, frozen=True, gc=False):
    """The bytes from ``start`` up to ``end`` of an output stream are gone."""

    stream: int
    start: int
    end: int


class Detach(Struct, frozen=True, gc=False):
    """Nobody will read the output stream again."""

    stream: int


Frame = (
    messages.Hello
    | messages.Welcome
    | messages.Request
    | messages.Response
    | messages.Exit
    | Ping
    | Pong
    | Data
    | End
    | Reset
    | Credit
    | Attach
    | Gap
    | Detach
)


# --- encoding -------------------------------------------------------------------------------------


def frame(kind: FrameType, payload: bytes, *, stream: int = 0, flags: int = 0) -> bytes:
    """One frame from its parts, unchecked."""
    return _HEADER.pack(len(payload), kind, flags, 0, stream) + payload


def welcome(value: messages.Welcome) -> bytes:
    """WELCOME."""
    return frame(FrameType.WELCOME, messages.encode(value))


def request(id_: int, acked: int, method: str, params: Struct) -> bytes:
    """REQUEST, in as many frames as it needs.

    Raises:
        ValueError: The message would exceed `MAX_MESSAGE_BYTES`.
    """
    message = messages.encode((id_, acked, method, params))
    number = id_ & 0xFFFF_FFFF
    if len(message) <= MAX_PAYLOAD_BYTES:
        return _HEADER.pack(len(message), FrameType.REQUEST, 0, 0, number) + message
    return split_message(FrameType.REQUEST, message, number)


def split_message(
    kind: FrameType, message: bytes, number: int, *, part_bytes: int = MAX_PAYLOAD_BYTES
) -> bytes:
    """A message that does not fit into one frame, as frames one after another.

    Raises:
        ValueError: It exceeds `MAX_MESSAGE_BYTES`.
    """
    if len(message) > MAX_MESSAGE_BYTES:
        raise ValueError(f"message of {len(message)} bytes exceeds {MAX_MESSAGE_BYTES}")
    view = memoryview(message)
    parts: list[bytes | memoryview] = []
    for start in range(0, len(message), part_bytes):
        part = view[start : start + part_bytes]
        more = MORE if start + part_bytes < len(message) else 0
        parts += (_HEADER.pack(len(part), kind, more, 0, number), part)
    return b"".join(parts)


def pong(payload: bytes) -> bytes:
    """PONG."""
    return frame(FrameType.PONG, payload)


def data(stream: int, offset: int, piece: bytes | memoryview) -> bytes:
    """DATA; ``piece`` has 1 to `MAX_DATA_BYTES` bytes."""
    return b"".join((_DATA_HEADER.pack(8 + len(piece), FrameType.DATA, 0, 0, stream, offset), piece))


DATA_HEADER_BYTES = _DATA_HEADER.size


def end(stream: int, total: int) -> bytes:
    """END."""
    return _FRAME_ONE.pack(8, FrameType.END, 0, 0, stream, total)


def reset(stream: int, code: str, message: str) -> bytes:
    """RESET; the texts are cut to what the channel allows."""
    failure = messages.Failure(code[:64], message[:256])
    return frame(FrameType.RESET, messages.encode(failure), stream=stream)


def credit(stream: int, consumed: int, limit: int) -> bytes:
    """CREDIT."""
    return _FRAME_TWO.pack(16, FrameType.CREDIT, 0, 0, stream, consumed, limit)


def attach(stream: int, start: int, limit: int) -> bytes:
    """ATTACH."""
    return _FRAME_TWO.pack(16, FrameType.ATTACH, 0, 0, stream, start, limit)


def detach(stream: int) -> bytes:
    """DETACH."""
    return _HEADER.pack(0, FrameType.DETACH, 0, 0, stream)


# --- decoding -------------------------------------------------------------------------------------


def _reset(stream: int, payload: memoryview) -> Frame:
    failure = messages.decode(payload.tobytes(), messages.Failure)
    return Reset(stream, failure.code, failure.message)


class _Rule(NamedTuple):
    """What a frame of one type must look like, and how its payload is read (None: a part of a message)."""

    min_bytes: int
    max_bytes: int
    of_stream: bool
    read: Callable[[int, memoryview], Frame] | None


_RULES: dict[int, _Rule] = {
    FrameType.HELLO: _Rule(1, 4096, False, lambda _, p: messages.decode(p.tobytes(), messages.Hello)),
    FrameType.WELCOME: _Rule(1, 4096, False, lambda _, p: messages.decode(p.tobytes(), messages.Welcome)),
    FrameType.REQUEST: _Rule(0, MAX_PAYLOAD_BYTES, True, None),
    FrameType.RESPONSE: _Rule(0, MAX_PAYLOAD_BYTES, True, None),
    FrameType.EXIT: _Rule(1, 4096, False, lambda _, p: messages.decode(p.tobytes(), messages.Exit)),
    FrameType.PING: _Rule(8, 8, False, lambda _, p: Ping(p.tobytes())),
    FrameType.PONG: _Rule(8, 8, False, lambda _, p: Pong(p.tobytes())),
    FrameType.DATA: _Rule(
        9, MAX_PAYLOAD_BYTES, True, lambda s, p: Data(s, _ONE.unpack_from(p)[0], p[8:].tobytes())
    ),
    FrameType.END: _Rule(8, 8, True, lambda s, p: End(s, *_ONE.unpack(p))),
    FrameType.RESET: _Rule(1, 4096, True, _reset),
    FrameType.CREDIT: _Rule(16, 16, True, lambda s, p: Credit(s, *_TWO.unpack(p))),
    FrameType.ATTACH: _Rule(16, 16, True, lambda s, p: Attach(s, *_TWO.unpack(p))),
    FrameType.GAP: _Rule(16, 16, True, lambda s, p: Gap(s, *_TWO.unpack(p))),
    FrameType.DETACH: _Rule(0, 0, True, lambda s, _: Detach(s)),
}
_MESSAGE_TYPES: dict[int, type[messages.Request] | type[messages.Response]] = {
    FrameType.REQUEST: messages.Request,
    FrameType.RESPONSE: messages.Response,
}


def _check_header(rule: _Rule, length: int, flags: int, reserved: int, stream: int) -> None:
    """Say what is wrong with a header that is not an ordinary one, or let it pass."""
    if length > MAX_PAYLOAD_BYTES:
        raise ProtocolError("length", f"{length} exceeds {MAX_PAYLOAD_BYTES}")
    if not rule.min_bytes <= length <= rule.max_bytes:
        raise ProtocolError("payload", f"{length} bytes are too few or too many for this type")
    if reserved:
        raise ProtocolError("reserved", f"{reserved} is not 0")
    if flags & ~MORE or (flags and rule.read is not None):
        raise ProtocolError("flags", f"{flags}")
    if flags and not length:
        raise ProtocolError("payload", "an empty frame that is not the last of its message")
    if rule.of_stream != (stream != 0) and rule.read is not None:
        raise ProtocolError("stream", f"{stream}")


class FrameDecoder:
    """Bytes of one connection to frames; messages in several frames are put together.

    Holds at most what one `feed` gave beyond one unfinished frame, and `budget_bytes` of unfinished messages.

    Args:
        accepts: The types that the peer may send.

    Attributes:
        budget_bytes: How much unfinished messages may hold together; may be changed at any time.
        pending: More frames (or an error) may be found without more bytes.
    """

    def __init__(self, accepts: frozenset[FrameType]) -> None:
        self.budget_bytes = MAX_UNFINISHED_BYTES
        self.pending = False
        self._rules = {int(kind): _RULES[kind] for kind in accepts}
        self._buffer: bytes | bytearray = b""
        self._position = 0
        self._unfinished: dict[tuple[int, int], bytearray] = {}
        self._unfinished_bytes = 0

    @property
    def held_bytes(self) -> int:
        """What the decoder keeps in memory now."""
        return len(self._buffer) - self._position + self._unfinished_bytes

    def feed(self, chunk: bytes) -> None:
        """Take bytes; the frames in them come from `decode`."""
        if self._position == len(self._buffer):
            self._buffer = chunk
            self._position = 0
            return
        if isinstance(self._buffer, bytes):
            self._buffer = bytearray(memoryview(self._buffer)[self._position :])
            self._position = 0
        self._buffer += chunk

    def decode(self, max_frames: int) -> list[Frame]:
        """The next frames, at most so many; `pending` says whether to ask again.

        Raises:
            ProtocolError: The next frame is bad. Frames before it were returned by earlier calls.
        """
        found: list[Frame] = []
        self.pending = False
        try:
            with memoryview(self._buffer) as view:
                self._scan(view, max_frames, found)
        except ProtocolError:
            if not found:
                raise
            self.pending = True
        self._forget()
        return found

    def _scan(self, view: memoryview, max_frames: int, found: list[Frame]) -> None:
        position = self._position
        size = len(view)
        for _ in range(max_frames):
            start = position + _HEADER_BYTES
            if start > size:
                return
            length, kind, flags, reserved, stream = _HEADER.unpack_from(view, position)
            rule = self._rules.get(kind)
            if rule is None:
                raise ProtocolError("type", f"{kind} is not expected here")
            min_bytes, max_bytes, of_stream, read = rule
            # Judged before the payload is waited for.
            if flags or reserved or not min_bytes <= length <= max_bytes or of_stream is not (stream != 0):
                _check_header(rule, length, flags, reserved, stream)
            position = start + length
            if position > size:
                return
            if read is not None:
                found.append(read(stream, view[start:position]))
            else:
                message = self._assemble((kind, stream), view[start:position], more=flags != 0)
                if message is not None:
                    found.append(messages.decode(message, _MESSAGE_TYPES[kind]))
            self._position = position
        self.pending = size - position >= _HEADER_BYTES

    def _assemble(self, key: tuple[int, int], payload: memoryview, *, more: bool) -> bytes | None:
        """Add a part to its message; returns the message when it is complete."""
        whole = self._unfinished.get(key)
        if whole is None:
            if not more:
                return payload.tobytes()
            if len(self._unfinished) >= MAX_UNFINISHED_MESSAGES:
                raise ProtocolError("budget", f"more than {MAX_UNFINISHED_MESSAGES} unfinished messages")
            whole = self._unfinished[key] = bytearray()
        if len(whole) + len(payload) > MAX_MESSAGE_BYTES:
            raise ProtocolError("budget", f"message exceeds {MAX_MESSAGE_BYTES}")
        if self._unfinished_bytes + len(payload) > self.budget_bytes:
            raise ProtocolError("budget", f"unfinished messages exceed {self.budget_bytes}")
        whole += payload
        self._unfinished_bytes += len(payload)
        if more:
            return None
        del self._unfinished[key]
        self._unfinished_bytes -= len(whole)
        return bytes(whole)

    def _forget(self) -> None:
        """Let go of the bytes that were read, and of a large chunk of which only an end is left."""
        buffer = self._buffer
        if self._position == len(buffer):
            self._buffer = b""
        elif isinstance(buffer, bytearray):
            del buffer[: self._position]
        elif self.pending:
            return
        else:
            self._buffer = bytearray(memoryview(buffer)[self._position :])
        self._position = 0
