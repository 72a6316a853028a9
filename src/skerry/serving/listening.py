"""A daemon's unix socket: made so that only its callers can connect, who each are known from the kernel."""

import asyncio
import os
import socket
import struct
from dataclasses import dataclass
from pathlib import Path

import structlog

_BACKLOG = 16
_ACCEPT_PAUSE_S = 0.5
_UCRED = struct.Struct("=iII")  # unix(7), SO_PEERCRED


@dataclass(frozen=True, slots=True)
class Peer:
    """Who connected, as the kernel knows it."""

    pid: int
    uid: int
    gid: int


def peer_of(sock: socket.socket) -> Peer:
    """Who is at the other end."""
    return Peer(*_UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)))


def bind(path: Path, *, user_id: int, group_id: int) -> socket.socket:
    """Make the listening socket, in place of an old one; only root, one user and one group may connect. Needs
    root.

    Raises:
        OSError: The path cannot be used.
    """
    unfinished = path.with_name(f".{path.name}")
    unfinished.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        previous = os.umask(0o177)
        try:
            listener.bind(str(unfinished))
        finally:
            os.umask(previous)
        os.chown(unfinished, user_id, group_id)
        unfinished.chmod(0o660)
        listener.listen(_BACKLOG)
        listener.setblocking(False)
        os.replace(unfinished, path)
    except BaseException:
        listener.close()
        raise
    return listener


async def accept(listener: socket.socket, log: structlog.stdlib.BoundLogger) -> socket.socket:
    """Wait for the next connection, however often the kernel refuses one."""
    loop = asyncio.get_running_loop()
    while True:
        try:
            return (await loop.sock_accept(listener))[0]
        except OSError as error:  # out of descriptors: trying at once would only burn time
            log.error("accept_failed", error=str(error))
            await asyncio.sleep(_ACCEPT_PAUSE_S)
