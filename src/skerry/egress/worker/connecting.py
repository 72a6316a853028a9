"""Connecting to one of several addresses. Attempts overlap, so that a dead address costs little.

Source: RFC 8305, section 5.
"""

import asyncio
import socket
from collections.abc import AsyncGenerator
from contextlib import aclosing
from ipaddress import IPv4Address, IPv6Address

from skerry.egress.worker.readiness import writable

Address = IPv4Address | IPv6Address
Connected = tuple[socket.socket, Address]

STAGGER_S = 0.25
"""After so long without a connection the next address is tried beside."""

MAX_ATTEMPTS = 8


class Unreachable(Exception):
    """None of the addresses answered."""


async def connect_first(candidates: AsyncGenerator[Address, None], port: int) -> Connected:
    """Connect to the first address that answers.

    Args:
        candidates: In the order in which they are tried; whatever it raises before anything is connected is
            raised here, once the attempts under way have failed too.
    Returns:
        A non-blocking socket, without delay of small segments, and the address.
    Raises:
        Unreachable: None answered.
    Cancellation closes everything.
    """
    async with aclosing(candidates):
        address = await anext(candidates, None)
        if address is None:
            raise Unreachable
        attempt = _Attempt(address, port)
        # Nearly always the first one answers at once: that is worth a way without tasks.
        if await attempt.succeeds_within(STAGGER_S):
            return attempt.sock, address
        return await _Race(port).run(attempt, candidates)


class _Attempt:
    """A connection under way to one address. A failed one is closed."""

    def __init__(self, address: Address, port: int) -> None:
        self.address = address
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        self.sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            self.sock.connect((str(address), port))
        except BlockingIOError:
            pass
        except OSError:
            self.sock.close()

    @property
    def failed(self) -> bool:
        return self.sock.fileno() < 0

    async def succeeds(self) -> bool:
        """Wait for the end of it. Cancellation leaves it as it is."""
        if self.failed:
            return False
        await writable(self.sock)
        if self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0:
            self.sock.close()
        return not self.failed

    async def succeeds_within(self, time_s: float) -> bool:
        """Wait so long for the end of it; False also when there is none yet. Cancellation closes it."""
        try:
            async with asyncio.timeout(time_s):
                return await self.succeeds()
        except TimeoutError:
            return False
        except BaseException:
            self.sock.close()
            raise


class _Race:
    """Attempts side by side; the first that connects wins."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._won: asyncio.Future[_Attempt] = asyncio.get_running_loop().create_future()
        self._attempts: list[_Attempt] = []

    async def run(self, first: _Attempt, candidates: AsyncGenerator[Address, None]) -> Connected:
        """Go on with an attempt that has not succeeded yet; see `connect_first`."""
        self._attempts.append(first)
        winner: _Attempt | None = None
        try:
            async with asyncio.TaskGroup() as group:
                feeder = group.create_task(self._feed(group, candidates))
                self._won.add_done_callback(lambda _: feeder.cancel())
            winner = self._won.result()
        finally:
            for attempt in self._attempts:
                if attempt is not winner:
                    attempt.sock.close()
        return winner.sock, winner.address

    async def _feed(self, group: asyncio.TaskGroup, candidates: AsyncGenerator[Address, None]) -> None:
        waiting = [group.create_task(self._enter(self._attempts[0]))]
        failure: Exception = Unreachable()
        try:
            try:
                async for address in candidates:
                    self._attempts.append(_Attempt(address, self._port))
                    waiting.append(group.create_task(self._enter(self._attempts[-1])))
                    await asyncio.wait(waiting[-1:], timeout=STAGGER_S)
                    if len(waiting) >= MAX_ATTEMPTS:
                        break
            except Exception as error:
                failure = error
            await asyncio.wait(waiting)
            if not self._won.done():
                self._won.set_exception(failure)
        finally:
            for task in waiting:
                task.cancel()

    async def _enter(self, attempt: _Attempt) -> None:
        if await attempt.succeeds() and not self._won.done():
            self._won.set_result(attempt)
