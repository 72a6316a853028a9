"""Everything that runs sandboxes, put together: registry, creation, pool, recovery, news from the host."""

import asyncio

import structlog

from skerry.control.create import Creator
from skerry.control.egress_recovery import EgressRecovery
from skerry.control.ground import Ground
from skerry.control.pool import Pool, PoolView
from skerry.control.recovery import Recovery
from skerry.control.sandbox import Sandbox
from skerry.control.steps import Order, Shape
from skerry.control.store.records import PolicyRef
from skerry.errors import SkerryError, TimedOut
from skerry.lifecycle.events import EndAsked, HostEnded, Stage
from skerry.protocol.host_verbs import Happening, HostDescription, MemoryPressure, SandboxExited
from skerry.spec.ids import SandboxId
from skerry.spec.sandbox import EndReason

_log = structlog.get_logger("skerry.control")

HOUSEKEEPING_S = 60.0
KEEP_STOPPED_MS = 24 * 3600 * 1000
KEEP_STOPPED = 1000
END_TIMEOUT_S = 9.0
"""The official JavaScript SDK gives a kill 10 s."""

POLICY_TIMEOUT_S = 10.0
"""Longest wait until running sandboxes go by a policy that was set; the rest follow later."""

END_ALL_TIMEOUT_S = 60.0
"""A thousand sandboxes at some 20 ms each, and time for a host that is slow."""


class Control:
    """The sandboxes of one server."""

    def __init__(self, ground: Ground, description: HostDescription, shape: Shape | None) -> None:
        self._ground = ground
        self._registry: dict[SandboxId, Sandbox] = {}
        self._recovery = Recovery(ground, self._registry, on_gone=self._gone)
        self._egress = EgressRecovery(ground, self._registry)
        self._audit_is_due = True
        self._creator = Creator(ground, self._registry, boot_id=description.boot_id, on_gone=self._gone)
        self._pool: Pool | None = None
        if shape is not None and ground.settings.pool.size > 0:
            self._pool = Pool(ground.settings.pool, shape, ground.clock, make=self._creator.make_member)
        self._comparing = asyncio.Lock()
        self._comparison_is_due = False
        self.description = description

    async def start(self) -> None:
        """Recover what an earlier run left, then keep watch.

        Raises:
            SkerryError: Host or database do not answer.
        """
        await self._recovery.at_start(self._pool, boot_id=self.description.boot_id)
        tasks = self._ground.tasks
        tasks.keep(self._watch, name="host-events")
        tasks.keep(self._watch_egress, name="egress-connection")
        tasks.keep(self._keep_house, name="housekeeping")
        if self._pool is not None:
            tasks.keep(self._pool.keep_full, name="pool")

    async def create(self, order: Order) -> Sandbox:
        """See `Creator.create`."""
        return await self._creator.create(order, self._pool)

    def find(self, sandbox_id: SandboxId) -> Sandbox | None:
        """A sandbox that its client has, running or ending; None for all others."""
        sandbox = self._registry.get(sandbox_id)
        if sandbox is None or sandbox.record.owner is None or sandbox.life.stage is Stage.STARTING:
            return None
        return sandbox

    async def end(self, sandbox: Sandbox, reason: EndReason) -> None:
        """End a sandbox and wait until nothing is left of it.

        Raises:
            TimedOut: The host has not freed it in time; it goes on trying.
        """
        sandbox.tell(EndAsked(reason))
        try:
            async with asyncio.timeout(END_TIMEOUT_S):
                await asyncio.shield(sandbox.gone)
        except TimeoutError:
            raise TimedOut("ending the sandbox", END_TIMEOUT_S) from None

    async def end_all(self, reason: EndReason) -> None:
        """End every sandbox, pool members too, and make no more.

        Raises:
            TimedOut: Some are left; the next start of the server ends them.
        """
        self._creator.close()
        if self._pool is not None:
            self._pool.close()
        sandboxes = list(self._registry.values())
        for sandbox in sandboxes:
            sandbox.tell(EndAsked(reason))
        if sandboxes:
            await asyncio.wait([sandbox.gone for sandbox in sandboxes], timeout=END_ALL_TIMEOUT_S)
        left = sum(not sandbox.gone.done() for sandbox in sandboxes)
        if left:
            raise TimedOut(f"ending all sandboxes ({left} are left)", END_ALL_TIMEOUT_S)

    async def policy_changed(self, ref: PolicyRef, version: int) -> int:
        """A policy was set: tell the gateway of every running sandbox that goes by it; says how many do."""
        return await self._egress.policy_changed(ref, version, timeout_s=POLICY_TIMEOUT_S)

    def pool_view(self) -> PoolView:
        """How the pool is."""
        if self._pool is None:
            return PoolView(target=0, ready=0, failures=0, last_error="")
        return self._pool.view()

    def running(self) -> int:
        """Sandboxes that clients have now."""
        return sum(one.life.stage is Stage.RUNNING for one in self._registry.values())

    def _gone(self, sandbox: Sandbox) -> None:
        self._registry.pop(sandbox.sandbox_id, None)
        if self._pool is not None:
            self._pool.drop(sandbox)

    async def _watch(self) -> None:
        async for happening in self._ground.host.events():
            if happening is not None:
                self._heard(happening)
            elif not self._comparison_is_due:
                # Beside this task: what happens meanwhile must not wait for it.
                self._comparison_is_due = True
                self._ground.tasks.start(self._look_again(), name="comparison")

    def _heard(self, happening: Happening) -> None:
        sandbox = self._registry.get(happening.sandbox_id)
        if sandbox is None:
            return
        match happening:
            case SandboxExited(ended=ended):
                sandbox.tell(HostEnded(exit_code=ended.exit_code, oom=ended.oom))
            case MemoryPressure():
                sandbox.reclaim()

    async def _look_again(self) -> None:
        """The host may be another process now, which can do other things."""
        async with self._comparing:
            self._comparison_is_due = False
            try:
                self.description = await self._ground.host.describe()
            except SkerryError as error:
                _log.warning("host_silent", error=error.message, detail=error.detail)
        await self._compare()

    async def _watch_egress(self) -> None:
        """Compare whenever another egressd may answer; the first time at the start of the server."""
        async for _ in self._ground.egress.reconnected():
            await self._compare_egress()

    async def _compare_egress(self) -> None:
        try:
            await self._egress.compare()
        except SkerryError as error:
            _log.warning("egress_comparison_failed", error=error.message, detail=error.detail)

    async def _compare(self) -> None:
        async with self._comparing:
            try:
                await self._recovery.while_running()
            except SkerryError as error:
                _log.warning("comparison_failed", error=error.message, detail=error.detail)

    async def _keep_house(self) -> None:
        """Forget sandboxes that stopped long ago, and take up what could not be completed."""
        while True:
            try:
                await self._forget_old()
            except SkerryError as error:
                _log.warning("pruning_failed", error=error.message, detail=error.detail)
            await self._ground.clock.sleep(HOUSEKEEPING_S)
            await self._compare()
            await self._compare_egress()

    async def _forget_old(self) -> None:
        """Records first; then the audit trails of what has none any more."""
        store, before_ms = self._ground.store, self._ground.clock.now_ms() - KEEP_STOPPED_MS
        if await store.prune(before_ms=before_ms, keep=KEEP_STOPPED):
            self._audit_is_due = True
        if self._audit_is_due:
            await self._ground.egress.forget_audit(await store.known())
            self._audit_is_due = False
