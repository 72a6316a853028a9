"""TLS between a socket and plain bytes, without I/O of its own but for the handshake.

Whole segments are received and sent, with several records in each where there are several: that takes fewer
system calls than to let OpenSSL read from the socket, which asks for each record's header first.
"""

import socket
import ssl
from contextlib import suppress

from skerry.egress.worker.readiness import readable, writable

_RECORD_BYTES = 16_384
"""A TLS record holds no more (RFC 8446, section 5.1)."""

_SEGMENT_BYTES = 16_384


class Tls:
    """One end of a connection.

    Attributes:
        ended: The peer has said that it sends no more.
    """

    __slots__ = ("_incoming", "_outgoing", "_ssl", "ended")

    def __init__(
        self, context: ssl.SSLContext, *, server_side: bool = False, server_name: str | None = None
    ) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._ssl = context.wrap_bio(
            self._incoming, self._outgoing, server_side=server_side, server_hostname=server_name
        )
        self.ended = False

    @property
    def session(self) -> ssl.SSLObject:
        """What was negotiated."""
        return self._ssl

    @property
    def has_early(self) -> bool:
        """Something came together with the end of the handshake: `decrypt` has it."""
        return self._incoming.pending > 0

    async def handshake(self, sock: socket.socket) -> None:
        """Do the handshake. The caller sets the deadline.

        Raises:
            OSError: It failed; `ssl.SSLError` says how, and the peer was told so if it could be.
        """
        while not await self._advance(sock):
            await readable(sock)
            try:
                data = sock.recv(_SEGMENT_BYTES)
            except BlockingIOError:
                continue
            if not data:
                raise ConnectionResetError("the peer left during the handshake")
            self._incoming.write(data)

    def decrypt(self, data: bytes) -> bytes:
        """What received bytes say; empty when a record is not complete yet, or at the end.

        Raises:
            ssl.SSLError: They are no TLS; what was said before in the same bytes is lost.
        """
        self._incoming.write(data)
        pieces: list[bytes] = []
        # Asking once more than there are records would raise, which costs as much as the rest.
        while self._incoming.pending:
            try:
                piece = self._ssl.read(_RECORD_BYTES)
            except ssl.SSLWantReadError:
                break
            if not piece:
                self.ended = True
                break
            pieces.append(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def encrypt(self, data: bytes) -> bytes:
        """What has to be sent to say this."""
        self._ssl.write(data)
        return self._outgoing.read()

    def due(self) -> bytes:
        """What TLS itself has to say to the peer, such as after an update of keys."""
        return self._outgoing.read() if self._outgoing.pending else b""

    def goodbye(self) -> bytes:
        """``close_notify``, by which the peer can tell the end from a cut."""
        # Whether the peer answers does not matter: SSLWantReadError.
        with suppress(ssl.SSLError, ValueError):
            self._ssl.unwrap()
        return self._outgoing.read()

    async def _advance(self, sock: socket.socket) -> bool:
        """Go as far as possible with what has come; whether the handshake is done."""
        try:
            self._ssl.do_handshake()
        except ssl.SSLWantReadError:
            done = False
        except ssl.SSLError:
            with suppress(OSError):
                sock.send(self._outgoing.read())
            raise
        else:
            done = True
        rest = memoryview(self._outgoing.read())
        while rest:
            try:
                rest = rest[sock.send(rest) :]
            except BlockingIOError:
                await writable(sock)
        return done
