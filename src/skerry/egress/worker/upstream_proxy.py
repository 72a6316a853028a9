"""Asking a proxy of the operator's for a tunnel. Source: RFC 9110, section 9.3.6."""

import socket

from skerry.egress.worker.peek import peek, reset_mark, take

MAX_ANSWER_BYTES = 8_192


class ProxyRefused(Exception):
    """The proxy did not open the tunnel."""


async def open_tunnel(sock: socket.socket, authority: str) -> None:
    """Turn a fresh connection to a proxy into one to an origin. The caller sets the deadline.

    Args:
        authority: ``host:port``.
    Raises:
        ProxyRefused: It did not work; the socket is closed. Cancellation closes it too.
    """
    try:
        sock.send(f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode("ascii"))
        head = await _head(sock)
    except OSError:
        sock.close()
        raise ProxyRefused from None
    except BaseException:
        sock.close()
        raise
    parts = head.split(b"\r\n", 1)[0].split(b" ", 2)
    if len(parts) < 2 or not parts[0].startswith(b"HTTP/1.") or len(parts[1]) != 3 or parts[1][:1] != b"2":
        sock.close()
        raise ProxyRefused


async def _head(sock: socket.socket) -> bytes:
    """Take the answer's head, and not a byte more: what follows is the origin's."""
    data = b""
    while (end := data.find(b"\r\n\r\n")) < 0:
        have = len(data)
        if have >= MAX_ANSWER_BYTES:
            raise ConnectionResetError("no end of the head")
        data = (await peek(sock, have + 1))[: MAX_ANSWER_BYTES + 4]
        if len(data) <= have:
            raise ConnectionResetError("the proxy hung up")
    reset_mark(sock)
    return take(sock, end + 4)
