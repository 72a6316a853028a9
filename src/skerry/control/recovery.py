"""The start of the server: what was wanted is compared with what is there, and both are made to agree."""

import asyncio
from collections.abc import Callable

import structlog

from skerry.control.ground import Ground
from skerry.control.pool import Pool
from skerry.control.sandbox import Sandbox
from skerry.control.store.records import SandboxRecord
from skerry.errors import SandboxEnded, SkerryError
from skerry.lifecycle.events import Adopted, EndAsked, Stage
from skerry.lifecycle.reconcile import Action, Decision, Recorded, plan_running, plan_start
from skerry.spec.ids import SandboxId
from skerry.spec.sandbox import EndReason, Phase

_log = structlog.get_logger("skerry.control")

PARALLEL = 16
"""Sandboxes that are taken care of at once."""

HELLO_TIMEOUT_S = 5.0
"""An agent dials every 20 ms, so that a longer silence means that it is gone, or that the host is not
there.
"""

ADOPT_ATTEMPTS = 60


_SERVED = (Stage.POOLED, Stage.RUNNING)


class Recovery:
    """Carries out what `skerry.lifecycle.reconcile` decides.

    Args:
        registry: Filled with every sandbox that goes on or is being ended.
    """

    def __init__(
        self, ground: Ground, registry: dict[SandboxId, Sandbox], *, on_gone: Callable[[Sandbox], None]
    ) -> None:
        self._ground = ground
        self._registry = registry
        self._on_gone = on_gone

    async def at_start(self, pool: Pool | None, *, boot_id: str) -> None:
        """Adopt, report, finish and sweep. Pool members are looked after in the background, since they must
        be thawed.

        Raises:
            SkerryError: Host or database do not answer; nothing was decided.
        """
        observed = await self._ground.host.inspect()
        records = {record.sandbox_id: record for record in await self._ground.store.active()}
        recorded = [Recorded(one.sandbox_id, one.stage, one.boot_id) for one in records.values()]
        plan = plan_start(recorded, observed, boot_id=boot_id)
        _log.info("recovery", records=len(records), observed=len(observed))
        turn = asyncio.Semaphore(PARALLEL)

        async def take(decision: Decision) -> None:
            async with turn:
                await self._carry_out(decision, records.get(decision.sandbox_id), pool)

        async with asyncio.TaskGroup() as group:
            for decision in plan:
                group.create_task(take(decision))

    async def while_running(self) -> None:
        """Look again, because news may have been missed; take up ends that were not completed.

        Raises:
            SkerryError: Host or database do not answer.
        """
        served = [one.sandbox_id for one in self._registry.values() if one.life.stage in _SERVED]
        observed = await self._ground.host.inspect()
        known = {one.sandbox_id for one in await self._ground.store.active()} | self._registry.keys()
        for decision in plan_running(served, known, observed):
            sandbox = self._registry.get(decision.sandbox_id)
            if decision.action is Action.SWEEP:
                await self._sweep(decision.sandbox_id)
            elif sandbox is not None and decision.event is not None:
                sandbox.tell(decision.event)
        frozen = {one.sandbox_id for one in observed if one.phase is Phase.FROZEN}
        for sandbox in list(self._registry.values()):
            sandbox.finish()
            if sandbox.life.stage is Stage.RUNNING:
                await self._serve(sandbox, frozen=sandbox.sandbox_id in frozen)

    async def _carry_out(self, decision: Decision, record: SandboxRecord | None, pool: Pool | None) -> None:
        _log.info("recovering", sandbox=decision.sandbox_id, action=decision.action.value)
        if record is None:
            await self._sweep(decision.sandbox_id)
            return
        sandbox = Sandbox(record, self._ground, on_gone=self._on_gone)
        self._registry[sandbox.sandbox_id] = sandbox
        match decision.action:
            case Action.ADOPT:
                await self._adopt(sandbox, frozen=decision.frozen)
            case Action.REVIVE if pool is not None and pool.try_reserve(sandbox):
                self._ground.tasks.start(self._revive(sandbox, pool), name=f"revive {sandbox.sandbox_id}")
            case Action.REVIVE:
                sandbox.tell(EndAsked(EndReason.DISCARDED))
            case Action.REPORT if decision.event is not None:
                sandbox.tell(decision.event)
            case _ if sandbox.life.stage is Stage.STARTING:
                sandbox.tell(EndAsked(EndReason.START_FAILED))
            case _:
                sandbox.finish()

    async def _adopt(self, sandbox: Sandbox, *, frozen: bool) -> None:
        """Serve a running sandbox again. If the host went away just now, it is served when the host is
        back.
        """
        sandbox.tell(Adopted())
        await self._serve(sandbox, frozen=frozen)
        self._ground.tasks.start(_learn_processes(sandbox), name=f"adopt {sandbox.sandbox_id}")

    async def _serve(self, sandbox: Sandbox, *, frozen: bool) -> None:
        """Accept its agent's connections and let it run; what fails is tried again at the next comparison."""
        try:
            if not sandbox.linked:
                await sandbox.open_link()
            if frozen:
                await self._ground.host.resume(sandbox.sandbox_id)
        except SkerryError as error:
            _log.warning(
                "serving_put_off", sandbox=sandbox.sandbox_id, error=error.message, detail=error.detail
            )

    async def _revive(self, sandbox: Sandbox, pool: Pool) -> None:
        """Thaw a pool member until it has said hello to this server, and freeze it again."""
        revived: Sandbox | None = None
        try:
            await sandbox.open_link()
            await self._ground.host.resume(sandbox.sandbox_id)
            await sandbox.wait_connected(HELLO_TIMEOUT_S)
            await self._ground.host.pause(sandbox.sandbox_id)
            revived = sandbox
        except SkerryError:
            sandbox.tell(EndAsked(EndReason.DISCARDED))
        finally:
            pool.fill_reserved(revived)

    async def _sweep(self, sandbox_id: SandboxId) -> None:
        """Free what no record wants; what fails now is tried again at the next comparison."""
        try:
            await self._ground.host.destroy(sandbox_id)
        except SkerryError as error:
            _log.error("sweep_failed", sandbox=sandbox_id, error=error.message, detail=error.detail)


async def _learn_processes(sandbox: Sandbox) -> None:
    """Once its agent has dialled, learn which processes go on."""
    for _ in range(ADOPT_ATTEMPTS):
        try:
            await sandbox.wait_connected(HELLO_TIMEOUT_S)
            await sandbox.agent.adopt()
        except SandboxEnded:
            return
        except SkerryError as error:
            _log.warning("agent_silent", sandbox=sandbox.sandbox_id, error=error.message)
        else:
            return
