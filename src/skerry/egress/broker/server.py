"""egressd's socket: frames in, verbs out, answers back. What comes from it is hostile, though only api's user
may connect.
"""

import socket

import structlog

from skerry.egress.broker.background import Background
from skerry.egress.broker.connection import Connection
from skerry.egress.broker.service import Broker
from skerry.serving.listening import accept, peer_of

MAX_CONNECTIONS = 32


_log = structlog.get_logger("skerry.egress.server")


class BrokerServer:
    """Accepts connections of one user.

    Args:
        listener: Made by `skerry.serving.listening.bind`; owned from now on.
        allowed_uid: Whose connections are served; nobody else's, not even root's.
    """

    def __init__(self, listener: socket.socket, *, broker: Broker, allowed_uid: int) -> None:
        self._listener = listener
        self._broker = broker
        self._allowed_uid = allowed_uid
        self._connections = 0

    async def serve(self) -> None:
        """Accept until cancelled; then all connections and calls have ended."""
        with self._listener:
            async with Background() as connections:
                while True:
                    self._admit(await accept(self._listener, _log), connections)

    def _admit(self, sock: socket.socket, connections: Background) -> None:
        uid = peer_of(sock).uid
        if uid != self._allowed_uid or self._connections >= MAX_CONNECTIONS:
            _log.warning("connection_refused", uid=uid, connections=self._connections)
            sock.close()
            return
        sock.setblocking(False)
        self._connections += 1
        connections.start(self._serve(sock, connections), name="connection")

    async def _serve(self, sock: socket.socket, connections: Background) -> None:
        try:
            await Connection(sock, self._broker, connections).serve()
        finally:
            self._connections -= 1
