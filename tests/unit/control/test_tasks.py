"""Who owns tasks: an error stays where it was, and the end waits for everything."""

import asyncio

import pytest

from skerry.control import tasks as tasks_module
from skerry.control.tasks import Tasks
from tests.harness.waiting import until


async def _fail() -> None:
    raise ValueError("no")


async def test_an_error_ends_only_its_own_task() -> None:
    done = asyncio.Event()

    async def work() -> None:
        await asyncio.sleep(0.01)
        done.set()

    async with Tasks() as tasks:
        tasks.start(work(), name="good")
        failed = tasks.start(_fail(), name="bad")
        await asyncio.wait_for(done.wait(), 10)
        assert failed.done()


async def test_the_end_cancels_and_waits() -> None:
    ended = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.01)
            ended.append(True)

    async with Tasks() as tasks:
        for _ in range(3):
            tasks.start(work(), name="work")
        await asyncio.sleep(0)
    assert ended == [True] * 3


async def test_the_body_may_fail_too() -> None:
    async def body() -> None:
        async with Tasks() as tasks:
            tasks.start(asyncio.Event().wait(), name="work")
            raise KeyError

    with pytest.raises(KeyError):
        await body()


async def test_nothing_is_started_at_the_end() -> None:
    async with Tasks() as tasks:
        pass
    with pytest.raises(RuntimeError, match="stopping"):
        tasks.start(_fail(), name="late")


async def test_a_task_that_never_ran_leaves_no_warning() -> None:
    async with Tasks() as tasks:
        tasks.start(asyncio.Event().wait(), name="work")


async def test_work_that_is_kept_goes_on_after_an_error_until_it_returns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tasks_module, "PAUSE_AFTER_FAILURE_S", 0.001)
    runs = []

    async def work() -> None:
        runs.append(True)
        if len(runs) < 4:
            raise ValueError("again")

    async with Tasks() as tasks:
        tasks.keep(work, name="work")
        await until(lambda: len(runs) == 4)
        await asyncio.sleep(0.01)
    assert len(runs) == 4


async def test_kept_work_that_fails_when_it_is_cancelled_does_not_hold_up_the_end() -> None:
    async def work() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise ValueError("instead") from None

    async with asyncio.timeout(10):
        async with Tasks() as tasks:
            tasks.keep(work, name="work")
            await asyncio.sleep(0)
