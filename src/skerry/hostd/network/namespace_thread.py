"""Work that must be done in a certain network namespace, off the event loop and in order."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from skerry.errors import TimedOut
from skerry.hostd.sys import network_namespace

_T = TypeVar("_T")


class NamespaceThread:
    """One thread that lives in a network namespace.

    Args:
        namespace: A descriptor of it, open as long as this is.
    """

    def __init__(self, namespace: int, name: str) -> None:
        self._executor = ThreadPoolExecutor(
            1, thread_name_prefix=name, initializer=network_namespace.enter, initargs=(namespace,)
        )

    def do(self, work: Callable[[], _T]) -> _T:
        """Do it and wait, standing still. For the start of hostd."""
        return self._executor.submit(work).result()

    async def run(
        self,
        phase: str,
        deadline_s: float,
        work: Callable[[], _T],
        *,
        drop: Callable[[_T], object] = lambda _: None,
    ) -> _T:
        """Do it after everything that was asked before, and wait.

        At the deadline or on cancellation only the wait ends.

        Args:
            drop: Gets a result that comes when nobody waits for it any more.

        Raises:
            TimedOut: The deadline passed.
        """
        future = self._executor.submit(work)
        try:
            async with asyncio.timeout(deadline_s):
                return await asyncio.shield(asyncio.wrap_future(future))
        except TimeoutError:
            _abandon(future, drop)
            raise TimedOut(phase, deadline_s) from None
        except asyncio.CancelledError:
            _abandon(future, drop)
            raise

    def close(self) -> None:
        """Finish what was asked, and end."""
        self._executor.shutdown(wait=True)


def _abandon(future: "Future[_T]", drop: Callable[[_T], object]) -> None:
    def settle(done: "Future[_T]") -> None:
        if not done.cancelled() and done.exception() is None:
            drop(done.result())

    if not future.cancel():
        future.add_done_callback(settle)
