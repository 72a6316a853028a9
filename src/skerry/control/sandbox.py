"""One sandbox: its record, its life, its agent, its timers, and the task that carries out what its life
demands.
"""

import asyncio
from collections.abc import Callable
from typing import assert_never

import msgspec
import structlog

from skerry.control.agent import AgentClient, AgentLink
from skerry.control.clock import Timer, WallTimer
from skerry.control.ground import Ground
from skerry.control.host import Listening
from skerry.control.outbound import Outbound
from skerry.control.store.records import Given, Quotas, SandboxRecord
from skerry.errors import SandboxEnded, SkerryError
from skerry.lifecycle.events import (
    ArmExpiry,
    ArmWindow,
    Claimed,
    Disarm,
    Disconnect,
    Event,
    Extended,
    Freed,
    FreeHost,
    Instruction,
    Primary,
    PrimaryCame,
    Retire,
    Save,
    Stage,
    Started,
    TimeUp,
    Window,
    WindowOver,
)
from skerry.lifecycle.machine import Life, step
from skerry.spec.ids import SandboxId, TokenId
from skerry.spec.sandbox import EndReason

_log = structlog.get_logger("skerry.control")

FREE_ATTEMPTS = 3
FREE_PAUSE_S = 0.5
RECLAIM_TIMEOUT_S = 2.0


