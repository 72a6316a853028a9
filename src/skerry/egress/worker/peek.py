"""Looking at what a client has sent without taking it, so that whoever serves it finds everything.

Source: recv(2), MSG_PEEK; socket(7), SO_RCVLOWAT, which poll respects for TCP.
"""

import select
import socket

from skerry.egress.worker.readiness import readable

MAX_PEEK_BYTES = 65_536


async def peek(sock: socket.socket, least: int) -> bytes:
    """What has arrived, once it is at least so many bytes; fewer only when the stream has ended.

    Leaves the socket such that it becomes readable at that many bytes: call `reset_mark` when done.

    Args:
        least: 1 to `MAX_PEEK_BYTES`.
    Raises:
        OSError: The connection is broken.
    """
    data = arrived(sock)
    if len(data) >= least:
        return data
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, least)
    while len(data) < least and not _ended(sock):
        await readable(sock)
        data = arrived(sock)
    return data if len(data) >= least else arrived(sock)


def arrived(sock: socket.socket) -> bytes:
    """What is there now; empty when there is nothing, or the stream has ended.

    Raises:
        OSError: The connection is broken.
    """
    try:
        return sock.recv(MAX_PEEK_BYTES, socket.MSG_PEEK)
    except BlockingIOError:
        return b""


def reset_mark(sock: socket.socket) -> None:
    """From now on one byte makes the socket readable again."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)


def take(sock: socket.socket, size: int) -> bytes:
    """Take bytes that were peeked at.

    Raises:
        OSError: The connection is broken, or they are not there.
    """
    data = sock.recv(size)
    if len(data) != size:
        raise ConnectionResetError("bytes that had arrived are gone")
    return data


def _ended(sock: socket.socket) -> bool:
    poll = select.poll()
    poll.register(sock.fileno(), select.POLLRDHUP)
    return any(events & (select.POLLRDHUP | select.POLLHUP | select.POLLERR) for _, events in poll.poll(0))
