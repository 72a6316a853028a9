"""An agent that does what a test says, frame by frame, over a socket pair."""

import asyncio
import socket
from collections import deque
from collections.abc import Callable
from typing import Any, ClassVar

import msgspec

from skerry.control.agent import AgentLink
from skerry.protocol import frames, messages
from skerry.protocol.frames import Frame, FrameDecoder, FrameType

BOOT = b"boot" * 4
KEY = b"key." * 4
DEADLINE_S = 10.0


class Peer:
    """The guest's end of one connection."""

    _opened: ClassVar[list["Peer"]] = []

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._opened.append(self)
        self._loop = asyncio.get_running_loop()
        self._decoder = FrameDecoder(frames.FROM_HOST)
        self._frames: deque[Frame] = deque()

    @classmethod
    async def dial(cls, link: AgentLink) -> "Peer":
        """Connect to a link; says nothing yet."""
        guest, host = socket.socketpair()
        guest.setblocking(False)
        host.setblocking(False)
        await asyncio.get_running_loop().connect_accepted_socket(link.accept, host)
        return cls(guest)

    @classmethod
    async def connect(cls, link: AgentLink, *, boot: bytes = BOOT, key: bytes = KEY) -> "Peer":
        """Connect and shake hands."""
        peer = await cls.dial(link)
        await peer.hello(boot=boot, key=key)
        welcome = await peer.receive()
        assert isinstance(welcome, messages.Welcome)
        return peer

    async def hello(self, *, boot: bytes = BOOT, key: bytes = KEY) -> None:
        """Send HELLO."""
        await self.send(hello(boot=boot, key=key))

    async def send(self, *data: bytes) -> None:
        """Send bytes as they are."""
        async with asyncio.timeout(DEADLINE_S):
            await self._loop.sock_sendall(self.sock, b"".join(data))

    async def receive(self) -> Frame:
        """The next frame from the host."""
        async with asyncio.timeout(DEADLINE_S):
            while not self._frames:
                chunk = await self._loop.sock_recv(self.sock, 1 << 18)
                if not chunk:
                    raise ConnectionResetError("the host closed the connection")
                self._decoder.feed(chunk)
                self._take_all()
        return self._frames.popleft()

    async def receive_request(self, method: str) -> tuple[int, dict[str, Any]]:
        """The next frame, which must be a request of that method: its ID and parameters."""
        frame = await self.receive()
        assert isinstance(frame, messages.Request), frame
        assert frame.method == method
        return frame.id, msgspec.msgpack.decode(frame.params)

    async def closed(self) -> list[Frame]:
        """Wait until the host closes the connection; returns what came before."""
        before: list[Frame] = []
        try:
            while True:
                before.append(await self.receive())
        except ConnectionResetError:
            return before

    def close(self) -> None:
        """Break the connection."""
        self.sock.close()

    @classmethod
    def close_all(cls) -> None:
        """Break every connection that was ever made here."""
        for peer in cls._opened:
            peer.close()
        cls._opened.clear()

    def _take_all(self) -> None:
        while True:
            self._frames += self._decoder.decode(1000)
            if not self._decoder.pending:
                return


def hello(*, boot: bytes = BOOT, key: bytes = KEY, generations: tuple[int, ...] = (1,)) -> bytes:
    """HELLO."""
    value = {"generations": generations, "agent": "0.1.0", "boot": boot, "key": key}
    return frames.frame(FrameType.HELLO, messages.encode(value))


def response(id_: int, value: object, *, ok: bool = True) -> bytes:
    """RESPONSE."""
    message = messages.encode((id_, ok, value))
    if len(message) > frames.MAX_PAYLOAD_BYTES:
        return frames.split_message(FrameType.RESPONSE, message, id_ & 0xFFFF_FFFF)
    return frames.frame(FrameType.RESPONSE, message, stream=id_ & 0xFFFF_FFFF)


def failure(id_: int, code: str, message: str = "") -> bytes:
    """RESPONSE that failed."""
    return response(id_, {"code": code, "message": message}, ok=False)


def exited(pid: int, code: int, signal: str | None = None, *, oom: bool = False) -> bytes:
    """EXIT."""
    value = {"pid": pid, "code": code, "signal": signal, "oom": oom}
    return frames.frame(FrameType.EXIT, messages.encode(value))


def gap(stream: int, start: int, end: int) -> bytes:
    """GAP."""
    return frames.frame(FrameType.GAP, start.to_bytes(8, "big") + end.to_bytes(8, "big"), stream=stream)


def ping(payload: bytes = b"12345678") -> bytes:
    """PING."""
    return frames.frame(FrameType.PING, payload)


async def until(condition: Callable[[], bool]) -> None:
    """Let the event loop turn until something is so.

    Raises:
        TimeoutError: It is not within the deadline.
    """
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event of its own
            await asyncio.sleep(0)
