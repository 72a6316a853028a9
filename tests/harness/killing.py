"""Killing the server at a chosen moment, inside one process: from then on it reaches neither host nor
database nor agent.
"""

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest

from skerry.control.egress import Egress
from skerry.control.host import Host, Listening
from skerry.control.store.database import Database
from skerry.protocol.egress_verbs import Grant, Granted
from skerry.protocol.host_verbs import Happening, HostDescription
from skerry.spec.ids import SandboxId
from skerry.spec.sandbox import Ended, Observed, StartSpec, Usage

T = TypeVar("T")


class KillSwitch:
    """Counts the moments before and after everything that has an effect, and kills at one of them.

    Args:
        at: The moment, counted from 0; None: never.
        directory: Where the database is; it is copied as the killed server leaves it.
    """

    def __init__(self, at: int | None, directory: Path, survivor: Path) -> None:
        self._at = at
        self._directory = directory
        self._survivor = survivor
        self._on_kill: list[Callable[[], None]] = []
        self.armed = False
        self.moments: list[str] = []
        self.killed = asyncio.Event()

    def on_kill(self, act: Callable[[], None]) -> None:
        """What the kernel does when the process dies."""
        self._on_kill.append(act)

    async def around(self, name: str, effect: Callable[[], Awaitable[T]]) -> T:
        """Let something have its effect, with a moment before and one after it."""
        await self._moment(f"before {name}")
        result = await effect()
        await self._moment(f"after {name}")
        return result

    async def _moment(self, name: str) -> None:
        if self.armed and not self.killed.is_set():
            if len(self.moments) == self._at:
                self._kill()
            self.moments.append(name)
        if self.killed.is_set():
            await asyncio.Event().wait()

    def _kill(self) -> None:
        self._survivor.mkdir()
        for name in ("skerry.db", "skerry.db-wal"):
            shutil.copy(self._directory / name, self._survivor / name)
        self.killed.set()
        for act in self._on_kill:
            act()


class MortalHost:
    """A host as one run of the server sees it."""

    def __init__(self, host: Host, switch: KillSwitch) -> None:
        self._host = host
        self._switch = switch

    async def describe(self) -> HostDescription:
        """See `Host`."""
        return await self._host.describe()

    async def start(self, spec: StartSpec) -> None:
        """See `Host`."""
        await self._switch.around("start", lambda: self._host.start(spec))

    async def listen(
        self, sandbox_id: SandboxId, protocol_factory: Callable[[], asyncio.Protocol]
    ) -> Listening:
        """See `Host`."""
        connections: list[asyncio.Protocol] = []

        def factory() -> asyncio.Protocol:
            connections.append(protocol_factory())
            return connections[-1]

        listening = await self._switch.around("listen", lambda: self._host.listen(sandbox_id, factory))
        self._switch.on_kill(lambda: _cut(listening, connections))
        return listening

    async def pause(self, sandbox_id: SandboxId) -> None:
        """See `Host`."""
        await self._switch.around("pause", lambda: self._host.pause(sandbox_id))

    async def resume(self, sandbox_id: SandboxId) -> None:
        """See `Host`."""
        await self._switch.around("resume", lambda: self._host.resume(sandbox_id))

    async def destroy(self, sandbox_id: SandboxId) -> Ended:
        """See `Host`."""
        return await self._switch.around("destroy", lambda: self._host.destroy(sandbox_id))

    async def inspect(self) -> list[Observed]:
        """See `Host`."""
        return await self._host.inspect()

    async def stats(self, sandbox_id: SandboxId) -> Usage:
        """See `Host`."""
        return await self._host.stats(sandbox_id)

    async def events(self) -> AsyncIterator[Happening | None]:
        """See `Host`."""
        async for happening in self._host.events():
            if not self._switch.killed.is_set():
                yield happening


class MortalEgress:
    """A gateway as one run of the server sees it."""

    def __init__(self, egress: Egress, switch: KillSwitch) -> None:
        self._egress = egress
        self._switch = switch

    def __getattr__(self, name: str) -> Any:
        return getattr(self._egress, name)

    async def grant(self, grant: Grant) -> Granted:
        """See `Egress`."""
        return await self._switch.around("grant", lambda: self._egress.grant(grant))

    async def release(self, sandbox_id: SandboxId) -> None:
        """See `Egress`."""
        await self._switch.around("release", lambda: self._egress.release(sandbox_id))

    async def reconnected(self) -> AsyncIterator[None]:
        """See `Egress`."""
        async for _ in self._egress.reconnected():
            if not self._switch.killed.is_set():
                yield None


def _cut(listening: Listening, connections: list[asyncio.Protocol]) -> None:
    listening.close()
    for connection in connections:
        transport: Any = getattr(connection, "_transport", None)
        if transport is not None:
            transport.abort()


@contextmanager
def mortal_database(switch: KillSwitch, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make every transaction a moment to die at."""
    write = Database.write

    async def mortal(database: Database, work: Callable[[Any], Any], *, durable: bool = False) -> Any:
        return await switch.around("commit", lambda: write(database, work, durable=durable))

    with monkeypatch.context() as patch:
        patch.setattr(Database, "write", mortal)
        yield
