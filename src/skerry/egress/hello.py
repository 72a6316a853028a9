"""The first message of a TLS client, read without terminating TLS (RFC 8446, section 4.1.2).

Reads what is at a connection's start, whether peeked or received: the message may be spread over records and
segments. Whatever is not plainly one ClientHello of TLS 1.2 or later is refused.
"""

import re
from dataclasses import dataclass

MAX_HELLO_BYTES = 16_384
MAX_RECORDS = 1_024
MAX_WIRE_BYTES = MAX_HELLO_BYTES + 5 * MAX_RECORDS
"""With the records' headers. More than this is never needed, which bounds what has to be peeked."""

_MAX_RECORD_BYTES = 16_384
_HANDSHAKE = 22
_CLIENT_HELLO = 1
_TLS12 = 0x0303
_TLS13 = 0x0304

_SERVER_NAME = 0x0000
_ALPN = 0x0010
_SUPPORTED_VERSIONS = 0x002B
_ENCRYPTED = frozenset({0xFE0D, 0xFFCE})
"""Encrypted ClientHello (RFC 9849), and its predecessor that encrypted the name only."""

_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_NAME = re.compile(rf"(?:{_LABEL}\.)*({_LABEL})".encode())
# What URL parsers take for an address when it stands last (a bare number, or 0x and digits).
_NUMBER = re.compile(rb"[0-9]+|0[xX][0-9A-Fa-f]*")


class MalformedHello(Exception):
    """Not plainly a ClientHello that we serve.

    Args:
        what: A fixed text; never holds bytes of the peer.
    """

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what


@dataclass(frozen=True, slots=True)
class Hello:
    """What a ClientHello says that matters here.

    Attributes:
        server_name: ASCII letters, digits, hyphens and dots, case as it came; None without the extension.
        alpn: Protocols that the client offers, in its order.
        has_ech: It may hold an encrypted inner hello with another name.
        length: Bytes from the connection's start to the end of the record that ends it.
    """

    server_name: str | None
    alpn: tuple[bytes, ...]
    has_ech: bool
    length: int


def parse(prefix: bytes) -> Hello | None:
    """Read the hello at the start of `prefix`; None if more is needed.

    Raises:
        MalformedHello: More would not help.
    """
    message = bytearray()
    at = 0
    for _ in range(MAX_RECORDS):
        length = _record_length(prefix, at)
        if length is None:
            return None
        before = len(message)
        message += prefix[at + 5 : at + 5 + length]
        at += 5 + length
        wanted = _judge_message_start(message)
        if wanted is not None and before + length > wanted:
            raise MalformedHello("more than a hello in its records")
        if at > len(prefix):
            return None
        if len(message) == wanted:
            return _parse_body(bytes(message[4:]), at)
    raise MalformedHello("the hello is spread over too many records")


class HelloReader:
    """Collects a connection's first bytes until the hello is complete."""

    def __init__(self) -> None:
        self._received = b""

    def feed(self, data: bytes) -> Hello | None:
        """Take bytes; None until the hello is complete.

        Raises:
            MalformedHello: As `parse`.
        """
        self._received += data
        return parse(self._received)


def _record_length(prefix: bytes, at: int) -> int | None:
    """Bytes of a record's content; None without its whole header."""
    header = prefix[at : at + 5]
    if header and header[0] != _HANDSHAKE:
        if len(header) >= 3 and header[0] & 0x80 and header[2] == _CLIENT_HELLO:
            raise MalformedHello("an SSL 2 hello")
        if len(header) < 3 and header[0] & 0x80 and at == 0:
            return None
        raise MalformedHello("not a TLS handshake record")
    if len(header) > 1 and header[1] != 3:
        raise MalformedHello("not a TLS record version")
    if len(header) < 5:
        return None
    length = int.from_bytes(header[3:5], "big")
    if not 1 <= length <= _MAX_RECORD_BYTES:
        raise MalformedHello("not a record length")
    return length


