"""Sandboxes for clients: from the warm pool if it has one, else started now."""

import asyncio
import secrets
from collections.abc import Callable

from skerry.control.ground import Ground
from skerry.control.pool import Pool
from skerry.control.sandbox import Sandbox
from skerry.control.steps import (
    COLD,
    MEMBER,
    WARM,
    Making,
    Order,
    Shape,
    Step,
    carry_out,
    claim,
    record_intent,
)
from skerry.control.store.records import EgressIntent, SandboxRecord
from skerry.errors import (
    Conflict,
    HostUnusable,
    InvalidRequest,
    ResourceExhausted,
    SandboxEnded,
    SkerryError,
    TimedOut,
)
from skerry.lifecycle.events import EndAsked, Stage
from skerry.spec.ids import OwnerId, SandboxId, TokenId, new_sandbox_id
from skerry.spec.sandbox import EndReason

PARALLEL_STARTS = 4
"""Starts that the host is asked for at once; further ones wait their turn, within their own deadline."""


class Creator:
    """Makes sandboxes and enters them in the registry.

    Args:
        boot_id: The machine's present boot.
    """

    def __init__(
        self,
        ground: Ground,
        registry: dict[SandboxId, Sandbox],
        *,
        boot_id: str,
        on_gone: Callable[[Sandbox], None],
    ) -> None:
        self._ground = ground
        self._registry = registry
        self._boot_id = boot_id
        self._on_gone = on_gone
        self._starts = asyncio.Semaphore(PARALLEL_STARTS)
        self._closed = asyncio.Event()

    def close(self) -> None:
        """Make no more."""
        self._closed.set()

    async def create(self, order: Order, pool: Pool | None) -> Sandbox:
        """Make a sandbox that serves its client when this returns.

        Raises:
            ResourceExhausted: A quota is used up; nothing was made.
            TimedOut: It did not serve in time; it is being ended.
            SkerryError: A step failed; it is being ended.
        Cancellation: it is being ended.
        """
        limit_s = self._ground.settings.sandbox.boot_timeout_s
        try:
            async with asyncio.timeout(limit_s):
                if pool is None:
                    return await self._start_for_client(order)
                with pool.making_way():
                    return await self._take_for_client(order, pool) or await self._start_for_client(order)
        except TimeoutError:
            raise TimedOut("starting the sandbox", limit_s) from None

    async def make_member(self, shape: Shape) -> Sandbox:
        """Start a pool member and freeze it.

        Raises:
            SkerryError: A step failed; it is being ended.
        """
        record = self._record(shape, owner=None, token_id=None, session=False, labels={}, egress=None)
        return await self._start(MEMBER, record, None)

    async def _take_for_client(self, order: Order, pool: Pool) -> Sandbox | None:
        """Claim a member and thaw it; None if no member is left that can be used."""
        while (member := pool.try_take(order.shape)) is not None:
            making = Making(member, self._ground, order)
            try:
                await claim(making)
            except ResourceExhausted:
                pool.put_back(member)
                raise
            except (Conflict, SandboxEnded):
                continue
            try:
                await carry_out(WARM, making)
            except (HostUnusable, InvalidRequest):
                raise  # it would be no better with another one
            except SkerryError:
                continue  # this one is being ended; another, or a fresh one, may do
            return member
        return None

    async def _start_for_client(self, order: Order) -> Sandbox:
        record = self._record(
            order.shape,
            owner=order.owner,
            token_id=order.token_id,
            session=order.session,
            labels=order.labels,
            egress=order.egress,
        )
        return await self._start(COLD, record, order)

    async def _start(self, steps: tuple[Step, ...], record: SandboxRecord, order: Order | None) -> Sandbox:
        if self._closed.is_set():
            raise ResourceExhausted("the server is stopping", code="SERVER_STOPPING")
        quotas = order.quotas if order is not None else None
        sandbox = await record_intent(record, quotas, self._ground, on_gone=self._on_gone)
        self._registry[sandbox.sandbox_id] = sandbox
        if self._closed.is_set():
            sandbox.tell(EndAsked(EndReason.SERVER_STOPPED))

        async def in_turn(making: Making) -> None:
            async with self._starts:
                for step in steps:
                    await step(making)

        await carry_out((in_turn,), Making(sandbox, self._ground, order))
        return sandbox

    def _record(
        self,
        shape: Shape,
        *,
        owner: OwnerId | None,
        token_id: TokenId | None,
        session: bool,
        labels: dict[str, str],
        egress: EgressIntent | None,
    ) -> SandboxRecord:
        return SandboxRecord(
            sandbox_id=new_sandbox_id(self._ground.settings.region, secrets.randbelow),
            owner=owner,
            token_id=token_id,
            stage=Stage.STARTING,
            boot_id=self._boot_id,
            isolation=shape.isolation,
            image=shape.image,
            image_digest=shape.image_digest,
            memory_mib=shape.memory_mib,
            cpus=shape.cpus,
            disk_mib=shape.disk_mib,
            max_processes=shape.max_processes,
            session=session,
            stop_at_ms=None,
            labels=labels,
            created_at_ms=self._ground.clock.now_ms(),
            egress=egress,
        )
