"""Blocking work with deadlines: who waits, who is undone."""

import asyncio
import threading
from collections.abc import Iterator

import pytest

from skerry.errors import TimedOut
from skerry.hostd.storage.blocking import THREADS, BlockingWork

PATIENCE_S = 5.0


@pytest.fixture
def work() -> Iterator[BlockingWork]:
    blocking = BlockingWork()
    yield blocking
    blocking.close()


async def test_result_and_error_come_through(work: BlockingWork) -> None:
    assert await work.run("adding", PATIENCE_S, lambda: 1 + 1) == 2
    with pytest.raises(ZeroDivisionError):
        await work.run("dividing", PATIENCE_S, lambda: 1 // 0)


async def test_deadline_ends_the_wait_and_what_succeeded_for_nobody_is_undone(work: BlockingWork) -> None:
    go_on, undone = threading.Event(), threading.Event()

    with pytest.raises(TimedOut, match="mounting"):
        await work.run("mounting", 0.01, lambda: go_on.wait(PATIENCE_S), undo=undone.set)
    assert not undone.is_set()

    go_on.set()
    assert await asyncio.to_thread(undone.wait, PATIENCE_S)


async def test_cancellation_undoes_too(work: BlockingWork) -> None:
    started, go_on, undone = threading.Event(), threading.Event(), threading.Event()

    def slow() -> None:
        started.set()
        go_on.wait(PATIENCE_S)

    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(work.run("mounting", PATIENCE_S, slow, undo=undone.set))
        assert await asyncio.to_thread(started.wait, PATIENCE_S)
        waiting.cancel()

    go_on.set()
    assert await asyncio.to_thread(undone.wait, PATIENCE_S)


async def test_work_that_failed_late_is_not_undone(work: BlockingWork) -> None:
    go_on, undone = threading.Event(), threading.Event()

    def fail() -> None:
        go_on.wait(PATIENCE_S)
        raise OSError("refused")

    with pytest.raises(TimedOut):
        await work.run("mounting", 0.01, fail, undo=undone.set)
    go_on.set()

    await work.run("waiting for the thread", PATIENCE_S, lambda: None)
    assert not undone.is_set()


async def test_work_not_begun_at_the_deadline_never_begins(work: BlockingWork) -> None:
    go_on, began = threading.Event(), threading.Event()
    async with asyncio.TaskGroup() as tasks:
        for _ in range(THREADS):
            tasks.create_task(work.run("filling the threads", PATIENCE_S, lambda: go_on.wait(PATIENCE_S)))
        await asyncio.sleep(0)
        with pytest.raises(TimedOut):
            await work.run("mounting", 0.01, began.set, undo=lambda: None)
        go_on.set()

    await work.run("waiting for the threads", PATIENCE_S, lambda: None)
    assert not began.is_set()


async def test_closed_meanwhile_still_undoes() -> None:
    work = BlockingWork()
    go_on, undone = threading.Event(), threading.Event()
    with pytest.raises(TimedOut):
        await work.run("mounting", 0.01, lambda: go_on.wait(PATIENCE_S), undo=undone.set)

    work.close()
    go_on.set()

    assert await asyncio.to_thread(undone.wait, PATIENCE_S)
