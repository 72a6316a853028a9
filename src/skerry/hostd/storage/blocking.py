"""System calls that may take long, off the event loop: few threads, and a deadline on every wait."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from skerry.errors import TimedOut

_T = TypeVar("_T")

THREADS = 4
"""More would not help: mounts take global locks, and a burst of creates waits for CPU, not for these."""


class BlockingWork:
    """A bounded pool of threads, owned by the store."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="storage")

    async def run(
        self,
        phase: str,
        deadline_s: float,
        work: Callable[[], _T],
        *,
        undo: Callable[[], object] | None = None,
    ) -> _T:
        """Run a function in a thread and wait for it.

        A thread cannot be stopped: at the deadline or on cancellation only the wait ends. The function goes
        on to its end; if it then succeeds for nobody, ``undo`` is run after it.

        Raises:
            TimedOut: The deadline passed.
        """
        future = self._threads.submit(work)
        try:
            async with asyncio.timeout(deadline_s):
                return await asyncio.shield(asyncio.wrap_future(future))
        except TimeoutError as error:
            self._abandon(future, undo)
            raise TimedOut(phase, deadline_s) from error
        except asyncio.CancelledError:
            self._abandon(future, undo)
            raise

    def close(self) -> None:
        """Take no more work; what runs goes on to its end."""
        self._threads.shutdown(wait=False)

    def _abandon(self, future: Future[_T], undo: Callable[[], object] | None) -> None:
        if undo is None:
            return

        def settle(done: Future[_T]) -> None:
            if done.cancelled() or done.exception() is not None:
                return
            try:
                self._threads.submit(undo)
            except RuntimeError:  # closed meanwhile
                undo()

        if not future.cancel():
            future.add_done_callback(settle)
