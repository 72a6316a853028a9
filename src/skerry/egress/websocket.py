"""WebSocket (RFC 6455), for passing through: frames are judged, unmasked, handed out in pieces and written
anew.

Extensions are removed from the handshake, so reserved bits are errors and every payload can be read. A
message may leave in other fragments than it came in, which the RFC allows (section 5.4) and which lets a
scrubber hold bytes back.
"""

import binascii
import hashlib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

from skerry.egress.http1.fields import is_token
from skerry.egress.http1.model import Field, Framing, Malformed, RequestHead, ResponseHead

MAX_FRAME_BYTES = 1 << 40
MAX_CONTROL_BYTES = 125
_ACCEPT_SUFFIX = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_KEY = re.compile(rb"[A-Za-z0-9+/]{21}[AQgw]==")
# Codes that may stand in a Close frame (RFC 6455, section 7.4, and the registry).
_CLOSE_CODES = frozenset({1000, 1001, 1002, 1003, *range(1007, 1015)})


class Opcode(IntEnum):
    """What a frame is."""

    CONTINUATION = 0
    TEXT = 1
    BINARY = 2
    CLOSE = 8
    PING = 9
    PONG = 10


_OPCODES = frozenset(Opcode)


class MalformedFrame(Exception):
    """The peer's frames are not well-formed; the connection must be closed.

    Args:
        what: A fixed text; never holds bytes of the peer.
        code: For a Close frame to the peer.
    """

    def __init__(self, what: str, code: int = 1002) -> None:
        super().__init__(what)
        self.what = what
        self.code = code


@dataclass(slots=True)
class Piece:
    """Some of a message, unmasked.

    Attributes:
        opcode: Of the message: TEXT or BINARY, in every piece of it.
        first: It begins the message.
        last: It ends the message.
    """

    opcode: Opcode
    data: bytes
    first: bool
    last: bool


@dataclass(slots=True)
class Control:
    """A whole control frame, unmasked: CLOSE, PING or PONG."""

    opcode: Opcode
    data: bytes


Event = Piece | Control


class FrameReader:
    """Reads the frames of one direction. Holds at most a frame's header or a control frame.

    Args:
        masked: The peer is a client: its frames must be masked; a server's must not be.
    """

    def __init__(self, masked: bool) -> None:
        self._masked = masked
        self._held = b""
        self._message: Opcode | None = None
        self._begun = False
        self._fin = False
        self._left = 0
        self._mask = b""
        self._closed = False
        self._broken: MalformedFrame | None = None

    @property
    def within_message(self) -> bool:
        """The end of a message, or of a frame, is still to come."""
        return self._message is not None or bool(self._held)

    @property
    def closed(self) -> bool:
        """The peer has sent its Close frame."""
        return self._closed

    def feed(self, data: bytes) -> list[Event]:
        """Take bytes of the peer.

        Raises:
            MalformedFrame: The connection must be closed. Events of this call are lost. Raised again by every
                later call.
        """
        if self._broken is not None:
            raise self._broken
        try:
            return self._read(self._held + data if self._held else data)
        except MalformedFrame as error:
            self._broken, self._held = error, b""
            raise

    def _read(self, data: bytes) -> list[Event]:
        events: list[Event] = []
        at = 0
        while True:
            if self._left:
                at = self._read_payload(data, at, events)
                if self._left:
                    break
            begun = at
            at = self._read_frame(data, at, events)
            if at == begun:
                break
        self._held = data[at:]
        return events

    def _read_payload(self, data: bytes, at: int, events: list[Event]) -> int:
        end = min(at + self._left, len(data))
        if end == at:
            return at
        some = data[at:end]
        self._left -= len(some)
        if self._masked:
            turn = len(some) % 4
            some = apply_mask(some, self._mask)
            self._mask = self._mask[turn:] + self._mask[:turn]
        self._add_piece(some, events)
        return end

    def _add_piece(self, data: bytes, events: list[Event]) -> None:
        if self._message is None:
            raise RuntimeError("no message is being read")
        last = self._fin and not self._left
        # An empty frame in the middle says nothing.
        if data or last or not self._begun:
            events.append(Piece(self._message, data, not self._begun, last))
        self._begun = True
        if last:
            self._message = None

    def _read_frame(self, data: bytes, at: int, events: list[Event]) -> int:
        """Read a header, and a control frame whole; returns `at` if that is not there yet."""
        if at < len(data) and self._closed:
            raise MalformedFrame("a frame after the Close frame")
        header = _header(data, at, self._masked)
        if header is None:
            return at
        fin, opcode, length, mask, payload_at = header
        if opcode >= Opcode.CLOSE:
            end = payload_at + length
            if end > len(data):
                return at
            events.append(self._control(opcode, data[payload_at:end], mask))
            return end
        if (opcode is Opcode.CONTINUATION) != (self._message is not None):
            raise MalformedFrame("a fragment out of order")
        if self._message is None:
            self._message, self._begun = opcode, False
        self._fin, self._left, self._mask = fin, length, mask
        if not length:
            self._add_piece(b"", events)
        return payload_at

    def _control(self, opcode: Opcode, data: bytes, mask: bytes) -> Control:
        if mask:
            data = apply_mask(data, mask)
        if opcode is Opcode.CLOSE:
            _judge_close(data)
            self._closed = True
        return Control(opcode, data)


