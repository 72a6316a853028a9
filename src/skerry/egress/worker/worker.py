"""A worker's parts put together, following what the broker says."""

import asyncio
import os
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from skerry.egress.dns import SyntheticNames
from skerry.egress.messages import Adopted, Cut, Rules, Stop, ToWorker, Written
from skerry.egress.raised_at import raised_at
from skerry.egress.worker.audit import AuditTrail, Entry, Event
from skerry.egress.worker.broker_line import BrokerLine, Usage
from skerry.egress.worker.connections import Connections, Destination, original_destination
from skerry.egress.worker.dial import Dialler, DirectDialler, ProxiedDialler
from skerry.egress.worker.dns_sockets import DnsServer
from skerry.egress.worker.flow import Current, Inspector, Shared
from skerry.egress.worker.limits import Limits
from skerry.egress.worker.resolver import Endpoint, Resolver

TICK_S = 1.0
MAX_DEFECTS_TOLD = 20


@dataclass(frozen=True, slots=True)
class Sockets:
    """What a worker is born with; all non-blocking."""

    control: socket.socket
    listener: socket.socket
    dns: socket.socket


class Worker:
    """Puts the parts together and follows the broker.

    Args:
        rules: The first ones.
        destination: See `Connections`.
    """

    def __init__(
        self,
        rules: Rules,
        sockets: Sockets,
        inspector: Inspector,
        resolvers: Sequence[Endpoint],
        *,
        destination: Callable[[socket.socket], Destination] = original_destination,
    ) -> None:
        self._rules = rules
        self._sockets = sockets
        self._inspector = inspector
        self._resolvers = resolvers
        self._destination = destination
        self._defects = 0

    async def main(self) -> int:
        """Serve until the end; returns the exit status."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: self._defect(context.get("exception")))
        self._over: asyncio.Future[int] = loop.create_future()
        self._line = BrokerLine(
            self._sockets.control,
            most=self._rules.settings.limits.audit_lines,
            on_message=self._take,
            on_gone=lambda: self._end(0),
        )
        self._usage = Usage(self._line.send)
        self._shared = self._share(loop)
        self._tell_placeholders()
        async with asyncio.TaskGroup() as group:
            dns = DnsServer(self._shared, self._sockets.dns)
            self._connections = Connections(
                self._shared, self._sockets.listener, dns, group, destination=self._destination
            )
            self._line.send(Adopted(self._rules.version))
            ticker = loop.call_later(TICK_S, self._tick)
            self._ticker = ticker
            status = await self._over
            self._ticker.cancel()
            dns.close()
            self._connections.close()
        self._usage.tick()
        self._line.finish()
        return status

    def used(self, secret: str) -> None:
        """See `Broker.used`."""
        self._usage.count(secret)

    def cut(self, secret: str) -> None:
        """See `Broker.cut`."""
        self._line.send(Cut(secret))

    def _share(self, loop: asyncio.AbstractEventLoop) -> Shared:
        rules = self._rules
        self._current = Current(rules)
        self._audit = AuditTrail(
            self._line,
            sandbox=rules.sandbox_id,
            next_seq=rules.next_seq,
            clock=loop.time,
            now_ms=_now_ms,
            version=lambda: self._current.version,
        )
        limits = Limits(rules.settings.limits, loop.time, self._hit)
        return Shared(
            current=self._current,
            audit=self._audit,
            limits=limits,
            dialler=self._dialler(limits),
            names=SyntheticNames(rules.sandbox_id.encode(), limit=rules.settings.limits.names),
            inspector=self._inspector,
            broker=self,
            now_ms=_now_ms,
            on_defect=self._defect,
        )

    def _dialler(self, limits: Limits) -> Dialler:
        settings = self._rules.settings
        resolver = Resolver(self._resolvers, limits.clock)
        if settings.upstream_proxy:
            return ProxiedDialler(
                settings.upstream_proxy, resolver, limits, policy=lambda: self._current.policy
            )
        return DirectDialler(resolver, limits, settings.internal, policy=lambda: self._current.policy)

    def _take(self, message: ToWorker) -> None:
        match message:
            case Rules():
                # To go on with old rules would be worse than to end.
                try:
                    self._adopt(message)
                except Exception as error:
                    self._defect(error)
                    self._end(os.EX_SOFTWARE)
            case Written(seq=seq):
                self._audit.written(seq)
            case Stop():
                self._end(0)

    def _adopt(self, rules: Rules) -> None:
        self._current.adopt(rules)
        self._tell_placeholders()
        self._inspector.adopt(rules)
        self._connections.end_unfit()
        self._line.send(Adopted(rules.version))

    def _tell_placeholders(self) -> None:
        secrets = self._current.rules.secrets
        self._audit.know_placeholders([(secret.placeholder, secret.rule.name) for secret in secrets])

    def _tick(self) -> None:
        self._audit.tick()
        self._usage.tick()
        self._ticker = asyncio.get_running_loop().call_later(TICK_S, self._tick)

    def _hit(self, limit: str) -> None:
        self._audit.record(Entry(event=Event.LIMIT, limit=limit))

    def _end(self, status: int) -> None:
        if not self._over.done():
            self._over.set_result(status)

    def _defect(self, error: object) -> None:
        """Tell the log of a defect, without what the exception says: it may quote a sandbox or a secret."""
        self._defects += 1
        if self._defects <= MAX_DEFECTS_TOLD and isinstance(error, BaseException):
            with suppress(OSError):
                os.write(2, f"worker defect: {type(error).__name__} at {raised_at(error)}\n".encode())


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
