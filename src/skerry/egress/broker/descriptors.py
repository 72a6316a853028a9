"""Messages with descriptors over non-blocking Unix sockets, on the event loop.

Source: unix(7), SCM_RIGHTS.
"""

import asyncio
import os
import socket
from collections.abc import Sequence
from contextlib import suppress


async def readable(sock: socket.socket) -> None:
    """Wait until something can be received. Nobody else may wait for it."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_reader(sock.fileno(), _settle, ready)
    try:
        await ready
    finally:
        loop.remove_reader(sock.fileno())


async def writable(sock: socket.socket) -> None:
    """Wait until something can be sent. Nobody else may wait for it."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_writer(sock.fileno(), _settle, ready)
    try:
        await ready
    finally:
        loop.remove_writer(sock.fileno())


async def send(sock: socket.socket, data: bytes, descriptors: Sequence[int] = ()) -> None:
    """Send one message of a SOCK_SEQPACKET socket; the caller sets the deadline.

    Raises:
        OSError: The peer is gone, or the message is too long.
    """
    while True:
        try:
            socket.send_fds(sock, [data], descriptors) if descriptors else sock.send(data)
            return
        except BlockingIOError:
            await writable(sock)


def close_all(descriptors: Sequence[int]) -> None:
    """Close descriptors that were received."""
    for descriptor in descriptors:
        with suppress(OSError):
            os.close(descriptor)


def _settle(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)