class FrameWriter:
    """Writes the frames of one direction.

    Args:
        masked: We are the client: every frame is masked with a new key.
        random_bytes: Where keys come from.
    """

    def __init__(self, masked: bool, random_bytes: Callable[[int], bytes] = os.urandom) -> None:
        self._masked = masked
        self._random_bytes = random_bytes

    def write(self, event: Event) -> bytes:
        """One frame. Pieces of a message must come in order and without another message's in between."""
        if isinstance(event, Control):
            return self._frame(0x80 | event.opcode, event.data)
        opcode = event.opcode if event.first else Opcode.CONTINUATION
        return self._frame((0x80 if event.last else 0) | opcode, event.data)

    def close(self, code: int) -> bytes:
        """A Close frame of our own."""
        return self._frame(0x80 | Opcode.CLOSE, code.to_bytes(2, "big"))

    def _frame(self, first: int, data: bytes) -> bytes:
        length = len(data)
        mask_bit = 0x80 if self._masked else 0
        if length <= MAX_CONTROL_BYTES:
            header = bytes((first, mask_bit | length))
        elif length < 1 << 16:
            header = bytes((first, mask_bit | 126)) + length.to_bytes(2, "big")
        else:
            header = bytes((first, mask_bit | 127)) + length.to_bytes(8, "big")
        if not self._masked:
            return header + data
        mask = self._random_bytes(4)
        return b"".join((header, mask, apply_mask(data, mask)))


