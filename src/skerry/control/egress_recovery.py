"""The outbound gateway and the records are made to agree: at the start of the server, after a restart of
egressd, and now and then.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable

import structlog

from skerry.control.ground import Ground
from skerry.control.sandbox import Sandbox
from skerry.control.store.records import PolicyRef
from skerry.errors import SandboxEnded, SkerryError
from skerry.lifecycle.events import Stage
from skerry.spec.ids import SandboxId

_log = structlog.get_logger("skerry.control")

PARALLEL = 16
"""Sandboxes that are taken care of at once."""


class EgressRecovery:
    """Grants again what egressd has lost, releases what nobody wants, tells it what changed meanwhile.

    Args:
        registry: Every sandbox that goes on or is being ended.
    """

    def __init__(self, ground: Ground, registry: dict[SandboxId, Sandbox]) -> None:
        self._ground = ground
        self._registry = registry
        self._comparing = asyncio.Lock()

    async def compare(self) -> None:
        """Look at everything. What fails for one sandbox is logged and tried again next time.

        Raises:
            SkerryError: egressd or the database do not answer; nothing was decided.
        """
        async with self._comparing:
            expected = [one for one in self._registry.values() if one.outbound.served and _goes_on(one)]
            described = await self._ground.egress.describe()
            served = {one.sandbox_id for one in described.sandboxes}
            wanted = {one.sandbox_id for one in self._registry.values() if _is_wanted(one)}
            lost = [one for one in expected if one.sandbox_id not in served and _goes_on(one)]
            if lost:
                _log.warning("grants_lost", count=len(lost))
            await self._each(lost, _grant_again)
            for sandbox_id in served - wanted:
                await self._release(sandbox_id)
            await self._keep_up([one for one in expected if one not in lost])

    async def policy_changed(self, ref: PolicyRef, version: int, *, timeout_s: float) -> int:
        """Tell every running sandbox's gateway that goes by a policy.

        Returns:
            How many go by it; those that could not be told in time are told at the next comparison.
        """
        affected = [one for one in self._registry.values() if _is_wanted(one) and _policy_of(one) == ref]
        try:
            async with asyncio.timeout(timeout_s):
                await self._each(affected, lambda one: one.outbound.keep_up(version))
        except TimeoutError:
            _log.warning("policy_put_off", policy=ref.name)
        return len(affected)

    async def _keep_up(self, sandboxes: list[Sandbox]) -> None:
        refs = {ref for one in sandboxes if (ref := _policy_of(one)) is not None}
        versions: dict[PolicyRef | None, int] = {}
        if refs:
            versions = {one.ref: one.version for one in await self._ground.policies.of_owner(None)}
        await self._each(sandboxes, lambda one: one.outbound.keep_up(versions.get(_policy_of(one))))

    async def _release(self, sandbox_id: SandboxId) -> None:
        _log.info("grant_unwanted", sandbox=sandbox_id)
        try:
            await self._ground.egress.release(sandbox_id)
        except SkerryError as error:
            _log.warning("release_failed", sandbox=sandbox_id, error=error.message, detail=error.detail)

    @staticmethod
    async def _each(sandboxes: Iterable[Sandbox], act: Callable[[Sandbox], Awaitable[None]]) -> None:
        turn = asyncio.Semaphore(PARALLEL)

        async def take(sandbox: Sandbox) -> None:
            async with turn:
                try:
                    await act(sandbox)
                except SandboxEnded:
                    return
                except SkerryError as error:
                    _log.warning(
                        "egress_put_off",
                        sandbox=sandbox.sandbox_id,
                        error=error.message,
                        detail=error.detail,
                    )

        async with asyncio.TaskGroup() as group:
            for sandbox in sandboxes:
                group.create_task(take(sandbox))


async def _grant_again(sandbox: Sandbox) -> None:
    owner = sandbox.record.owner
    if owner is not None and _goes_on(sandbox):
        await sandbox.outbound.grant_again(owner)


def _goes_on(sandbox: Sandbox) -> bool:
    return sandbox.life.stage is Stage.RUNNING


def _is_wanted(sandbox: Sandbox) -> bool:
    """It has, or is getting, a grant."""
    return sandbox.outbound.intent is not None and sandbox.life.reason is None


def _policy_of(sandbox: Sandbox) -> PolicyRef | None:
    intent = sandbox.outbound.intent
    return intent.policy if intent is not None else None