class Sandbox:
    """An actor: `tell` it what happened, its own task does what follows.

    Args:
        record: As it is (or is about to be) stored.
        on_gone: Called once, when nothing of it is left and the record says so.
    """

    def __init__(
        self, record: SandboxRecord, ground: Ground, *, on_gone: "Callable[[Sandbox], None]"
    ) -> None:
        self._ground = ground
        self._record = record
        self._life = Life(
            stage=record.stage,
            session=record.session,
            stop_at_ms=record.stop_at_ms,
            primary=Primary.ATTACHED if record.session else Primary.UNNEEDED,
            reason=record.end_reason,
            exit_code=record.exit_code,
        )
        self._on_gone = on_gone
        self._link = AgentLink(
            sandbox_id=record.sandbox_id,
            epoch=ground.epoch,
            reattach_window_ms=round(ground.settings.reattach_window_s * 1000),
        )
        self._listening: Listening | None = None
        self._expiry: WallTimer | None = None
        self._window: Timer | None = None
        self._reclaiming = False
        self._labouring = False
        self._labours: asyncio.Queue[Instruction] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        self.agent = AgentClient(self._link)
        self.outbound = Outbound(
            ground,
            record.sandbox_id,
            self.agent,
            record.egress,
            served=record.egress is not None and record.stage is Stage.RUNNING,
        )
        self.ended: asyncio.Future[EndReason] = loop.create_future()
        self.gone: asyncio.Future[None] = loop.create_future()
        ground.tasks.start(self._live(), name=f"sandbox {record.sandbox_id}")

    @property
    def sandbox_id(self) -> SandboxId:
        """Its ID."""
        return self._record.sandbox_id

    @property
    def life(self) -> Life:
        """Where it is in its life."""
        return self._life

    @property
    def record(self) -> SandboxRecord:
        """What is stored of it, or will be in a moment."""
        return msgspec.structs.replace(
            self._record,
            stage=self._life.stage,
            session=self._life.session,
            stop_at_ms=self._life.stop_at_ms,
            end_reason=self._life.reason,
            exit_code=self._life.exit_code,
            egress=self.outbound.intent,
        )

    @property
    def connected(self) -> bool:
        """Whether its agent is connected now."""
        return self._link.connected

    @property
    def linked(self) -> bool:
        """Whether its agent's connections are accepted."""
        return self._listening is not None

    def tell(self, event: Event) -> None:
        """Let something have happened. What follows is done by the sandbox's task, soon.

        Raises:
            SandboxEnded: It is ending, and the event needs it alive; nothing changed.
        """
        self._life, instructions = step(self._life, event)
        if self._life.reason is not None and self._record.stopped_at_ms is None:
            self._record = msgspec.structs.replace(self._record, stopped_at_ms=self._ground.clock.now_ms())
        for instruction in instructions:
            self._labours.put_nowait(instruction)

    async def extend(self, stop_at_ms: int) -> int:
        """Move the end to a later time; an earlier one changes nothing.

        Returns:
            The end that holds now, committed.

        Raises:
            SandboxEnded: It is ending.
        """
        self.tell(Extended(stop_at_ms))
        await self._ground.store.save(self.record)
        return self._life.stop_at_ms or stop_at_ms

    def finish(self) -> None:
        """Take up again an end that could not be completed, because the host or the database did not
        answer.
        """
        if self._labours.empty() and not self._labouring:
            if self._life.stage is Stage.ENDING:
                self._labours.put_nowait(FreeHost())
            elif self._life.stage is Stage.STOPPED:
                self._labours.put_nowait(Retire())

    async def open_link(self) -> None:
        """Serve the connections of its agent.

        Raises:
            SandboxEnded: It ended meanwhile.
        """
        listening = await self._ground.host.listen(self.sandbox_id, self._link.accept)
        if self.ended.done():
            listening.close()
            raise SandboxEnded(self.ended.result())
        self._listening = listening

    async def wait_connected(self, timeout_s: float) -> None:
        """Wait for the agent's hello.

        Raises:
            GuestUnreachable: It did not come.
            SandboxEnded: The sandbox ended first.
        """
        await self._link.wait_connected(timeout_s)

    async def claim(self, given: Given, quotas: Quotas) -> None:
        """Give a pool member to a client: commit first, then live.

        Raises:
            ResourceExhausted: A quota is used up; it is still a pool member.
            Conflict, SandboxEnded: It is no pool member any more.
        """
        await self._ground.store.claim(self.sandbox_id, given, quotas)
        # First the life: if it ended meanwhile, the record stays that of a pool member and is forgotten.
        self.tell(Claimed(session=given.session, stop_at_ms=given.stop_at_ms))
        self.outbound.intent = given.egress
        self._record = msgspec.structs.replace(
            self._record,
            owner=given.owner,
            token_id=given.token_id,
            labels=given.labels,
            created_at_ms=given.created_at_ms,
        )

    async def hand_over(self, *, session: bool, stop_at_ms: int | None) -> None:
        """A sandbox that was started for its client can serve it: commit first, then live.

        Raises:
            SandboxEnded: It ended meanwhile.
        """
        await self._ground.store.save(
            msgspec.structs.replace(self.record, stage=Stage.RUNNING, session=session, stop_at_ms=stop_at_ms)
        )
        self.tell(Started(session=session, stop_at_ms=stop_at_ms))

    def try_become_primary(self, token_id: TokenId) -> bool:
        """Let a client with the creating token take the place that a restart of the server left empty."""
        if self._life.primary is not Primary.AWAITED or token_id != self._record.token_id:
            return False
        self.tell(PrimaryCame())
        return True

    def reclaim(self) -> None:
        """Have the agent kill its largest process group, because memory is almost used up; not twice at a
        time.
        """
        if self._reclaiming or not self._link.connected:
            return
        self._reclaiming = True
        self._ground.tasks.start(self._reclaim(), name=f"reclaim {self.sandbox_id}")

    async def _reclaim(self) -> None:
        try:
            await self.agent.reclaim(timeout_s=RECLAIM_TIMEOUT_S)
        except SkerryError as error:
            # The kernel's own killer is the backstop; the host then reports the end.
            _log.warning("reclaim_failed", sandbox=self.sandbox_id, error=error.message)
        finally:
            self._reclaiming = False

    async def _live(self) -> None:
        try:
            while not self.gone.done():
                await self._attempt(await self._labours.get())
        finally:
            self._part(self._life.reason)
            if not self.gone.done():
                self.gone.cancel()

    async def _attempt(self, instruction: Instruction) -> None:
        """Carry an instruction out. An end that fails is taken up again at the next comparison with the
        host.
        """
        self._labouring = True
        try:
            await self._carry_out(instruction)
        except Exception as error:
            _log.error(
                "instruction_failed",
                sandbox=self.sandbox_id,
                instruction=type(instruction).__name__,
                error=repr(error),
                detail=getattr(error, "detail", ""),
                exc_info=not isinstance(error, SkerryError),
            )
        finally:
            self._labouring = False

    async def _carry_out(self, instruction: Instruction) -> None:
        match instruction:
            case Save():
                await self._ground.store.save(self.record)
            case ArmExpiry(at_ms):
                self._arm_expiry(at_ms)
            case ArmWindow(window):
                self._arm_window(window)
            case Disarm():
                self._disarm_window()
            case Disconnect(reason):
                self._part(reason)
            case FreeHost():
                await self._free_all()
            case Retire():
                await self._retire()
            case _:
                assert_never(instruction)

    def _arm_expiry(self, at_ms: int) -> None:
        if self._expiry is not None:
            self._expiry.cancel()
        if self._life.stage is Stage.RUNNING:
            clock = self._ground.clock
            self._expiry = WallTimer(clock, at_ms, lambda: self.tell(TimeUp(now_ms=clock.now_ms())))

    def _arm_window(self, window: Window) -> None:
        self._disarm_window()
        settings = self._ground.settings
        delay_s = settings.session_grace_s if window is Window.GRACE else settings.reattach_window_s
        self._window = self._ground.clock.call_later(delay_s, lambda: self.tell(WindowOver()))

    def _disarm_window(self) -> None:
        if self._window is not None:
            self._window.cancel()
            self._window = None

    def _part(self, reason: EndReason | None) -> None:
        """Serve the agent no more. Without a reason only this server stops, and the agent will look for the
        next one.
        """
        self._disarm_window()
        if self._expiry is not None:
            self._expiry.cancel()
        self._link.close(reason or "the server is stopping")
        if self._listening is not None:
            self._listening.close()
            self._listening = None
        if reason is not None and not self.ended.done():
            self.ended.set_result(reason)

    async def _free_all(self) -> None:
        """Both at once: a gateway that does not answer must not hold up the end."""
        await asyncio.gather(self.outbound.release(), self._free_host())

    async def _free_host(self) -> None:
        for attempt in range(1, FREE_ATTEMPTS + 1):
            try:
                ended = await self._ground.host.destroy(self.sandbox_id)
            except SkerryError:
                if attempt == FREE_ATTEMPTS:
                    raise
                await self._ground.clock.sleep(FREE_PAUSE_S)
            else:
                self.tell(Freed(exit_code=ended.exit_code, oom=ended.oom))
                return

    async def _retire(self) -> None:
        if self._record.owner is None:
            await self._ground.store.forget(self.sandbox_id)
        else:
            await self._ground.store.save(self.record)
        self.gone.set_result(None)
        self._on_gone(self)
