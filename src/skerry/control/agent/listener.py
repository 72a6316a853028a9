"""Accepts the connections of one sandbox's listener, not faster than an honest agent dials."""

import asyncio
import socket
from collections.abc import Callable

from skerry.control.agent.pace import TokenBucket

BURST = 16
PER_S = 16.0
_PAUSE_AFTER_ERROR_S = 1.0


class PacedListener:
    """Accepts connections from a listening socket and gives each a protocol.

    A server of the event loop accepts as fast as anybody dials, and each connection costs about 0.1 ms: root
    in a sandbox could so take the whole process. Here the backlog fills up instead, and the guest waits.

    Args:
        sock: Listening unix socket; owned from now on.
        protocol_factory: Makes the protocol of each connection (`AgentLink.accept`).
    """

    def __init__(self, sock: socket.socket, protocol_factory: Callable[[], asyncio.BaseProtocol]) -> None:
        self._loop = asyncio.get_running_loop()
        self._sock = sock
        self._factory = protocol_factory
        self._bucket = TokenBucket(capacity=BURST, per_s=PER_S, now_s=self._loop.time())
        self._timer: asyncio.TimerHandle | None = None
        self._handing_over: set[asyncio.Task[None]] = set()
        self._closed = False
        sock.setblocking(False)
        self._loop.add_reader(sock.fileno(), self._accept)

    def close(self) -> None:
        """Stop accepting and close the socket; connections already accepted stay. Idempotent."""
        if self._closed:
            return
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        else:
            self._loop.remove_reader(self._sock.fileno())
        self._sock.close()

    def _accept(self) -> None:
        if not self._bucket.try_take(self._loop.time()):
            self._pause(self._bucket.wait_s(self._loop.time()))
            return
        try:
            connection, _ = self._sock.accept()
        except BlockingIOError:
            return
        except OSError:
            # Out of descriptors or memory: trying at once would only burn time.
            self._pause(_PAUSE_AFTER_ERROR_S)
            return
        connection.setblocking(False)
        task = self._loop.create_task(self._hand_over(connection))
        self._handing_over.add(task)
        task.add_done_callback(self._handing_over.discard)

    async def _hand_over(self, connection: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._factory, connection)
        except OSError:
            connection.close()

    def _pause(self, delay_s: float) -> None:
        self._loop.remove_reader(self._sock.fileno())
        self._timer = self._loop.call_later(delay_s, self._resume)

    def _resume(self) -> None:
        self._timer = None
        self._loop.add_reader(self._sock.fileno(), self._accept)
