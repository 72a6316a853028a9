"""The client's end of a WebSocket, byte by byte: it sends what no library would."""

import asyncio
import os
import socket
import struct

from skerry.api.deno.budget import MemoryBudget
from skerry.api.deno.websocket import MessageSocket

TEXT, BINARY, CONTINUATION, CLOSE, PING, PONG = 1, 2, 0, 8, 9, 10


def frame(payload: bytes, opcode: int = TEXT, *, fin: bool = True) -> bytes:
    """One masked frame."""
    head = bytes([(0x80 if fin else 0) | opcode])
    if len(payload) < 126:
        head += bytes([0x80 | len(payload)])
    elif len(payload) < 65_536:
        head += struct.pack(">BH", 0x80 | 126, len(payload))
    else:
        head += struct.pack(">BQ", 0x80 | 127, len(payload))
    mask = os.urandom(4)
    whole = (mask * (len(payload) // 4 + 1))[: len(payload)]
    masked = int.from_bytes(payload, "big") ^ int.from_bytes(whole, "big")
    return head + mask + masked.to_bytes(len(payload), "big")


class Listener:
    """Keeps what a connection brings. Implements `skerry.api.deno.websocket.Receiver`."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []
        self.closed: list[bool] = []

    def on_message(self, message: bytes) -> None:
        """See `Receiver`."""
        self.messages.append(message)

    def on_closed(self, *, clean: bool) -> None:
        """See `Receiver`."""
        self.closed.append(clean)


class SocketClient:
    """A connection to a `MessageSocket` over a socket pair.

    Attributes:
        server: The other end.
        listener: What arrived there.
    """

    def __init__(self, server: MessageSocket, listener: Listener, end: socket.socket) -> None:
        self.server = server
        self.listener = listener
        self._end = end

    @classmethod
    async def open(cls, budget: MemoryBudget | None = None) -> "SocketClient":
        """Connect."""
        loop = asyncio.get_running_loop()
        near, far = socket.socketpair()
        near.setblocking(False)
        server = MessageSocket(budget or MemoryBudget(), loop, lambda _: None)
        listener = Listener()
        transport, _ = await loop.create_connection(asyncio.Protocol, sock=far)
        server.take_over(transport, listener)
        return cls(server, listener, near)

    async def send(self, data: bytes) -> None:
        """Send raw bytes."""
        await asyncio.get_running_loop().sock_sendall(self._end, data)

    async def receive(self) -> tuple[int, bytes]:
        """The next frame: opcode and payload."""
        head = await self._exactly(2)
        length = head[1] & 0x7F
        if length == 126:
            (length,) = struct.unpack(">H", await self._exactly(2))
        elif length == 127:
            (length,) = struct.unpack(">Q", await self._exactly(8))
        return head[0] & 0x0F, await self._exactly(length)

    async def close_code(self) -> int:
        """The code of the close frame, which is the next frame."""
        opcode, payload = await self.receive()
        assert opcode == CLOSE
        return int(struct.unpack(">H", payload[:2])[0])

    async def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            more = await asyncio.get_running_loop().sock_recv(self._end, count - len(data))
            if not more:
                raise EOFError
            data += more
        return data

    def vanish(self) -> None:
        """Drop the connection without a word."""
        self._end.close()
