"""The socketpair between `up` and a daemon: neither outlives the other unnoticed, and a few words pass.

Each message is one JSON object in one SOCK_SEQPACKET datagram. From `up`: `Hello` first, `HandedBack` as
often as it says, then perhaps `Stop`; end of file means that `up` died. From the daemon: one `Ready` or one
`Failed`; afterwards egressd also says `Keep` and `Forget`. The client token passes here, so messages are
never logged and do not show it. Descriptors come along by SCM_RIGHTS (unix(7)).
"""

import array
import asyncio
import os
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress

import msgspec

from skerry.hostd.sys.processes import settle

PARENT_FD_ENV = "SKERRY_PARENT_FD"
LISTEN_FD_ENV = "SKERRY_LISTEN_FD"
MAX_KEPT = 4096
"""Descriptors that `up` keeps for egressd."""

_MAX_MESSAGE_BYTES = 65_536
_PER_MESSAGE = 100
"""Descriptors in one message; the kernel takes 253 (SCM_MAX_FD)."""


class Hello(msgspec.Struct, frozen=True, tag=True):
    """Start working.

    Attributes:
        client_token: What the client's token file holds now; None when there is none. Only api gets it.
        handed_back: How many descriptors follow in `HandedBack` messages.
    """

    client_token: str | None = None
    handed_back: int = 0

    def __repr__(self) -> str:
        return "Hello(…)"


class HandedBack(msgspec.Struct, frozen=True, tag=True):
    """Descriptors that an earlier process of this daemon had `up` keep."""


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


class Keep(msgspec.Struct, frozen=True, tag=True):
    """Keep the descriptor that comes along, in place of an earlier one of this name."""

    name: str


class Forget(msgspec.Struct, frozen=True, tag=True):
    """Close what is kept under this name."""

    name: str


FromParent = Hello | HandedBack | Stop
FromDaemon = Ready | Failed | Keep | Forget
Kept = Keep | Forget


def pair() -> tuple[socket.socket, socket.socket]:
    """The two ends: for `up`, and for the daemon to inherit."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


class DaemonEnd:
    """The daemon's end."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._telling = asyncio.Lock()

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

    def handed_back(self, hello: Hello, *, timeout_s: float) -> list[int]:
        """Receive what `up` kept; the caller owns the descriptors. Fewer when `up` is gone.

        Raises:
            TimeoutError: They did not come in time.
        """
        self._sock.settimeout(timeout_s)
        found: list[int] = []
        while len(found) < hello.handed_back:
            data, descriptors, _, _ = socket.recv_fds(
                self._sock, _MAX_MESSAGE_BYTES, _PER_MESSAGE, socket.MSG_CMSG_CLOEXEC
            )
            found += descriptors
            if not data or not descriptors:
                break
        return found

    def say(self, message: FromDaemon) -> None:
        """Tell `up`; when it is gone, nothing happens here, since `on_stop` tells."""
        self._sock.settimeout(5)
        try:
            self._sock.send(msgspec.json.encode(message))
        except OSError:
            return

    async def tell(self, message: Kept, descriptor: int | None = None) -> None:
        """Tell `up`, on the event loop; messages go in the order of these calls. The caller sets the
        deadline. When this returns, `up` will get it even if this process ends.

        Raises:
            OSError: `up` is gone.
        """
        data = msgspec.json.encode(message)
        ancillary = [] if descriptor is None else [_rights([descriptor])]
        self._sock.setblocking(False)
        async with self._telling:
            await _send(self._sock, data, ancillary)

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
        self._on_kept: Callable[[Kept, list[int]], None] | None = None
        sock.setblocking(False)

    def say(self, message: FromParent) -> None:
        """Tell the daemon; when it is gone, nothing happens here, since its end is seen otherwise."""
        try:
            self._sock.send(msgspec.json.encode(message))
        except OSError:
            return

    async def hand_back(self, descriptors: Sequence[int]) -> None:
        """Give the daemon duplicates of descriptors, after a `Hello` that announced them. The caller sets the
        deadline. When it is gone, nothing happens here."""
        with suppress(OSError):
            for at in range(0, len(descriptors), _PER_MESSAGE):
                part = descriptors[at : at + _PER_MESSAGE]
                await _send(self._sock, msgspec.json.encode(HandedBack()), [_rights(part)])

    async def answer(self) -> Ready | Failed | None:
        """Wait for what the daemon says of its start; None when it is gone. The caller sets the deadline."""
        try:
            data = await asyncio.get_running_loop().sock_recv(self._sock, _MAX_MESSAGE_BYTES)
        except ConnectionResetError:
            return None
        try:
            return msgspec.json.decode(data, type=Ready | Failed) if data else None
        except msgspec.MsgspecError:
            return Failed("the daemon answered something that makes no sense")

    def on_kept(self, callback: Callable[[Kept, list[int]], None]) -> None:
        """Call back with everything that the daemon says from now on, until `close`.

        Args:
            callback: Owns the descriptors that it gets.
        """
        self._on_kept = callback
        asyncio.get_running_loop().add_reader(self._sock, self._take)

    def close(self) -> None:
        """Take what the daemon has said, and close: the daemon, if it lives, stops and keeps its sandboxes.
        Idempotent."""
        if self._sock.fileno() < 0:
            return
        if self._on_kept is not None:
            for _ in range(2 * MAX_KEPT):
                if not self._take():
                    break
            asyncio.get_running_loop().remove_reader(self._sock)
        self._sock.close()

    def _take(self) -> bool:
        """Take one message; False when there is none."""
        try:
            data, descriptors, _, _ = socket.recv_fds(
                self._sock, _MAX_MESSAGE_BYTES, 1, socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            return False
        except ConnectionResetError:
            # It has ended without reading all. That is said once, before what it had sent (unix(7)).
            return True
        except OSError:
            data, descriptors = b"", []
        try:
            message = msgspec.json.decode(data, type=Kept) if data else None
        except (msgspec.MsgspecError, RecursionError):
            message = None
        if message is None or self._on_kept is None:
            for descriptor in descriptors:
                os.close(descriptor)
        else:
            self._on_kept(message, descriptors)
        if not data:
            asyncio.get_running_loop().remove_reader(self._sock)
        return bool(data)


def _rights(descriptors: Sequence[int]) -> tuple[int, int, bytes]:
    return (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors).tobytes())


async def _send(sock: socket.socket, data: bytes, ancillary: Sequence[tuple[int, int, bytes]]) -> None:
    loop = asyncio.get_running_loop()
    while True:
        try:
            sock.sendmsg([data], ancillary, socket.MSG_DONTWAIT)
            return
        except BlockingIOError:
            ready: asyncio.Future[None] = loop.create_future()
            loop.add_writer(sock.fileno(), settle, ready)
            try:
                await ready
            finally:
                loop.remove_writer(sock.fileno())
