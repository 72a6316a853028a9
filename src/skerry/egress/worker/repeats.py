"""Refusals that are the same: the first of a minute are told one by one, the rest as a number."""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from skerry.egress.worker.limits import Clock

TOLD_ONE_BY_ONE = 100
WINDOW_S = 60.0
MAX_KINDS = 500
"""Different kinds that are told apart in one window; all further ones count as one."""

_OTHERS = ("others",)

T = TypeVar("T")


@dataclass(slots=True)
class _Kind(Generic[T]):
    example: T
    count: int = 0


class Repeats(Generic[T]):
    """Counts kinds of things in windows of a minute."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._until = clock() + WINDOW_S
        self._kinds: dict[Hashable, _Kind[T]] = {}

    def admit(self, key: Hashable, example: T) -> bool:
        """Count one; whether it is told by itself."""
        kind = self._kinds.get(key)
        if kind is None:
            if len(self._kinds) < MAX_KINDS:
                kind = self._kinds[key] = _Kind(example)
            else:
                kind = self._kinds.setdefault(_OTHERS, _Kind(example, TOLD_ONE_BY_ONE))
        kind.count += 1
        return kind.count <= TOLD_ONE_BY_ONE

    def due(self) -> list[tuple[T, int]]:
        """When the window is over: an example of each kind that was not told one by one, and how many more
        there were. A new window begins."""
        if self._clock() < self._until:
            return []
        self._until = self._clock() + WINDOW_S
        kinds, self._kinds = self._kinds, {}
        return [
            (kind.example, kind.count - TOLD_ONE_BY_ONE)
            for kind in kinds.values()
            if kind.count > TOLD_ONE_BY_ONE
        ]
