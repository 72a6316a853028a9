"""Time as control sees it, so that tests can set it."""

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

MAX_NAP_S = 30.0
"""How long a timer for a wall-clock time sleeps at once: the clock may be set, and a suspended machine's
monotonic clock stands still.
"""


class Timer(Protocol):
    """A call that has been put off."""

    def cancel(self) -> None:
        """Do not make the call. Idempotent."""
        ...


class Clock(Protocol):
    """What the time is, and calls at a later time."""

    def now_ms(self) -> int:
        """Milliseconds since 1970; may jump."""
        ...

    def monotonic_s(self) -> float:
        """Seconds since some fixed point; never goes back."""
        ...

    def call_later(self, delay_s: float, call: Callable[[], None]) -> Timer:
        """Make the call in the event loop after a delay."""
        ...

    async def sleep(self, delay_s: float) -> None:
        """Wait."""
        ...


class SystemClock:
    """The machine's clocks and the running event loop."""

    def now_ms(self) -> int:
        """See `Clock.now_ms`."""
        return time.time_ns() // 1_000_000

    def monotonic_s(self) -> float:
        """See `Clock.monotonic_s`."""
        return time.monotonic()

    def call_later(self, delay_s: float, call: Callable[[], None]) -> Timer:
        """See `Clock.call_later`."""
        return asyncio.get_running_loop().call_later(delay_s, call)

    async def sleep(self, delay_s: float) -> None:
        """See `Clock.sleep`."""
        await asyncio.sleep(delay_s)


class WallTimer:
    """Makes a call once the wall clock has reached a time, however the clock moves until then."""

    def __init__(self, clock: Clock, at_ms: int, call: Callable[[], None]) -> None:
        self._clock = clock
        self._at_ms = at_ms
        self._call = call
        self._nap: Timer | None = None
        self._sleep()

    def cancel(self) -> None:
        """Do not make the call. Idempotent."""
        if self._nap is not None:
            self._nap.cancel()
            self._nap = None

    def _sleep(self) -> None:
        left_s = (self._at_ms - self._clock.now_ms()) / 1000
        self._nap = self._clock.call_later(min(max(left_s, 0.0), MAX_NAP_S), self._wake)

    def _wake(self) -> None:
        if self._clock.now_ms() < self._at_ms:
            self._sleep()
            return
        self._nap = None
        self._call()
