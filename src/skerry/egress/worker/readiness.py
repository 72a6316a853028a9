"""Waiting for plain non-blocking sockets on the event loop. The caller sets the deadline."""

import asyncio
import socket


async def readable(sock: socket.socket) -> None:
    """Wait until there is something to receive, or the stream has ended. Nobody else may wait for it."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    fd = sock.fileno()
    loop.add_reader(fd, _settle, ready)
    try:
        await ready
    finally:
        loop.remove_reader(fd)


async def writable(sock: socket.socket) -> None:
    """Wait until something can be sent, or a connect has ended. Nobody else may wait for it."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    fd = sock.fileno()
    loop.add_writer(fd, _settle, ready)
    try:
        await ready
    finally:
        loop.remove_writer(fd)


async def first_readable(one: socket.socket, other: socket.socket) -> socket.socket:
    """Wait until either of two is readable, and tell which; the first if both are. Nobody else may wait for
    them."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    found: list[socket.socket] = []

    def note(sock: socket.socket) -> None:
        found.append(sock)
        # The other may be found in the same round of the loop.
        loop.call_soon(_settle, ready)

    fds = {sock.fileno(): sock for sock in (one, other)}
    for fd, sock in fds.items():
        loop.add_reader(fd, note, sock)
    try:
        await ready
    finally:
        for fd in fds:
            loop.remove_reader(fd)
    return one if one in found else other


async def send_all(sock: socket.socket, data: bytes) -> None:
    """Send everything.

    Raises:
        OSError: The connection is broken.
    """
    view = memoryview(data)
    while view:
        try:
            view = view[sock.send(view) :]
        except BlockingIOError:
            await writable(sock)


def _settle(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)
