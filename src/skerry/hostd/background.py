"""Tasks of hostd that no single caller waits for."""

import asyncio
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar

import structlog

_T = TypeVar("_T")
_log = structlog.get_logger("skerry.hostd")


class Background:
    """Owns tasks; at the end all are cancelled and waited for. An exception ends only its own task and is
    logged.
    """

    def __init__(self) -> None:
        self._group = asyncio.TaskGroup()
        self._tasks: set[asyncio.Task[Any]] = set()

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await self._group.__aexit__(None, None, None)

    def start(self, work: Coroutine[Any, Any, object], *, name: str) -> None:
        """Run work that nobody waits for."""
        self._keep(self._group.create_task(_guarded(work, name), name=name), work)

    def begin(
        self, work: Coroutine[Any, Any, _T], *, name: str
    ) -> "asyncio.Task[tuple[_T | None, Exception | None]]":
        """Run work whose result, or exception, is read from the task; its failure ends nothing else."""
        task = self._group.create_task(_caught(work), name=name)
        self._keep(task, work)
        return task

    def _keep(self, task: "asyncio.Task[Any]", work: Coroutine[Any, Any, object]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: work.close())  # a task that is cancelled at once never begins it


async def _guarded(work: Coroutine[Any, Any, object], name: str) -> None:
    try:
        await work
    except Exception as error:
        _log.error(
            "task_failed", task=name, error=repr(error), detail=getattr(error, "detail", ""), exc_info=True
        )


async def _caught(work: Coroutine[Any, Any, _T]) -> tuple[_T | None, Exception | None]:
    try:
        return await work, None
    except Exception as error:
        return None, error
