"""Waiting for a condition, with a deadline."""

import asyncio
import time
from collections.abc import Awaitable, Callable

DEADLINE_S = 15.0


async def until(condition: Callable[[], object], *, what: str = "the condition") -> None:
    """Wait until a condition holds."""
    try:
        async with asyncio.timeout(DEADLINE_S):
            while not condition():  # noqa: ASYNC110 - whatever a test looks at has no event
                await asyncio.sleep(0.002)
    except TimeoutError:
        raise AssertionError(f"{what} did not come about within {DEADLINE_S:g} s") from None


def until_true(condition: Callable[[], object], *, what: str = "the condition") -> None:
    """As `until`, where there is no event loop."""
    deadline_s = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline_s, f"{what} did not come about within {DEADLINE_S:g} s"
        time.sleep(0.01)


async def until_awaited(condition: Callable[[], Awaitable[object]], *, what: str = "the condition") -> None:
    """As `until`, for a condition that must be awaited."""
    try:
        async with asyncio.timeout(DEADLINE_S):
            while not await condition():  # noqa: ASYNC110
                await asyncio.sleep(0.002)
    except TimeoutError:
        raise AssertionError(f"{what} did not come about within {DEADLINE_S:g} s") from None
