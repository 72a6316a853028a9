"""All connections of the sandbox: accepting, counting, and ending those that rules no longer allow."""

import asyncio
import errno
import socket
import struct
from collections.abc import Callable
from ipaddress import IPv4Address

import msgspec

from skerry.egress.dns.names import NAME_SERVER
from skerry.egress.worker import denial
from skerry.egress.worker.audit import Event
from skerry.egress.worker.dns_sockets import DnsServer
from skerry.egress.worker.flow import Flow, Shared
from skerry.egress.worker.proxy import serve_proxy
from skerry.egress.worker.serve import serve
from skerry.policy.verdict import Reason

PROXY_PORT = 3128
DNS_PORT = 53

ACCEPT_PAUSE_S = 0.1
"""After the process had no room for another descriptor."""

_MAX_AT_ONCE = 16
_SO_ORIGINAL_DST = 80
_NO_ROOM = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

Destination = tuple[IPv4Address, int]


def original_destination(client: socket.socket) -> Destination:
    """Where a redirected connection was to go.

    Raises:
        OSError: It was not redirected.
    Source: linux/netfilter_ipv4.h; a sockaddr_in.
    """
    address = client.getsockopt(socket.SOL_IP, _SO_ORIGINAL_DST, 16)
    port, packed = struct.unpack_from("!2xH4s", address)
    return IPv4Address(packed), port


class Connections:
    """Accepts from the sandbox's listener.

    Args:
        listener: Non-blocking; owned from now on.
        group: Owns a task for each connection.
        destination: Tells where an accepted connection was to go; raises OSError when nobody knows.
    """

    def __init__(
        self,
        shared: Shared,
        listener: socket.socket,
        dns: DnsServer,
        group: asyncio.TaskGroup,
        *,
        destination: Callable[[socket.socket], Destination] = original_destination,
    ) -> None:
        self._shared = shared
        self._listener = listener
        self._dns = dns
        self._group = group
        self._destination = destination
        self._loop = asyncio.get_running_loop()
        self._live: dict[Flow, asyncio.Task[None]] = {}
        self._count = 0
        self._loop.add_reader(listener.fileno(), self._accept)

    def __len__(self) -> int:
        return len(self._live)

    def end_unfit(self) -> None:
        """End the connections that the present rules do not allow."""
        for flow, task in list(self._live.items()):
            if not flow.fits():
                reason = self._shared.current.policy.decide(flow.host, flow.port).reason
                self._shared.audit.record(
                    msgspec.structs.replace(
                        flow.denied(Event.CONNECTION, reason or Reason.HOST_NOT_ALLOWED),
                        note="the rules have changed",
                    )
                )
                task.cancel()

    def close(self) -> None:
        """Accept no more, and end all. Idempotent."""
        if self._listener.fileno() >= 0:
            self._loop.remove_reader(self._listener.fileno())
            self._listener.close()
        for task in self._live.values():
            task.cancel()

    def _accept(self) -> None:
        for _ in range(_MAX_AT_ONCE):
            try:
                client, _ = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _NO_ROOM:
                    self._pause()
                return
            client.setblocking(False)
            self._take(client)

    def _pause(self) -> None:
        self._loop.remove_reader(self._listener.fileno())
        self._loop.call_later(ACCEPT_PAUSE_S, self._go_on)

    def _go_on(self) -> None:
        if self._listener.fileno() >= 0:
            self._loop.add_reader(self._listener.fileno(), self._accept)

    def _take(self, client: socket.socket) -> None:
        limits = self._shared.limits
        if len(self._live) >= limits.settings.connections:
            limits.hit("connections")
            denial.reset(client)
            return
        try:
            address, port = self._destination(client)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError:
            denial.reset(client)
            return
        self._count += 1
        flow = Flow(self._shared, self._count, client, (address, port), address, port)
        self._live[flow] = self._group.create_task(self._serve(flow))

    async def _serve(self, flow: Flow) -> None:
        """Serve one connection to its end, whatever happens."""
        try:
            await self._dispatch(flow)
            flow.client.close()
        except OSError:
            pass
        except Exception as error:
            self._shared.on_defect(error)
        finally:
            # Without effect on a socket that is closed; else something was left unfinished.
            denial.reset(flow.client)
            del self._live[flow]
            self._record_end(flow)

    async def _dispatch(self, flow: Flow) -> None:
        address, port = flow.destination
        if port == DNS_PORT:
            await self._dns.serve_stream(flow.client)
        elif flow.destination == (NAME_SERVER, PROXY_PORT):
            await serve_proxy(flow)
        else:
            flow.decide(address, port)
            await serve(flow)

    def _record_end(self, flow: Flow) -> None:
        if flow.opened_at_s is None:
            return
        lasted_s = self._shared.limits.clock() - flow.opened_at_s
        self._shared.audit.record(
            msgspec.structs.replace(
                flow.describe(Event.CLOSED),
                sent_bytes=flow.sent_bytes,
                received_bytes=flow.received_bytes,
                duration_ms=round(lasted_s * 1000),
            )
        )