def apply_mask(data: bytes, mask: bytes) -> bytes:
    """Mask or unmask (RFC 6455, section 5.3).

    Args:
        mask: Four bytes, of which the first belongs to the first byte of `data`.
    """
    length = len(data)
    # One XOR of large integers; both conversions are linear.
    key = int.from_bytes((mask * (length // 4 + 1))[:length], "little")
    return (int.from_bytes(data, "little") ^ key).to_bytes(length, "little")


def _header(data: bytes, at: int, masked: bool) -> tuple[bool, Opcode, int, bytes, int] | None:
    """FIN, opcode, payload length, mask and where the payload begins; None: more is needed."""
    if len(data) - at < 2:
        if at < len(data):
            _opcode(data[at])
        return None
    first, second = data[at], data[at + 1]
    opcode = _opcode(first)
    fin, length = bool(first & 0x80), second & 0x7F
    if bool(second & 0x80) != masked:
        raise MalformedFrame("a masked frame from a server, or an unmasked one from a client")
    if opcode >= Opcode.CLOSE and (not fin or length > MAX_CONTROL_BYTES):
        raise MalformedFrame("a control frame that is fragmented or too long")
    at += 2
    if length > MAX_CONTROL_BYTES:
        size = 2 if length == 126 else 8
        if len(data) - at < size:
            return None
        length = int.from_bytes(data[at : at + size], "big")
        at += size
        if length < (126 if size == 2 else 1 << 16):
            raise MalformedFrame("a length that is longer than it must be")
        if length > MAX_FRAME_BYTES:
            raise MalformedFrame("a frame is too long", 1009)
    if not masked:
        return fin, opcode, length, b"", at
    if len(data) - at < 4:
        return None
    return fin, opcode, length, data[at : at + 4], at + 4


def _opcode(first: int) -> Opcode:
    if first & 0x70:
        raise MalformedFrame("a reserved bit is set")
    if first & 0x0F not in _OPCODES:
        raise MalformedFrame("an unknown kind of frame")
    return Opcode(first & 0x0F)


def _judge_close(data: bytes) -> None:
    if not data:
        return
    if len(data) < 2:
        raise MalformedFrame("not a Close frame")
    code = int.from_bytes(data[:2], "big")
    if code not in _CLOSE_CODES and not 3000 <= code <= 4999:
        raise MalformedFrame("not a code for a Close frame")
    try:
        data[2:].decode("utf-8")
    except UnicodeDecodeError:
        raise MalformedFrame("the reason of a Close frame is not UTF-8", 1007) from None


def without_extensions(fields: list[Field]) -> list[Field]:
    """The fields of a handshake request without the offer of extensions."""
    return [field for field in fields if field[0].lower() != b"sec-websocket-extensions"]


def check_request(head: RequestHead) -> bytes:
    """Judge a request for an upgrade to WebSocket (RFC 6455, section 4.1).

    Returns:
        Its key, for `check_response`.
    Raises:
        Malformed: It is not one.
    """
    if head.method != b"GET" or head.minor != 1 or head.upgrade != b"websocket":
        raise Malformed("not a request for a WebSocket")
    if head.framing is not Framing.NONE:
        raise Malformed("a request for a WebSocket with a body")
    if _values(head.fields, b"sec-websocket-version") != [b"13"]:
        raise Malformed("not WebSocket version 13", 426)
    keys = _values(head.fields, b"sec-websocket-key")
    if len(keys) != 1 or not _KEY.fullmatch(keys[0]):
        raise Malformed("not a WebSocket key")
    _protocols(head.fields)
    return keys[0]


def check_response(head: ResponseHead, key: bytes, request: RequestHead) -> None:
    """Judge the answer with status 101 (RFC 6455, section 4.1).

    Args:
        key: Of the request.
    Raises:
        Malformed: It does not fit the request, or takes an extension that was not offered.
    """
    if head.status != 101 or head.upgrade != b"websocket":
        raise Malformed("not a switch to WebSocket")
    if _values(head.fields, b"sec-websocket-accept") != [accept_value(key)]:
        raise Malformed("Sec-WebSocket-Accept does not fit the key")
    if any(_values(head.fields, b"sec-websocket-extensions")):
        raise Malformed("an extension that was not offered")
    chosen = _protocols(head.fields)
    if len(chosen) > 1 or not set(chosen) <= set(_protocols(request.fields)):
        raise Malformed("a subprotocol that was not offered")


def accept_value(key: bytes) -> bytes:
    """What the server answers to a key."""
    digest = hashlib.sha1(key + _ACCEPT_SUFFIX, usedforsecurity=False).digest()
    return binascii.b2a_base64(digest, newline=False)


def _values(fields: list[Field], name: bytes) -> list[bytes]:
    return [value for field, value in fields if field.lower() == name]


def _protocols(fields: list[Field]) -> list[bytes]:
    found = [
        protocol.strip(b" \t")
        for value in _values(fields, b"sec-websocket-protocol")
        for protocol in value.split(b",")
    ]
    if not all(is_token(protocol) for protocol in found):
        raise Malformed("not a list of subprotocols")
    return found
