"""The contract of an isolation driver. Nothing here, and nothing that uses it, may know how a driver
isolates.

A driver finds everything out from the kernel and the runtime directory: what it makes has names derived from
the sandbox's ID, so `recover` needs no database, and `destroy` cleans up after any interrupted step. One
suite, ``tests/contract``, runs against every driver.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from skerry.protocol.host_verbs import Happening
from skerry.spec.ids import SandboxId
from skerry.spec.sandbox import DriverReport, Ended, Isolation, Observed, StartSpec, Usage

Sink = Callable[[Happening], None]
"""Takes what happens to sandboxes; called on the event loop, returns at once."""


@dataclass(frozen=True, slots=True)
class AgentEndpoint:
    """The host's end of the agent channel. It listens already, and goes on when hostd dies.

    Attributes:
        directory: Holds only the socket; the guest may see it, read-only.
        socket: A unix stream socket; the agent, or the virtual device that stands for it, connects to it.
    """

    directory: Path
    socket: Path


class Roots(Protocol):
    """Writable roots of sandboxes. Implemented by `skerry.hostd.storage`."""

    async def prepare(self, sandbox_id: SandboxId, image_path: Path, disk_mib: int) -> Path:
        """Make a writable root from an image; returns its directory. On failure nothing is left."""
        ...

    async def release(self, sandbox_id: SandboxId) -> None:
        """Free it and all that was written. Idempotent."""
        ...

    async def present(self) -> list[SandboxId]:
        """The roots that exist."""
        ...

    async def usage(self, sandbox_id: SandboxId) -> int:
        """Bytes that the sandbox has written."""
        ...


class Networks(Protocol):
    """Networks of sandboxes whose driver has `Capability.OWN_NETWORK`. Implemented by `skerry.hostd.network`.

    A sandbox's network is a network namespace (`Places.network`) in which there are ``lo`` and ``eth0``, up,
    with an address and a default route. Whatever is sent there arrives at the gateway, and nowhere else,
    whoever sends it.
    """

    async def make(self, sandbox_id: SandboxId) -> None:
        """Make it. On failure parts may be left, for `remove`.

        Raises:
            ResourceExhausted: There are too many.
            RuntimeFailed, TimedOut: It cannot be made.
        """
        ...

    async def remove(self, sandbox_id: SandboxId) -> None:
        """Take it away, after the last process in it has ended. Idempotent.

        Raises:
            RuntimeFailed, TimedOut: It could not be; the call can be repeated.
        """
        ...

    def present(self) -> list[SandboxId]:
        """Sandboxes of which anything of a network is there."""
        ...


class Driver(Protocol):
    """Runs sandboxes with one kind of isolation.

    Calls about the same sandbox come one after another; `destroy` may come after anything. Every method has a
    deadline of its own and raises `skerry.errors` only.
    """

    @property
    def isolation(self) -> Isolation:
        """What it is."""
        ...

    async def probe(self) -> DriverReport:
        """Find out whether it can work here, and if not, why and what to do. Quick; changes nothing."""
        ...

    async def recover(self) -> list[Observed]:
        """Find every sandbox of this instance and watch it from now on; remove what an interrupted start
        left. Called once, before all others but `probe`.

        Returns:
            Those that run, and those that ended meanwhile with how they ended.
        """
        ...

    async def start(self, spec: StartSpec, endpoint: AgentEndpoint) -> None:
        """Start a sandbox whose agent dials the endpoint. It does not wait for the agent.

        Raises:
            Conflict: There is such a sandbox.
            RuntimeFailed: It did not work; nothing of it is left.
        Cancellation undoes all before it propagates.
        """
        ...

    async def observe(self) -> list[Observed]:
        """Every sandbox of this instance, ended ones included until they are destroyed."""
        ...

    async def stats(self, sandbox_id: SandboxId) -> Usage:
        """What a sandbox uses now.

        Raises:
            NotFound: There is no such sandbox.
        """
        ...

    async def destroy(self, sandbox_id: SandboxId) -> Ended:
        """End a sandbox, if it runs, and free all that it held. Idempotent: for an unknown one ``Ended(None,
        False)``.

        Raises:
            RuntimeFailed, TimedOut: Something could not be freed; the call can be repeated.
        """
        ...

    async def close(self) -> None:
        """Stop watching; sandboxes go on."""
        ...


@runtime_checkable
class Pausing(Protocol):
    """Drivers with `Capability.PAUSE`."""

    async def pause(self, sandbox_id: SandboxId) -> None:
        """Stop every task; it then uses no CPU. Idempotent.

        Raises:
            NotFound: There is no such sandbox.
            TimedOut: Some task did not stop; all go on.
        """
        ...

    async def resume(self, sandbox_id: SandboxId) -> None:
        """Let every task go on. Idempotent.

        Raises:
            NotFound: There is no such sandbox.
        """
        ...
