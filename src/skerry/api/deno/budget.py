"""How much memory the process spends on what clients have under way, over all connections together."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from skerry.errors import ResourceExhausted

DEFAULT_LIMIT_BYTES = 1 << 30
"""Unfinished large messages, file contents on their way in or out, and input that waits for slow
processes."""

WAIT_S = 30.0
"""Longest time that a large answer waits for room."""


class MemoryBudget:
    """Counts bytes that are held for clients, and refuses or delays what would exceed the limit."""

    def __init__(self, limit_bytes: int = DEFAULT_LIMIT_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self._used_bytes = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @property
    def used_bytes(self) -> int:
        """Bytes held now."""
        return self._used_bytes

    def try_take(self, count: int) -> bool:
        """Count bytes if there is room; the caller gives them back."""
        if self._used_bytes + count > self._limit_bytes:
            return False
        self._used_bytes += count
        return True

    def give(self, count: int) -> None:
        """Give bytes back and let those who wait for them go on, first come first served."""
        self._used_bytes -= count
        while self._waiting:
            needed, waiter = self._waiting[0]
            if not waiter.done():
                if not self.try_take(needed):
                    return
                waiter.set_result(None)
            self._waiting.popleft()

    @asynccontextmanager
    async def hold(self, count: int) -> AsyncIterator[None]:
        """Hold bytes for a block, waiting at most `WAIT_S` for room.

        Raises:
            ResourceExhausted: There was no room in time, or the block needs more than there is in all.
        """
        await self._take(count)
        try:
            yield
        finally:
            self.give(count)

    async def _take(self, count: int) -> None:
        if not self._waiting and self.try_take(count):
            return
        busy = ResourceExhausted("the server is short of memory for large files; try again", code="BUDGET")
        if count > self._limit_bytes:
            raise busy
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((count, waiter))
        try:
            async with asyncio.timeout(WAIT_S):
                await waiter
        except BaseException as error:
            if waiter.done() and not waiter.cancelled():
                self.give(count)
            waiter.cancel()
            self.give(0)
            if isinstance(error, TimeoutError):
                raise busy from None
            raise
