"""Who owns the tasks of control."""

import asyncio
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Self

import structlog

_log = structlog.get_logger("skerry.control")


class Tasks:
    """Tasks that live as long as the server; all are cancelled and waited for at the end.

    An exception ends only its own task and is logged: one sandbox's trouble must not become another's.
    """

    def __init__(self) -> None:
        self._group = asyncio.TaskGroup()
        self._running: set[asyncio.Task[None]] = set()
        self._closing = False

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing = True
        for task in self._running:
            task.cancel()
        await self._group.__aexit__(None, None, None)

    def start(self, work: Coroutine[Any, Any, object], *, name: str) -> "asyncio.Task[None]":
        """Run work beside everything else.

        Raises:
            RuntimeError: The server is stopping; the work was not begun.
        """
        if self._closing:
            work.close()
            raise RuntimeError("the server is stopping")
        task = self._group.create_task(_guarded(work, name), name=name)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        # A task that is cancelled before its first step would leave the work as a coroutine that was never
        # awaited.
        task.add_done_callback(lambda _: work.close())
        return task


async def _guarded(work: Coroutine[Any, Any, object], name: str) -> None:
    try:
        await work
    except Exception as error:
        _log.error(
            "task_failed", task=name, error=repr(error), detail=getattr(error, "detail", ""), exc_info=True
        )
