"""Tasks that nobody waits for."""

import asyncio
import inspect

import pytest

from skerry.hostd.background import Background


async def test_a_failure_ends_only_its_own_task_and_is_logged(capsys: pytest.CaptureFixture[str]) -> None:
    go_on = asyncio.Event()

    async def fails() -> None:
        raise ValueError("broken")

    async def works() -> None:
        go_on.set()

    async with Background() as background:
        background.start(fails(), name="the-failing-one")
        background.start(works(), name="other")
        await go_on.wait()

    assert "the-failing-one" in capsys.readouterr().out


async def test_the_end_cancels_what_runs_and_waits_for_it() -> None:
    begun, cleaned = asyncio.Event(), []

    async def endless() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.append(True)

    async with Background() as background:
        background.start(endless(), name="endless")
        await begun.wait()

    assert cleaned == [True]


async def test_work_that_is_cancelled_before_it_began_is_closed() -> None:
    async def never() -> None:
        raise AssertionError

    work = never()
    async with Background() as background:
        background.start(work, name="never")

    # So that there is no warning that it was never awaited.
    assert inspect.getcoroutinestate(work) == inspect.CORO_CLOSED


async def test_the_result_or_the_exception_is_read_from_the_task() -> None:
    async def seven() -> int:
        return 7

    async def fails() -> None:
        raise ValueError("broken")

    async with Background() as background:
        good = background.begin(seven(), name="good")
        bad = background.begin(fails(), name="bad")
        await asyncio.wait([good, bad])

    assert good.result() == (7, None)
    assert isinstance(bad.result()[1], ValueError)
