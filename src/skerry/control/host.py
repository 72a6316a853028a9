"""The host side as control sees it: asynchronous messages only, so that a host may one day be another
machine."""

from asyncio import Protocol as StreamProtocol
from collections.abc import AsyncIterator, Callable
from typing import Protocol

from skerry.protocol.host_verbs import Happening, HostDescription
from skerry.spec.ids import SandboxId
from skerry.spec.sandbox import Ended, Observed, StartSpec, Usage


class Listening(Protocol):
    """A sandbox's agent listener that is being served."""

    def close(self) -> None:
        """Stop accepting and free it; connections already accepted stay. Idempotent."""
        ...


class Host(Protocol):
    """Where sandboxes run.

    Every method has a deadline of its own. All raise `skerry.errors.TimedOut` when it passes, `HostUnusable`
    when the host side cannot be reached, and the host's own refusals (`InvalidRequest`, `NotFound`,
    `ResourceExhausted`, `RuntimeFailed`).
    """

    async def describe(self) -> HostDescription:
        """Who the host is and what it can do."""
        ...

    async def start(self, spec: StartSpec) -> None:
        """Start a sandbox; on error nothing of it is left on the host."""
        ...

    async def listen(
        self, sandbox_id: SandboxId, protocol_factory: Callable[[], StreamProtocol]
    ) -> Listening:
        """Serve the connections that the sandbox's agent makes. May come before `start`."""
        ...

    async def pause(self, sandbox_id: SandboxId) -> None:
        """Stop every task of the sandbox. Idempotent."""
        ...

    async def resume(self, sandbox_id: SandboxId) -> None:
        """Let a paused sandbox go on. Idempotent."""
        ...

    async def destroy(self, sandbox_id: SandboxId) -> Ended:
        """End the sandbox and free what it held. Idempotent."""
        ...

    async def inspect(self) -> list[Observed]:
        """Every sandbox of this instance that the host knows, ended ones included until they are
        destroyed."""
        ...

    async def stats(self, sandbox_id: SandboxId) -> Usage:
        """What the sandbox uses now."""
        ...

    def events(self) -> AsyncIterator[Happening | None]:
        """What happens on the host from now on; ends never.

        The first is None, since nobody knows what happened before.
        Yields None whenever events may have been missed (the connection to the host was lost and made again):
        the caller must `inspect`.
        """
        ...
