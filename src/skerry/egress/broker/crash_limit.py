"""When a worker that crashed may be started again. Pure: the caller brings the clock."""

from collections import deque
from dataclasses import dataclass, field

CRASHES = 5
WINDOW_S = 60.0
PAUSE_S = 30.0


@dataclass(slots=True)
class CrashLimit:
    """So many crashes within the window are put right at the next packet; after more of them a pause comes
    first."""

    _crashes_s: deque[float] = field(default_factory=deque)

    def crashed(self, now_s: float) -> float:
        """Note a crash.

        Args:
            now_s: Any monotonic clock.
        Returns:
            How long no worker may be started from now on; 0: it may.
        """
        self._crashes_s.append(now_s)
        while self._crashes_s[0] <= now_s - WINDOW_S:
            self._crashes_s.popleft()
        if len(self._crashes_s) <= CRASHES:
            return 0.0
        return PAUSE_S