def _judge_message_start(message: bytes | bytearray) -> int | None:
    """Length of the handshake message with its header; None if that is not there yet."""
    if message and message[0] != _CLIENT_HELLO:
        raise MalformedHello("not a ClientHello")
    if len(message) < 4:
        return None
    length = 4 + int.from_bytes(message[1:4], "big")
    if length > MAX_HELLO_BYTES:
        raise MalformedHello("the hello is too long")
    return length


class _Cursor:
    """Reads through a structure; every length must fit exactly."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def take(self, count: int) -> bytes:
        end = self._at + count
        if end > len(self._data):
            raise MalformedHello("a length in the hello does not fit")
        taken = self._data[self._at : end]
        self._at = end
        return taken

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def vector(self, size: int) -> bytes:
        """Bytes after their length, which has this many bytes."""
        return self.take(self.number(size))

    def end(self) -> None:
        if self:
            raise MalformedHello("bytes are left over in the hello")


def _parse_body(body: bytes, wire_bytes: int) -> Hello:
    cursor = _Cursor(body)
    if cursor.number(2) != _TLS12:
        raise MalformedHello("a version other than TLS 1.2 or 1.3")
    cursor.take(32)  # random
    if len(cursor.vector(1)) > 32:
        raise MalformedHello("the session identifier is too long")
    ciphers = cursor.vector(2)
    if not ciphers or len(ciphers) % 2:
        raise MalformedHello("not a list of cipher suites")
    if 0 not in cursor.vector(1):
        raise MalformedHello("not without compression")
    extensions = _extensions(cursor.vector(2)) if cursor else {}
    cursor.end()
    versions = extensions.get(_SUPPORTED_VERSIONS)
    if versions is not None:
        _judge_versions(versions)
    name, alpn = extensions.get(_SERVER_NAME), extensions.get(_ALPN)
    return Hello(
        server_name=None if name is None else _server_name(name),
        alpn=() if alpn is None else _protocols(alpn),
        has_ech=not _ENCRYPTED.isdisjoint(extensions),
        length=wire_bytes,
    )


def _extensions(block: bytes) -> dict[int, bytes]:
    cursor = _Cursor(block)
    found: dict[int, bytes] = {}
    while cursor:
        kind = cursor.number(2)
        if kind in found:
            raise MalformedHello("an extension stands twice")
        found[kind] = cursor.vector(2)
    return found


def _judge_versions(extension: bytes) -> None:
    cursor = _Cursor(extension)
    versions = cursor.vector(1)
    cursor.end()
    if not versions or len(versions) % 2:
        raise MalformedHello("not a list of versions")
    offered = {int.from_bytes(versions[at : at + 2], "big") for at in range(0, len(versions), 2)}
    if offered.isdisjoint({_TLS12, _TLS13}):
        raise MalformedHello("a version other than TLS 1.2 or 1.3")


def _server_name(extension: bytes) -> str:
    """The one name of a server_name extension (RFC 6066, section 3)."""
    cursor = _Cursor(extension)
    names = _Cursor(cursor.vector(2))
    cursor.end()
    if not names or names.number(1) != 0:
        raise MalformedHello("not a host name in server_name")
    name = names.vector(2)
    if names:
        raise MalformedHello("several names in server_name")
    found = _NAME.fullmatch(name)
    if found is None or len(name) > 253:
        raise MalformedHello("server_name is not a plain host name")
    if _NUMBER.fullmatch(found[1]):
        raise MalformedHello("server_name is an address")
    return name.decode("ascii")


def _protocols(extension: bytes) -> tuple[bytes, ...]:
    """The list of an ALPN extension (RFC 7301, section 3.1)."""
    cursor = _Cursor(extension)
    names = _Cursor(cursor.vector(2))
    cursor.end()
    found = []
    while names:
        found.append(names.vector(1))
    if not found or b"" in found:
        raise MalformedHello("not a list of protocols")
    return tuple(found)
