"""Tasks of a daemon that no single caller waits for."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar

_T = TypeVar("_T")


class Background(ABC):
    """Owns tasks; at the end all are cancelled and waited for. An exception ends only its own task and is
    logged, as the daemon says by `failed`.
    """

    def __init__(self) -> None:
        self._group = asyncio.TaskGroup()
        self._tasks: set[asyncio.Task[Any]] = set()

    @abstractmethod
    def failed(self, name: str, error: Exception) -> None:
        """Log an exception that has ended a task; called while it is being handled."""

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await self._group.__aexit__(None, None, None)

    def start(self, work: Coroutine[Any, Any, object], *, name: str) -> "asyncio.Task[None]":
        """Run work that nobody need wait for."""
        return self._kept(self._group.create_task(self._guarded(work, name), name=name), work)

    def begin(
        self, work: Coroutine[Any, Any, _T], *, name: str
    ) -> "asyncio.Task[tuple[_T | None, Exception | None]]":
        """Run work whose result, or exception, is read from the task; its failure ends nothing else."""
        return self._kept(self._group.create_task(_caught(work), name=name), work)

    def _kept(self, task: "asyncio.Task[_T]", work: Coroutine[Any, Any, object]) -> "asyncio.Task[_T]":
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: work.close())  # a task that is cancelled at once never begins it
        return task

    async def _guarded(self, work: Coroutine[Any, Any, object], name: str) -> None:
        try:
            await work
        except Exception as error:
            self.failed(name, error)


async def _caught(work: Coroutine[Any, Any, _T]) -> tuple[_T | None, Exception | None]:
    try:
        return await work, None
    except Exception as error:
        return None, error
