"""What bounds the work of one sandbox, and how often each bound was met."""

import asyncio
from collections.abc import Callable

from skerry.egress.dns import QueryLimit
from skerry.spec.settings import EgressLimits

Clock = Callable[[], float]
"""Monotonic seconds."""


class TokenBucket:
    """Lets ``per_s`` things a second happen, and ``burst`` at once."""

    __slots__ = ("_at", "_burst", "_clock", "_per_s", "_tokens")

    def __init__(self, per_s: float, burst: int, clock: Clock) -> None:
        self._per_s = per_s
        self._burst = float(burst)
        self._clock = clock
        self._tokens = float(burst)
        self._at = clock()

    def take(self) -> bool:
        """Take one token if there is one."""
        self._refill()
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True

    async def wait(self, longest_s: float) -> bool:
        """Take one token, waiting for it; False at once when the wait would be longer than ``longest_s``.

        Whoever came first is served first. A cancelled wait has used its token.
        """
        self._refill()
        self._tokens -= 1.0
        if self._tokens >= 0.0:
            return True
        needed_s = -self._tokens / self._per_s
        if needed_s > longest_s:
            self._tokens += 1.0
            return False
        await asyncio.sleep(needed_s)
        return True

    def _refill(self) -> None:
        now = self._clock()
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._per_s)
        self._at = now


class DistinctPerMinute:
    """Counts distinct texts of a minute under a key."""

    __slots__ = ("_clock", "_most", "_seen", "_until")

    def __init__(self, most: int, clock: Clock) -> None:
        self._most = most
        self._clock = clock
        self._until = clock() + 60.0
        self._seen: dict[str, set[str]] = {}

    def admit(self, key: str, text: str) -> bool:
        """Whether the text was seen in this minute or is still among the first ``most``."""
        now = self._clock()
        if now >= self._until:
            self._until = now + 60.0
            self._seen.clear()
        seen = self._seen.setdefault(key, set())
        if text in seen:
            return True
        if len(seen) >= self._most:
            return False
        seen.add(text)
        return True


class Limits:
    """The settings, and the buckets that all connections of the sandbox share.

    Args:
        on_hit: Called each time that a bound is met, with the name of its setting.
    """

    def __init__(self, settings: EgressLimits, clock: Clock, on_hit: Callable[[str], None]) -> None:
        self.settings = settings
        self.clock = clock
        self._on_hit = on_hit
        self.tls = TokenBucket(settings.tls_per_s, settings.tls_burst, clock)
        self.queries = QueryLimit(settings.queries_per_s, now_s=clock())
        self.wildcard_names = DistinctPerMinute(settings.wildcard_names_per_min, clock)

    def hit(self, name: str) -> None:
        """A bound was met. ``name`` is that of a field of `EgressLimits`."""
        self._on_hit(name)
