"""Samples and what is said about them."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(slots=True)
class Samples:
    """Durations of one repeated action, in seconds."""

    values_s: list[float] = field(default_factory=list)

    def add(self, seconds: float) -> None:
        """Record one duration."""
        self.values_s.append(seconds)

    def quantile_ms(self, q: float) -> float:
        """The q-quantile (0 … 1) in milliseconds, nearest rank; NaN without samples."""
        if not self.values_s:
            return math.nan
        ordered = sorted(self.values_s)
        return ordered[min(len(ordered) - 1, math.ceil(q * len(ordered)) - 1 if q > 0 else 0)] * 1e3

    @property
    def p50_ms(self) -> float:
        """Median in milliseconds."""
        return self.quantile_ms(0.5)

    @property
    def p99_ms(self) -> float:
        """99th percentile in milliseconds (the largest, below 100 samples)."""
        return self.quantile_ms(0.99)


def sample(action: Callable[[], object], *, times: int, pause_s: float = 0.0) -> Samples:
    """Time ``action`` again and again, one at a time.

    Args:
        times: How often, after one run that does not count.
        pause_s: Rest before each run, so that what is made ahead (the warm pool) can be made.
    """
    action()
    samples = Samples()
    for _ in range(times):
        time.sleep(pause_s)
        started = time.perf_counter()
        action()
        samples.add(time.perf_counter() - started)
    return samples
