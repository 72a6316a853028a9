"""ClientHellos for tests: of OpenSSL, and made by hand with every part to choose."""

import ssl
from collections.abc import Sequence

Extension = tuple[int, bytes]


def of_openssl(server_name: str | None, alpn: Sequence[str] = ()) -> bytes:
    """The first bytes of OpenSSL as a client."""
    context = ssl.create_default_context()
    context.check_hostname = server_name is not None
    if alpn:
        context.set_alpn_protocols(list(alpn))
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    connection = context.wrap_bio(incoming, outgoing, server_hostname=server_name)
    try:
        connection.do_handshake()
    except ssl.SSLWantReadError:
        return outgoing.read()
    raise AssertionError("a handshake without a server")


def vector(size: int, content: bytes) -> bytes:
    """Content after its length, which has this many bytes."""
    return len(content).to_bytes(size, "big") + content


def server_name(*names: bytes, kind: int = 0) -> Extension:
    """The server_name extension."""
    return 0, vector(2, b"".join(bytes([kind]) + vector(2, name) for name in names))


def alpn(*protocols: bytes) -> Extension:
    """The ALPN extension."""
    return 16, vector(2, b"".join(vector(1, protocol) for protocol in protocols))


def supported_versions(*versions: int) -> Extension:
    """The supported_versions extension."""
    return 43, vector(1, b"".join(version.to_bytes(2, "big") for version in versions))


def message(
    *extensions: Extension,
    version: int = 0x0303,
    session: bytes = b"",
    ciphers: bytes = b"\x13\x01\xc0\x2b",
    compression: bytes = b"\0",
    after: bytes = b"",
) -> bytes:
    """A ClientHello as a handshake message."""
    body = version.to_bytes(2, "big") + bytes(32) + vector(1, session) + vector(2, ciphers)
    body += vector(1, compression)
    if extensions:
        body += vector(
            2, b"".join(kind.to_bytes(2, "big") + vector(2, content) for kind, content in extensions)
        )
    return b"\x01" + vector(3, body + after)


def records(handshake: bytes, size: int = 16_384, version: int = 0x0301) -> bytes:
    """Handshake messages in records of at most this size."""
    parts = [handshake[at : at + size] for at in range(0, len(handshake), size)]
    return b"".join(b"\x16" + version.to_bytes(2, "big") + vector(2, part) for part in parts)
