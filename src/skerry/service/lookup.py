"""Sandboxes by their owner: one of another owner looks exactly like one that never was."""

from skerry.control.control import Control
from skerry.control.sandbox import Sandbox
from skerry.control.store.records import SandboxRecord
from skerry.control.store.sandboxes import SandboxStore
from skerry.errors import NotFound, SandboxEnded
from skerry.lifecycle.events import Stage
from skerry.service.requests import Principal
from skerry.spec.ids import SandboxId, is_sandbox_id
from skerry.spec.sandbox import EndReason


class Lookup:
    """Finds what an owner may see."""

    def __init__(self, control: Control, store: SandboxStore) -> None:
        self._control = control
        self._store = store

    def live(self, who: Principal, sandbox_id: str) -> Sandbox | None:
        """A sandbox that runs or is ending; None for all others."""
        sandbox = self._control.find(SandboxId(sandbox_id))
        return sandbox if sandbox is not None and sandbox.record.owner == who.owner else None

    async def running(self, who: Principal, sandbox_id: str) -> Sandbox:
        """A sandbox that runs.

        Raises:
            NotFound: Code ``SANDBOX_NOT_FOUND``.
            SandboxEnded: It has ended.
        """
        sandbox = self.live(who, sandbox_id)
        if sandbox is not None and sandbox.life.reason is None:
            return sandbox
        record = sandbox.record if sandbox is not None else await self._stopped(who, sandbox_id)
        raise SandboxEnded(record.end_reason or EndReason.CRASHED)

    async def record(self, who: Principal, sandbox_id: str) -> SandboxRecord:
        """What is stored of a sandbox that runs or stopped of late.

        Raises:
            NotFound: Code ``SANDBOX_NOT_FOUND``.
        """
        sandbox = self.live(who, sandbox_id)
        return sandbox.record if sandbox is not None else await self._stopped(who, sandbox_id)

    async def _stopped(self, who: Principal, sandbox_id: str) -> SandboxRecord:
        record = await self._store.get(SandboxId(sandbox_id)) if is_sandbox_id(sandbox_id) else None
        if record is None or record.owner != who.owner or record.stage is Stage.STARTING:
            raise NotFound("The requested sandbox does not exist.", code="SANDBOX_NOT_FOUND")
        return record
