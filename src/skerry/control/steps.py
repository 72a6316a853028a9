"""How a sandbox comes to be: the record of the intent, then a list of steps.

Each step says which instruction of the life machine takes it back. A sandbox that cannot be completed is
ended like any other, by its own task and whatever its stage, and each of those instructions is idempotent; so
the undo needs no book-keeping, survives the cancellation of the create, and is the same after a crash, when
recovery finds the record.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import msgspec

from skerry.control.ground import Ground
from skerry.control.sandbox import Sandbox
from skerry.control.store.records import EgressIntent, Given, Quotas, SandboxRecord
from skerry.errors import Conflict, ResourceExhausted, RuntimeFailed, SandboxEnded
from skerry.lifecycle.events import EndAsked, Frozen, Stage
from skerry.protocol.egress_verbs import Granted
from skerry.spec.ids import OwnerId, TokenId
from skerry.spec.sandbox import EndReason, Isolation

SETTLE_S = 0.5
AGENT_TIMEOUT_S = 60.0
"""Longest wait for a hello; a client's create has a shorter limit around the whole."""


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """What a sandbox is started as, and thus which pool member will do."""

    isolation: Isolation
    image: str
    image_digest: str
    memory_mib: int
    cpus: float
    disk_mib: int
    max_processes: int

    def with_memory(self, memory_mib: int) -> "Shape":
        """The same with other memory."""
        return msgspec.structs.replace(self, memory_mib=memory_mib)

    def fits(self, record: SandboxRecord) -> bool:
        """Whether a recorded sandbox was started so."""
        return all(getattr(record, name) == getattr(self, name) for name in self.__struct_fields__)


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """A sandbox that a client wants, checked.

    Attributes:
        stop_at_ms: Absolute end; or
        duration_s: end counted from when the client has it. Neither is given for a session.
        env: For the agent; it is stored nowhere else.
        egress: What it may reach; None: it has no network of its own.
        secret_values: By name, for the gateway; they are stored nowhere else.
    """

    owner: OwnerId
    token_id: TokenId
    quotas: Quotas
    shape: Shape
    session: bool
    stop_at_ms: int | None
    duration_s: int | None
    labels: dict[str, str]
    env: dict[str, str]
    egress: EgressIntent | None = None
    secret_values: Mapping[str, bytes] = {}

    def __repr__(self) -> str:
        return f"Order({self.owner!r}, …)"

    def end_ms(self, now_ms: int) -> int | None:
        """When the sandbox ends if its client has it now."""
        return now_ms + self.duration_s * 1000 if self.duration_s is not None else self.stop_at_ms


@dataclass(slots=True)
class Making:
    """One sandbox being made; the order is None for a pool member.

    Attributes:
        granted: What the gateway said of it.
    """

    sandbox: Sandbox
    ground: Ground
    order: Order | None
    granted: Granted | None = None


Step = Callable[[Making], Awaitable[None]]


async def record_intent(
    record: SandboxRecord, quotas: Quotas | None, ground: Ground, *, on_gone: Callable[[Sandbox], None]
) -> Sandbox:
    """Write the record of a sandbox that is to be started. Taken back by `Retire`.

    Raises:
        ResourceExhausted: A quota is used up; nothing was recorded.
    Cancellation: what may have been recorded is ended.
    """
    try:
        await ground.store.insert(record, quotas)
    except asyncio.CancelledError:
        if not ground.tasks.closing:  # else the next start of the server finds the record
            Sandbox(record, ground, on_gone=on_gone).tell(EndAsked(EndReason.START_FAILED))
        raise
    return Sandbox(record, ground, on_gone=on_gone)


async def open_link(making: Making) -> None:
    """Serve the agent's connections before it can dial. Taken back by `Disconnect`."""
    await making.sandbox.open_link()


async def start_on_host(making: Making) -> None:
    """Have the host start it. Taken back by `FreeHost`."""
    await making.ground.host.start(making.sandbox.record.start_spec())


async def wait_for_agent(making: Making) -> None:
    """Wait for the agent's hello. Changes nothing."""
    await making.sandbox.wait_connected(AGENT_TIMEOUT_S)


