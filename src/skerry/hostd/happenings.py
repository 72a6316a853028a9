"""What happens to sandboxes, from the drivers to everyone who watches."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from skerry.protocol.host_verbs import Happening

MAX_WAITING = 4096


class Subscription:
    """One watcher's queue. Never blocks who publishes."""

    def __init__(self) -> None:
        self._waiting: asyncio.Queue[Happening] = asyncio.Queue(MAX_WAITING)
        self.overflowed = False

    async def next(self) -> Happening:
        """Wait for the next happening."""
        return await self._waiting.get()

    def put(self, happening: Happening) -> None:
        """Queue one; when there is no room it is lost and `overflowed` is set."""
        try:
            self._waiting.put_nowait(happening)
        except asyncio.QueueFull:
            self.overflowed = True


class Happenings:
    """Distributes to all present watchers; who comes later must inspect first."""

    def __init__(self) -> None:
        self._subscriptions: set[Subscription] = set()

    def publish(self, happening: Happening) -> None:
        """Tell everyone. Returns at once."""
        for subscription in self._subscriptions:
            subscription.put(happening)

    @contextmanager
    def subscribed(self) -> Iterator[Subscription]:
        """Get everything from now on."""
        subscription = Subscription()
        self._subscriptions.add(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions.discard(subscription)
