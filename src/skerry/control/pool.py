"""The warm pool: sandboxes that were started, said hello, and were frozen, waiting for a client."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import msgspec
import structlog

from skerry.control.clock import Clock
from skerry.control.sandbox import Sandbox
from skerry.control.steps import Shape
from skerry.control.store.records import SandboxRecord
from skerry.errors import SkerryError
from skerry.lifecycle.events import EndAsked, Stage
from skerry.spec.sandbox import EndReason
from skerry.spec.settings import PoolSettings

_log = structlog.get_logger("skerry.control")

FIRST_BACKOFF_S = 1.0
LONGEST_BACKOFF_S = 60.0


class PoolView(msgspec.Struct, frozen=True, kw_only=True):
    """How the pool is.

    Attributes:
        failures: Starts of members that failed in a row; the next attempt waits longer each time, up to a
            minute.
        last_error: Why the last one failed; empty when it did not.
    """

    target: int
    ready: int
    failures: int
    last_error: str


class Pool:
    """Members of one shape. Taking one is synchronous, so no two clients get the same.

    Args:
        make: Starts a member of the shape and freezes it.
    """

    def __init__(
        self,
        settings: PoolSettings,
        shape: Shape,
        clock: Clock,
        *,
        make: Callable[[Shape], Awaitable[Sandbox]],
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._make = make
        self._ready: deque[Sandbox] = deque()
        self._reserved = 0
        self._creates = 0
        self._last_create_s = clock.monotonic_s() - settings.refill_delay_s
        self._changed = asyncio.Event()
        self._closed = False
        self._failures = 0
        self._last_error = ""
        self.shape = shape

    def view(self) -> PoolView:
        """How the pool is now."""
        return PoolView(
            target=self._settings.size,
            ready=len(self._ready),
            failures=self._failures,
            last_error=self._last_error,
        )

    def try_take(self, shape: Shape) -> Sandbox | None:
        """Take the oldest member of this shape that can serve; None if there is none."""
        while shape == self.shape and self._ready:
            member = self._ready.popleft()
            self._changed.set()
            if member.life.stage is Stage.POOLED and member.connected:
                return member
            member.tell(EndAsked(EndReason.DISCARDED))
        return None

    def put_back(self, member: Sandbox) -> None:
        """Take a member back whose claim was refused before anything was committed."""
        self._ready.appendleft(member)
        self._changed.set()

    def try_reserve(self, sandbox: Sandbox) -> bool:
        """Keep a place for a member of an earlier run of the server, if it would do; `fill_reserved`
        follows.
        """
        record = sandbox.record
        if self._missing() <= 0 or not self.shape.fits(record) or self._age_left_s(record) <= 0:
            return False
        self._reserved += 1
        return True

    def fill_reserved(self, member: Sandbox | None) -> None:
        """Take in the member that a place was kept for; None: it cannot serve."""
        self._reserved -= 1
        if member is not None:
            self._ready.append(member)
        self._changed.set()

    def drop(self, sandbox: Sandbox) -> None:
        """A sandbox is gone; if it was a member, another will be made."""
        if sandbox in self._ready:
            self._ready.remove(sandbox)
            self._changed.set()

    @contextmanager
    def making_way(self) -> Iterator[None]:
        """While a client's sandbox is made, and for a while after, no member is started: both would be
        slow.
        """
        self._creates += 1
        try:
            yield
        finally:
            self._creates -= 1
            self._last_create_s = self._clock.monotonic_s()
            self._changed.set()

    def close(self) -> None:
        """Start no more members."""
        self._closed = True
        self._changed.set()

    async def keep_full(self) -> None:
        """Replace members that were taken, ended or grew old, until the pool is closed."""
        while not self._closed:
            self._changed.clear()
            self._discard_old()
            if self._missing() <= 0:
                await self._wait(min((self._age_left_s(one.record) for one in self._ready), default=None))
            elif self._creates or self._quiet_left_s() > 0:
                await self._wait(self._quiet_left_s() if not self._creates else None)
            else:
                await self._try_add_one()

    async def _try_add_one(self) -> None:
        try:
            member = await self._make(self.shape)
        except SkerryError as error:
            self._failures += 1
            self._last_error = error.message
            pause_s = min(FIRST_BACKOFF_S * 2 ** min(self._failures - 1, 10), LONGEST_BACKOFF_S)
            _log.warning("pool_start_failed", error=error.message, detail=error.detail, next_in_s=pause_s)
            await self._clock.sleep(pause_s)
            return
        self._failures = 0
        self._last_error = ""
        self._ready.append(member)

    def _missing(self) -> int:
        return self._settings.size - len(self._ready) - self._reserved

    def _discard_old(self) -> None:
        old = [member for member in self._ready if self._age_left_s(member.record) <= 0]
        for member in old:
            self._ready.remove(member)
            member.tell(EndAsked(EndReason.DISCARDED))

    def _age_left_s(self, record: SandboxRecord) -> float:
        return self._settings.max_age_s - (self._clock.now_ms() - record.created_at_ms) / 1000

    def _quiet_left_s(self) -> float:
        return self._last_create_s + self._settings.refill_delay_s - self._clock.monotonic_s()

    async def _wait(self, timeout_s: float | None) -> None:
        """Wait for a change, at most for a time."""
        timer = None
        if timeout_s is not None:
            timer = self._clock.call_later(max(timeout_s, 0.001), self._changed.set)
        try:
            await self._changed.wait()
        finally:
            if timer is not None:
                timer.cancel()