async def grant_egress(making: Making) -> None:
    """Have the gateway serve it by the rules in its record. Taken back by `FreeHost`."""
    order = _order(making)
    outbound = making.sandbox.outbound
    if outbound.intent is not None:
        making.granted = await outbound.grant(order.owner, order.secret_values)


async def set_up_guest(making: Making) -> None:
    """Before the first process can start: what it trusts, and the client's variables. Gone with the
    sandbox.
    """
    await making.sandbox.outbound.set_up_guest(making.granted, _order(making).env)


async def hand_over(making: Making) -> None:
    """Commit that it runs for its client; its time begins. Taken back by `Retire`."""
    order = _order(making)
    stop_at_ms = order.end_ms(making.ground.clock.now_ms())
    await making.sandbox.hand_over(session=order.session, stop_at_ms=stop_at_ms)


async def make_a_first_file_call(making: Making) -> None:
    """Have the agent start its thread for files, so that the client's first call need not wait for that."""
    await making.sandbox.agent.read_dir("/")


async def settle(making: Making) -> None:
    """Let the guest finish what it began at its start. Changes nothing.

    Of members that were frozen in the midst of it, some died at their first program after the thaw (2 of 147,
    and none of 146 with this wait).
    """
    await asyncio.sleep(SETTLE_S)


async def freeze(making: Making) -> None:
    """Stop all its tasks: a waiting pool member uses no processor. Gone with the sandbox."""
    await making.ground.host.pause(making.sandbox.sandbox_id)


async def enter_pool(making: Making) -> None:
    """Commit that it is a pool member. Taken back by `Retire`."""
    await making.ground.store.save(msgspec.structs.replace(making.sandbox.record, stage=Stage.POOLED))
    making.sandbox.tell(Frozen())


async def claim(making: Making) -> None:
    """Commit that a pool member is its client's; its time begins. Taken back by `Retire`.

    Raises:
        ResourceExhausted: A quota is used up; it is still a pool member.
        Conflict, SandboxEnded: It is no pool member any more.
    Cancellation: it is ended, because it may have been claimed.
    """
    order = _order(making)
    now_ms = making.ground.clock.now_ms()
    given = Given(
        owner=order.owner,
        token_id=order.token_id,
        session=order.session,
        stop_at_ms=order.end_ms(now_ms),
        labels=order.labels,
        created_at_ms=now_ms,
        egress=order.egress,
    )
    try:
        await making.sandbox.claim(given, order.quotas)
    except (ResourceExhausted, Conflict, SandboxEnded):
        raise
    except BaseException:
        making.sandbox.tell(EndAsked(EndReason.START_FAILED))
        raise


async def thaw(making: Making) -> None:
    """Let its tasks run again. Gone with the sandbox."""
    await making.ground.host.resume(making.sandbox.sandbox_id)


async def thaw_and_grant(making: Making) -> None:
    """Both at once, since neither needs the other. Taken back as they are."""
    if making.sandbox.outbound.intent is None:
        await thaw(making)
        return
    outcomes = await asyncio.gather(thaw(making), grant_egress(making), return_exceptions=True)
    for outcome in outcomes:
        if outcome is not None:
            raise outcome


COLD: tuple[Step, ...] = (open_link, start_on_host, wait_for_agent, grant_egress, set_up_guest, hand_over)
WARM: tuple[Step, ...] = (thaw_and_grant, set_up_guest)
MEMBER: tuple[Step, ...] = (
    open_link,
    start_on_host,
    wait_for_agent,
    make_a_first_file_call,
    settle,
    freeze,
    enter_pool,
)


async def carry_out(steps: tuple[Step, ...], making: Making) -> None:
    """Take the steps in order. When one fails, or the caller is cancelled, the sandbox's own task ends what
    was begun.

    Raises:
        SkerryError: The step's own.
        RuntimeFailed: The sandbox ended while it was being made.
    """
    try:
        for step in steps:
            await step(making)
    except SandboxEnded as error:
        raise RuntimeFailed(
            f"the sandbox ended while it was being started ({error.reason}); try again",
            code="SANDBOX_START_FAILED",
        ) from error
    except BaseException:
        making.sandbox.tell(EndAsked(EndReason.START_FAILED))
        raise


def _order(making: Making) -> Order:
    if making.order is None:
        raise RuntimeError("this step is for sandboxes with a client")
    return making.order
