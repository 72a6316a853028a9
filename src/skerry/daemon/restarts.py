"""When to start a daemon again that died, and when to give up. Pure: the caller brings the clock."""

from collections import deque
from dataclasses import dataclass, field

FIRST_DELAY_S = 0.05
MAX_DELAY_S = 5.0
LIMIT = 6
WINDOW_S = 60.0


@dataclass(slots=True)
class RestartPolicy:
    """Delays double while deaths follow each other; more than `LIMIT` within `WINDOW_S` mean giving up."""

    _deaths_s: deque[float] = field(default_factory=deque)

    def died(self, now_s: float) -> float | None:
        """Note a death.

        Args:
            now_s: Any monotonic clock.
        Returns:
            Seconds to wait before the next start; None: give up.
        """
        self._deaths_s.append(now_s)
        while self._deaths_s[0] < now_s - WINDOW_S:
            self._deaths_s.popleft()
        count = len(self._deaths_s)
        if count > LIMIT:
            return None
        return float(min(MAX_DELAY_S, FIRST_DELAY_S * 2 ** (count - 1)))
