"""When to tell that a sandbox's memory is almost used up. Pure.

The kernel's events come for page cache too, and often; so each is only a reason to look at what the sandbox
holds for itself.
"""

from dataclasses import dataclass

REPEAT_S = 0.5
"""Time for the agent to act before it is told again."""

LOOK_AGAIN_S = 0.1
"""While above the threshold no further event may come, so look by the clock."""


@dataclass(slots=True)
class PressureGauge:
    """Decides from looks at one sandbox.

    Attributes:
        threshold_bytes: Holding this much is too much.
    """

    threshold_bytes: int
    _told_at_s: float | None = None

    def look(self, held_bytes: int, now_s: float) -> tuple[bool, float | None]:
        """Judge a measurement.

        Returns:
            Whether to tell now, and in how many seconds to look again without an event (None: not at all).
        """
        if held_bytes < self.threshold_bytes:
            self._told_at_s = None
            return False, None
        if self._told_at_s is not None and now_s - self._told_at_s < REPEAT_S:
            return False, LOOK_AGAIN_S
        self._told_at_s = now_s
        return True, LOOK_AGAIN_S
