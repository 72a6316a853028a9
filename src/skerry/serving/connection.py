"""One connection to a daemon: calls come in frames, each is answered when it is carried out, in any order."""

import asyncio
import socket
from abc import ABC, abstractmethod

import structlog

from skerry.protocol.host_verbs import FrameReader
from skerry.serving.background import Background

FRAME_S = 10.0
"""A frame that has begun must be complete in this time."""

WRITE_S = 10.0
"""A peer that does not read for this long is dropped."""

LENGTH_BYTES = 4

_READ_BYTES = 65_536


class Connection(ABC):
    """Serves one peer until it goes, breaks the framing or does not read. Calls that it began are carried out
    all the same.

    A plain non-blocking socket is used, since stream transports cannot send descriptors. Descriptors that the
    peer sends are dropped by the kernel, because they are never received (unix(7)).

    Args:
        max_calls: Under way; while there are as many, no more is read.
    """

    def __init__(
        self,
        sock: socket.socket,
        background: Background,
        *,
        max_calls: int,
        log: structlog.stdlib.BoundLogger,
    ) -> None:
        self._sock = sock
        self._background = background
        self._log = log
        self._loop = asyncio.get_running_loop()
        self._slots = asyncio.Semaphore(max_calls)
        self._writing = asyncio.Lock()
        self._closed = False

    @abstractmethod
    async def answer(self, body: bytes) -> None:
        """Carry out the call in a frame, and send what comes of it.

        Raises:
            OSError, TimeoutError: The peer is gone or does not read.
        """

    async def serve(self) -> None:
        """Read and answer until the end."""
        try:
            await self._read_frames()
        except (OSError, ValueError, TimeoutError) as error:
            self._log.info("connection_dropped", error=str(error))
        finally:
            self._close()

    def _close(self) -> None:
        if not self._closed:
            self._closed = True
            self._sock.close()

    async def _read_frames(self) -> None:
        reader, begun_bytes = FrameReader(), 0
        complete_at_s: float | None = None
        while True:
            async with asyncio.timeout_at(complete_at_s):
                data = await self._loop.sock_recv(self._sock, _READ_BYTES)
            if not data:
                return
            bodies = reader.feed(data)
            begun_bytes += len(data) - sum(LENGTH_BYTES + len(body) for body in bodies)
            if begun_bytes == 0:
                complete_at_s = None
            elif bodies or complete_at_s is None:
                complete_at_s = self._loop.time() + FRAME_S
            waited_s = -self._loop.time()
            for body in bodies:
                await self._slots.acquire()
                self._background.start(self._handle(body), name="verb")
            waited_s += self._loop.time()
            if complete_at_s is not None:
                complete_at_s += waited_s  # it was not the peer that took this time

    async def _handle(self, body: bytes) -> None:
        try:
            await self.answer(body)
        except (OSError, TimeoutError) as error:
            # The peer is gone or does not read: what was asked is done, only nobody hears of it.
            self._log.info("answer_lost", error=str(error))
            self._close()
        finally:
            self._slots.release()

    async def _send(self, data: bytes) -> None:
        async with self._writing, asyncio.timeout(WRITE_S):
            if not self._closed:
                await self._loop.sock_sendall(self._sock, data)
