"""A running sandbox as a test sees it: the host it runs on, and the agent inside."""

import asyncio
import itertools
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import msgspec

from skerry.control.agent.client import AgentClient
from skerry.control.agent.link import AgentLink
from skerry.control.agent.output import Gap, OutputStream
from skerry.control.agent.processes import Exit
from skerry.control.host import Host, Listening
from skerry.spec.ids import SandboxId, new_sandbox_id
from skerry.spec.sandbox import Isolation, StartSpec

CONNECT_S = 10.0
RUN_S = 40.0

_epochs = itertools.count(1)


def new_id() -> SandboxId:
    """An ID that nobody has."""
    return new_sandbox_id("ord", secrets.randbelow)


def spec(isolation: Isolation, sandbox_id: SandboxId | None = None, **changes: Any) -> StartSpec:
    """What to start, small unless a field is given."""
    small = StartSpec(
        sandbox_id=sandbox_id or new_id(),
        isolation=isolation,
        image="builtin:debian-13",
        memory_mib=512,
        cpus=2.0,
        disk_mib=256,
        max_processes=256,
    )
    return msgspec.structs.replace(small, **changes)


@dataclass(frozen=True, slots=True)
class Done:
    """A program that ended."""

    exit: Exit
    stdout: str
    stderr: str


class Guest:
    """A sandbox with its agent connected."""

    def __init__(self, host: Host, sandbox_id: SandboxId, listening: Listening, link: AgentLink) -> None:
        self.host = host
        self.id = sandbox_id
        self.link = link
        self.agent = AgentClient(link)
        self._listening = listening

    @classmethod
    async def connected(cls, host: Host, sandbox_id: SandboxId) -> "Guest":
        """Serve the sandbox's listener and wait for its agent."""
        link = AgentLink(sandbox_id=sandbox_id, epoch=next(_epochs), reattach_window_ms=60_000)
        listening = await host.listen(sandbox_id, link.accept)
        return cls(host, sandbox_id, listening, link)

    @classmethod
    async def started(cls, host: Host, wanted: StartSpec) -> "Guest":
        """Start a sandbox and wait for its agent."""
        guest = await cls.connected(host, wanted.sandbox_id)
        try:
            await host.start(wanted)
            await guest.link.wait_connected(CONNECT_S)
        except BaseException:
            guest.leave()
            raise
        return guest

    async def run(self, command: str, *args: str, user: str = "app", timeout_s: float = RUN_S) -> Done:
        """Run a program to its end and take what it prints."""
        async with asyncio.timeout(timeout_s):
            process = await self.agent.spawn(command=command, args=args, user=user)  # type: ignore[arg-type]
            assert process.stdout is not None
            assert process.stderr is not None
            stdout, stderr = await asyncio.gather(_text(process.stdout), _text(process.stderr))
            return Done(await process.wait(), stdout, stderr)

    async def shell(self, script: str, *, user: str = "app", timeout_s: float = RUN_S) -> Done:
        """Run a shell script."""
        return await self.run("/bin/sh", "-c", script, user=user, timeout_s=timeout_s)

    def leave(self) -> None:
        """Close this end; the sandbox goes on."""
        self.link.close("closed")
        self._listening.close()

    async def destroy(self) -> None:
        """End the sandbox."""
        self.leave()
        await self.host.destroy(self.id)


@asynccontextmanager
async def guest_on(host: Host, isolation: Isolation, **changes: Any) -> AsyncIterator[Guest]:
    """A sandbox for the length of a block."""
    guest = await Guest.started(host, spec(isolation, **changes))
    try:
        yield guest
    finally:
        await guest.destroy()


async def _text(stream: OutputStream) -> str:
    parts: list[bytes] = []
    while (part := await stream.read()) is not None:
        parts.append(b"[gap]" if isinstance(part, Gap) else part)
    return b"".join(parts).decode(errors="replace")
