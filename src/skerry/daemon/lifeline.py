"""The socketpair between `up` and a daemon: neither outlives the other unnoticed, and a few words pass.

Each message is one JSON object in one SOCK_SEQPACKET datagram. From `up`: `Hello` first, then perhaps `Stop`;
end of file means that `up` died. From the daemon: one `Ready` or one `Failed`. The client token passes here,
so messages are never logged and do not show it.
"""

import asyncio
import os
import socket
from collections.abc import Callable

import msgspec

PARENT_FD_ENV = "SKERRY_PARENT_FD"
LISTEN_FD_ENV = "SKERRY_LISTEN_FD"
_MAX_MESSAGE_BYTES = 65_536


class Hello(msgspec.Struct, frozen=True, tag=True):
    """Start working.

    Attributes:
        client_token: What the client's token file holds now; None when there is none. Only api gets it.
    """

    client_token: str | None = None

    def __repr__(self) -> str:
        return "Hello(…)"


class Stop(msgspec.Struct, frozen=True, tag=True):
    """Stop working.

    Attributes:
        keep: Leave sandboxes running. Otherwise end them and leave nothing on the host.
    """

    keep: bool


class Ready(msgspec.Struct, frozen=True, tag=True):
    """The daemon serves.

    Attributes:
        new_client_token: Made because the one in `Hello` was missing or no longer good.
    """

    version: str
    new_client_token: str | None = None

    def __repr__(self) -> str:
        return f"Ready(version={self.version!r}, …)"


class Failed(msgspec.Struct, frozen=True, tag=True):
    """The daemon cannot start and will exit; for people."""

    message: str


FromParent = Hello | Stop
FromDaemon = Ready | Failed


def pair() -> tuple[socket.socket, socket.socket]:
    """The two ends: for `up`, and for the daemon to inherit."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


class DaemonEnd:
    """The daemon's end."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    @classmethod
    def inherit(cls) -> "DaemonEnd":
        """Take over the descriptor that the environment names.

        Raises:
            KeyError: The process was not started by `skerry up`.
        """
        sock = socket.socket(fileno=int(os.environ.pop(PARENT_FD_ENV)))
        sock.set_inheritable(False)
        return cls(sock)

    def fileno(self) -> int:
        """The descriptor."""
        return self._sock.fileno()

    def hello(self, *, timeout_s: float) -> Hello | None:
        """Wait for the first message; None when `up` is gone.

        Raises:
            TimeoutError: It did not come in time.
        """
        self._sock.settimeout(timeout_s)
        message = self._receive()
        return message if isinstance(message, Hello) else None

    def say(self, message: FromDaemon) -> None:
        """Tell `up`; when it is gone, nothing happens here, since `on_stop` tells."""
        self._sock.settimeout(5)
        try:
            self._sock.send(msgspec.json.encode(message))
        except OSError:
            return

    def on_stop(self, loop: asyncio.AbstractEventLoop, callback: Callable[[bool], None]) -> None:
        """Call back once, with ``keep``, when `up` says stop or is gone (keep)."""
        self._sock.setblocking(False)

        def readable() -> None:
            try:
                message = self._receive()
            except BlockingIOError:
                return
            loop.remove_reader(self._sock)
            callback(message.keep if isinstance(message, Stop) else True)

        loop.add_reader(self._sock, readable)

    def _receive(self) -> FromParent | None:
        try:
            data = self._sock.recv(_MAX_MESSAGE_BYTES)
        except ConnectionResetError:
            return None
        return msgspec.json.decode(data, type=FromParent) if data else None


class ParentEnd:
    """The end of `up`, on its event loop."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        sock.setblocking(False)

    def say(self, message: FromParent) -> None:
        """Tell the daemon; when it is gone, nothing happens here, since its end is seen otherwise."""
        try:
            self._sock.send(msgspec.json.encode(message))
        except OSError:
            return

    async def answer(self) -> FromDaemon | None:
        """Wait for what the daemon says of its start; None when it is gone. The caller sets the deadline."""
        try:
            data = await asyncio.get_running_loop().sock_recv(self._sock, _MAX_MESSAGE_BYTES)
        except ConnectionResetError:
            return None
        try:
            return msgspec.json.decode(data, type=FromDaemon) if data else None
        except msgspec.MsgspecError:
            return Failed("the daemon answered something that makes no sense")

    def close(self) -> None:
        """Close it: the daemon, if it lives, stops and keeps its sandboxes. Idempotent."""
        self._sock.close()
