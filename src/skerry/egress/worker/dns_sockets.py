"""The sandbox's name server: one UDP socket, and connections to port 53."""

import asyncio
import socket
from contextlib import suppress

from skerry.egress.dns import FramingError, QueryFramer, answer, framed
from skerry.egress.worker.audit import MAX_TEXT, Entry, Event
from skerry.egress.worker.flow import Shared
from skerry.egress.worker.readiness import readable, send_all
from skerry.policy.verdict import Reason

_MAX_AT_ONCE = 32
_MAX_PACKET_BYTES = 4_096


class DnsServer:
    """Answers from policy.

    Args:
        sock: Gets the sandbox's packets to port 53; non-blocking, owned from now on.
    """

    def __init__(self, shared: Shared, sock: socket.socket) -> None:
        self._shared = shared
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(sock.fileno(), self._packets)

    def close(self) -> None:
        """Answer no more packets. Idempotent."""
        if self._sock.fileno() >= 0:
            self._loop.remove_reader(self._sock.fileno())
            self._sock.close()

    async def serve_stream(self, client: socket.socket) -> None:
        """Answer what comes over one TCP connection, until it has been idle for the limit.

        Raises:
            OSError: It broke.
        """
        framer = QueryFramer()
        try:
            while True:
                async with asyncio.timeout(self._shared.limits.settings.idle_s):
                    await readable(client)
                    data = client.recv(_MAX_PACKET_BYTES)
                    if not data:
                        return
                    for query in framer.feed(data):
                        found = self._answer(query)
                        if found is not None:
                            await send_all(client, framed(found))
        except FramingError:
            return
        except TimeoutError:
            self._shared.limits.hit("idle_s")

    def _packets(self) -> None:
        for _ in range(_MAX_AT_ONCE):
            try:
                query, sender = self._sock.recvfrom(_MAX_PACKET_BYTES)
            except OSError:
                # Nothing more, or a report that an earlier answer found nobody.
                return
            found = self._answer(query)
            if found is not None:
                with suppress(OSError):
                    self._sock.sendto(found, sender)

    def _answer(self, query: bytes) -> bytes | None:
        limits = self._shared.limits
        if not limits.queries.take(limits.clock()):
            limits.hit("queries_per_s")
            return None
        return answer(query, self._shared.names, self._is_allowed)

    def _is_allowed(self, name: str) -> bool:
        if not self._shared.current.policy.name_allowed(name):
            self._shared.audit.record(
                Entry(event=Event.DNS, decision="deny", reason=Reason.HOST_NOT_ALLOWED, host=name[:MAX_TEXT])
            )
            return False
        if len(self._shared.names) >= self._shared.limits.settings.names:
            self._shared.limits.hit("names")
        return True
