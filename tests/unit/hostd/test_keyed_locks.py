"""One at a time per key."""

import asyncio

from skerry.hostd.keyed_locks import KeyedLocks


async def test_the_same_key_waits_and_another_does_not() -> None:
    locks, order = KeyedLocks(), []
    held, release = asyncio.Event(), asyncio.Event()

    async def first() -> None:
        async with locks.held("a"):
            held.set()
            await release.wait()
            order.append("first")

    async def second() -> None:
        async with locks.held("a"):
            order.append("second")

    async with asyncio.TaskGroup() as group:
        group.create_task(first())
        await held.wait()
        group.create_task(second())
        async with locks.held("b"):
            order.append("other")
        release.set()

    assert order == ["other", "first", "second"]


async def test_nothing_is_kept_for_keys_that_nobody_uses() -> None:
    locks = KeyedLocks()
    for number in range(3):
        async with locks.held(str(number)):
            pass

    assert not locks._locks
