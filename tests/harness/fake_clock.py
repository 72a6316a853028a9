"""A clock that a test sets."""

import asyncio
import heapq
import itertools
from collections.abc import Callable

START_MS = 1_700_000_000_000


class _Timer:
    def __init__(self, call: Callable[[], None]) -> None:
        self.call: Callable[[], None] | None = call

    def cancel(self) -> None:
        self.call = None


class FakeClock:
    """Implements `skerry.control.clock.Clock`; time passes only by `advance` and `jump`."""

    def __init__(self) -> None:
        self._monotonic_s = 1000.0
        self._offset_ms = START_MS - 1_000_000
        self._timers: list[tuple[float, int, _Timer]] = []
        self._order = itertools.count()

    def now_ms(self) -> int:
        """See `Clock.now_ms`."""
        return round(self._monotonic_s * 1000) + self._offset_ms

    def monotonic_s(self) -> float:
        """See `Clock.monotonic_s`."""
        return self._monotonic_s

    def call_later(self, delay_s: float, call: Callable[[], None]) -> _Timer:
        """See `Clock.call_later`."""
        timer = _Timer(call)
        heapq.heappush(self._timers, (self._monotonic_s + delay_s, next(self._order), timer))
        return timer

    async def sleep(self, delay_s: float) -> None:
        """See `Clock.sleep`."""
        over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        timer = self.call_later(delay_s, lambda: None if over.done() else over.set_result(None))
        try:
            await over
        finally:
            timer.cancel()

    def pending(self) -> int:
        """Timers that are set."""
        return sum(timer.call is not None for _, _, timer in self._timers)

    def jump(self, seconds: float) -> None:
        """Set the wall clock; the monotonic one stands still, as while a machine is suspended."""
        self._offset_ms += round(seconds * 1000)

    async def advance(self, seconds: float) -> None:
        """Let time pass, timer by timer, with the event loop running in between."""
        await settle_loop()
        until_s = self._monotonic_s + seconds
        while self._timers and self._timers[0][0] <= until_s:
            at_s, _, timer = heapq.heappop(self._timers)
            self._monotonic_s = max(self._monotonic_s, at_s)
            if timer.call is not None:
                timer.call()
                await settle_loop()
        self._monotonic_s = until_s
        await settle_loop()


async def settle_loop() -> None:
    """Let everything that is ready run."""
    for _ in range(10):
        await asyncio.sleep(0)
