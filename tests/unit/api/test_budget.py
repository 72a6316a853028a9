"""The memory that all connections share: counted, refused, waited for."""

import asyncio

import pytest

from skerry.api.deno import budget
from skerry.api.deno.budget import MemoryBudget
from skerry.errors import ResourceExhausted


def test_what_does_not_fit_is_refused_and_counts_nothing() -> None:
    memory = MemoryBudget(100)
    assert memory.try_take(60)
    assert not memory.try_take(41)
    assert memory.used_bytes == 60
    memory.give(60)
    assert memory.try_take(100)


async def test_who_waits_gets_room_in_order() -> None:
    memory = MemoryBudget(100)
    order: list[int] = []

    async def user(number: int, count: int) -> None:
        async with memory.hold(count):
            order.append(number)
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        for number, count in enumerate((100, 90, 5, 100)):
            group.create_task(user(number, count))
    assert order == [0, 1, 2, 3]
    assert memory.used_bytes == 0


async def test_waiting_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "WAIT_S", 0.01)
    memory = MemoryBudget(10)
    assert memory.try_take(10)
    with pytest.raises(ResourceExhausted):
        async with memory.hold(1):
            pytest.fail("there was no room")
    memory.give(10)
    assert memory.used_bytes == 0


async def test_more_than_there_is_in_all_is_refused_at_once() -> None:
    memory = MemoryBudget(10)
    with pytest.raises(ResourceExhausted):
        async with memory.hold(11):
            pytest.fail("there was no room")


async def test_one_who_gives_up_waiting_takes_nothing_and_blocks_nobody() -> None:
    memory = MemoryBudget(10)
    assert memory.try_take(10)

    async def hold(count: int) -> None:
        async with memory.hold(count):
            pass

    async with asyncio.TaskGroup() as group:
        first = group.create_task(hold(10))
        second = group.create_task(hold(1))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.sleep(0)
        memory.give(5)
        await asyncio.wait_for(second, 5)
    assert memory.used_bytes == 5
