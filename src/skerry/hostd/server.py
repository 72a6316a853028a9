"""hostd's socket: frames in, verbs out, answers and events back. What comes from it is hostile, though only
the users of api and egressd may connect.
"""

import socket
from collections import Counter
from dataclasses import dataclass
from typing import Final, get_args

import structlog

from skerry.hostd.background import Background
from skerry.hostd.connection import Connection
from skerry.hostd.happenings import Happenings
from skerry.hostd.service import HostService
from skerry.hostd.sys.processes import parent_of
from skerry.protocol.host_verbs import OpenGateway, Verb
from skerry.serving.listening import Peer, accept, peer_of

MAX_CONNECTIONS = 32
"""Of api."""

MAX_EGRESS_CONNECTIONS = 256
"""Of egressd, which makes one for each sandbox."""

API_VERBS: Final[frozenset[type[Verb]]] = frozenset(get_args(Verb)) - {OpenGateway}
EGRESS_VERBS: Final[frozenset[type[Verb]]] = frozenset({OpenGateway})


_log = structlog.get_logger("skerry.hostd.server")


@dataclass(frozen=True, slots=True)
class EgressPeer:
    """How egressd's broker is known.

    Attributes:
        uid: Its user, shared by the gateways of all instances of this host.
        gid: Its primary group, which is this instance's own (`skerry.spec.ids.egress_group`).
        parent: The process that has started it, and hostd. Its workers, which talk to hostile sandboxes, have
            the same user and group, but not this parent.
    """

    uid: int
    gid: int
    parent: int


class HostServer:
    """Accepts connections of api and of egressd's broker; nobody else's, not even root's.

    Args:
        listener: Made by `skerry.serving.listening.bind`; owned from now on.
        allowed_uid: Api's user.
        egress: None: there is no egressd.
    """

    def __init__(
        self,
        listener: socket.socket,
        *,
        service: HostService,
        happenings: Happenings,
        allowed_uid: int,
        egress: EgressPeer | None = None,
    ) -> None:
        self._listener = listener
        self._service = service
        self._happenings = happenings
        self._allowed_uid = allowed_uid
        self._egress = egress
        self._connections: Counter[frozenset[type[Verb]]] = Counter()

    async def serve(self) -> None:
        """Accept until cancelled; then all connections have ended, and starts under way are undone."""
        with self._listener:
            async with Background() as connections:
                while True:
                    self._admit(await accept(self._listener, _log), connections)

    def _admit(self, sock: socket.socket, connections: Background) -> None:
        peer = peer_of(sock)
        verbs = self._verbs(peer)
        most = MAX_EGRESS_CONNECTIONS if verbs == EGRESS_VERBS else MAX_CONNECTIONS
        if not verbs or self._connections[verbs] >= most:
            _log.warning(
                "connection_refused", uid=peer.uid, pid=peer.pid, connections=self._connections[verbs]
            )
            sock.close()
            return
        sock.setblocking(False)
        self._connections[verbs] += 1
        connections.start(self._serve(sock, connections, verbs), name="connection")

    def _verbs(self, peer: Peer) -> frozenset[type[Verb]]:
        """What a peer may ask for."""
        if peer.uid == self._allowed_uid:
            return API_VERBS
        egress = self._egress
        if egress is None or (peer.uid, peer.gid) != (egress.uid, egress.gid):
            return frozenset()
        return EGRESS_VERBS if parent_of(peer.pid) == egress.parent else frozenset()

    async def _serve(
        self, sock: socket.socket, connections: Background, verbs: frozenset[type[Verb]]
    ) -> None:
        try:
            await Connection(sock, self._service, self._happenings, connections, verbs=verbs).serve()
        finally:
            self._connections[verbs] -= 1
