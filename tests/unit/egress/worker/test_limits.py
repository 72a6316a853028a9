"""Buckets, distinct names, hits."""

import asyncio

from skerry.egress.worker.limits import DistinctPerMinute, Limits, TokenBucket
from skerry.spec.settings import EgressLimits


class Time:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def test_bucket_gives_its_burst_and_then_its_rate() -> None:
    time = Time()
    bucket = TokenBucket(20, 40, time)
    assert [bucket.take() for _ in range(41)] == [True] * 40 + [False]
    time.now_s += 0.5
    assert [bucket.take() for _ in range(11)] == [True] * 10 + [False]
    time.now_s += 1000
    assert [bucket.take() for _ in range(41)] == [True] * 40 + [False]


async def test_bucket_makes_wait_and_refuses_long_waits() -> None:
    bucket = TokenBucket(50, 1, asyncio.get_running_loop().time)
    assert await bucket.wait(1)
    assert await bucket.wait(1)
    assert not await bucket.wait(0.0)
    assert await bucket.wait(1), "a refused wait takes nothing"


def test_distinct_names_per_minute() -> None:
    time = Time()
    names = DistinctPerMinute(2, time)
    assert names.admit("rule", "a")
    assert names.admit("rule", "b")
    assert not names.admit("rule", "c")
    assert names.admit("rule", "a"), "one that was seen goes on"
    assert names.admit("other", "c")
    time.now_s += 60
    assert names.admit("rule", "c")


def test_every_hit_is_told() -> None:
    told: list[str] = []
    limits = Limits(EgressLimits(), Time(), told.append)
    limits.hit("connections")
    limits.hit("connections")
    assert told == ["connections"] * 2
