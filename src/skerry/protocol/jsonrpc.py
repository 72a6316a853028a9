"""JSON-RPC 2.0 as the Deno Sandbox SDKs speak it: one object per WebSocket message, in bytes, without I/O.

Stream notifications carry most of the traffic, so they are built by joining bytes: `pybase64` into a template
makes a 64 KiB chunk in a few
microseconds, the `json` module takes a hundred times as long.

Source: JSON-RPC 2.0 specification; protocol notes, section 2.
"""

import itertools
import re
from collections.abc import Callable, Iterator

import msgspec
import pybase64

from skerry.errors import InvalidRequest

METHOD_NOT_FOUND = -32601
INVALID_REQUEST = -32600
INVALID_PARAMS = -32602
INTERNAL_ERROR = -32603
SERVER_ERROR = -32000

MAX_ID_BYTES = 128
"""Longest request ID that is echoed. The SDKs use small integers."""

MAX_STREAM_CHUNK_BYTES = 65_536
"""Raw bytes in one `$sandbox.stream.enqueue` of ours."""

MAX_MENDED_BYTES = 1 << 20
"""Longest message that is looked through for half characters: that takes time."""

_MAX_SAFE_INTEGER = 2**53

_ESCAPES = re.compile(
    rb"(\\\\|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})|\\u[dD][89a-fA-F][0-9a-fA-F]{2}"
)
"""Escaped backslashes and whole surrogate pairs (group 1, kept), or half of one."""

_ID_STARTS = frozenset(b'-0123456789"')


class Incoming(msgspec.Struct, frozen=True):
    """A message from a client, its parameters not decoded yet.

    Attributes:
        id: The ID's own JSON text, so that it is echoed as the same type; empty for a notification.
        method: Empty when the message has none.
        params: JSON text of the parameters, ``{}`` when absent or null.
    """

    method: str = ""
    id: msgspec.Raw = msgspec.Raw(b"")
    params: msgspec.Raw = msgspec.Raw(b"{}")


_decode_incoming = msgspec.json.Decoder(Incoming).decode
_encode = msgspec.json.Encoder().encode


def parse(message: bytes) -> Incoming:
    """Split a message into ID, method and parameters.

    Raises:
        InvalidRequest: It is no JSON object, or its method is no string. Nothing can be answered: the ID is
            not known.
    """
    try:
        return _decode_incoming(message)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        mended = _with_whole_characters(message)
        if mended is None:
            raise InvalidRequest("not a JSON-RPC object") from error
    try:
        return _decode_incoming(mended)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest("not a JSON-RPC object") from error


def _with_whole_characters(message: bytes) -> bytes | None:
    """Half characters replaced by U+FFFD, as JavaScript does when it makes UTF-8; None when there are none.

    JavaScript strings may hold lone surrogates, and `JSON.stringify` writes them as escapes, which no strict
    decoder takes.
    """
    if len(message) > MAX_MENDED_BYTES:
        return None
    mended, count = _ESCAPES.subn(lambda match: match[0] if match[1] else b"\\ufffd", message)
    return mended if count else None


def request_id(incoming: Incoming) -> bytes | None:
    """The ID to echo, as JSON text; None when it is absent, null or nothing that an ID may be.

    A response with ``id: null`` is never sent: one SDK closes the connection on it.
    """
    text = bytes(incoming.id)
    if not text or text[0] not in _ID_STARTS or len(text) > MAX_ID_BYTES:
        return None
    return text


def params_of(incoming: Incoming) -> bytes | memoryview:
    """JSON text of the parameters: ``{}`` for null."""
    text = memoryview(incoming.params)
    return b"{}" if len(text) == 4 and bytes(text) == b"null" else text


def encode(value: object) -> bytes:
    """JSON text of a value, as compact as can be."""
    return _encode(value)


def ok(id_text: bytes, value: object) -> bytes:
    """A successful response."""
    return b'{"jsonrpc":"2.0","id":%b,"result":{"ok":%b}}' % (id_text, _encode(value))


def ok_void(id_text: bytes) -> bytes:
    """The response of a method that answers nothing: the SDKs want ``ok`` to be there, and null."""
    return b'{"jsonrpc":"2.0","id":%b,"result":{"ok":null}}' % id_text


def ok_bytes(id_text: bytes, data: bytes) -> bytes:
    """A successful response that is one byte string, in standard base64."""
    return b'{"jsonrpc":"2.0","id":%b,"result":{"ok":"%b"}}' % (id_text, pybase64.b64encode(data))


def failed(id_text: bytes, error_object: object) -> bytes:
    """A response with an application error: the call was understood, and failed."""
    return b'{"jsonrpc":"2.0","id":%b,"result":{"error":%b}}' % (id_text, _encode(error_object))


def refused(id_text: bytes, code: int, message: str, data: object = None) -> bytes:
    """A response with a protocol error: the call was not carried out.

    Args:
        data: An object, or None for no such member.
    """
    error: dict[str, object] = {"code": code, "message": message}
    if data is not None:
        error["data"] = data
    return b'{"jsonrpc":"2.0","id":%b,"error":%b}' % (id_text, _encode(error))


def stream_start(stream_id: int) -> bytes:
    """Announce a stream: one SDK drops chunks of streams it was not told about."""
    return b'{"jsonrpc":"2.0","method":"$sandbox.stream.start","params":{"streamId":%d}}' % stream_id


def stream_enqueue(stream_id: int, data: bytes) -> bytes:
    """One chunk of a stream."""
    return b'{"jsonrpc":"2.0","method":"$sandbox.stream.enqueue","params":{"streamId":%d,"data":"%b"}}' % (
        stream_id,
        pybase64.b64encode(data),
    )


def stream_end(stream_id: int) -> bytes:
    """The end of a stream; exactly one per stream."""
    return b'{"jsonrpc":"2.0","method":"$sandbox.stream.end","params":{"streamId":%d}}' % stream_id


def stream_error(stream_id: int, error_object: object) -> bytes:
    """A stream that breaks off; for clients that know it, instead of an end."""
    return b'{"jsonrpc":"2.0","method":"$sandbox.stream.error","params":{"streamId":%d,"error":%b}}' % (
        stream_id,
        _encode(error_object),
    )


def stream_cancel(stream_id: bytes, reason: object) -> bytes:
    """Tell the sender of a stream that nobody reads it any more.

    Args:
        stream_id: JSON text of the client's own ID.
        reason: An error object or None.
    """
    return b'{"jsonrpc":"2.0","method":"$sandbox.stream.cancel","params":{"streamId":%b,"reason":%b}}' % (
        stream_id,
        _encode(reason),
    )


def stream_ids(randbelow: Callable[[int], int]) -> Iterator[int]:
    """IDs for streams that no two connections and no two runs of the server share.

    One SDK keeps all streams of a process in one table, whatever connection they came on, so an ID must never
    come twice in its life. Counting from a random start
    also keeps the IDs of a restarted server apart from those of the one before.
    """
    return itertools.count(randbelow(_MAX_SAFE_INTEGER // 2))
