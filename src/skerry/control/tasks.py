"""Who owns the tasks of control."""

import asyncio
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Self

import structlog

_log = structlog.get_logger("skerry.control")

PAUSE_AFTER_FAILURE_S = 1.0


class Tasks:
    """Tasks that live as long as the server; all are cancelled and waited for at the end.

    An exception ends only its own task and is logged: one sandbox's trouble must not become another's.

    Attributes:
        closing: The end has begun; nothing can be started any more.
    """

    def __init__(self) -> None:
        self._group = asyncio.TaskGroup()
        self._running: set[asyncio.Task[None]] = set()
        self.closing = False

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.closing = True
        for task in self._running:
            task.cancel()
        await self._group.__aexit__(None, None, None)

    def start(self, work: Coroutine[Any, Any, object], *, name: str) -> "asyncio.Task[None]":
        """Run work beside everything else.

        Raises:
            RuntimeError: The server is stopping; the work was not begun.
        """
        if self.closing:
            work.close()
            raise RuntimeError("the server is stopping")
        task = self._group.create_task(_guarded(work, name), name=name)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        # A task that is cancelled before its first step would leave the work as a coroutine that was never
        # awaited.
        task.add_done_callback(lambda _: work.close())
        return task

    def keep(self, work: Callable[[], Coroutine[Any, Any, None]], *, name: str) -> None:
        """Run work that should go on until it returns by itself; an unexpected error only interrupts it."""
        self.start(self._again_and_again(work, name), name=name)

    async def _again_and_again(self, work: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
        while not self.closing:
            try:
                await work()
            except Exception as error:
                _log.error("task_interrupted", task=name, error=repr(error), exc_info=True)
                await asyncio.sleep(PAUSE_AFTER_FAILURE_S)
            else:
                return


async def _guarded(work: Coroutine[Any, Any, object], name: str) -> None:
    try:
        await work
    except Exception as error:
        _log.error(
            "task_failed", task=name, error=repr(error), detail=getattr(error, "detail", ""), exc_info=True
        )
