"""The state machine: a life and an event give the next life and instructions, in the order in which they must
be carried out.
"""

from collections.abc import Callable

import msgspec

from skerry.errors import SandboxEnded, SkerryError
from skerry.lifecycle.events import (
    Adopted,
    ArmExpiry,
    ArmWindow,
    Claimed,
    Disarm,
    Disconnect,
    EndAsked,
    Event,
    Extended,
    Freed,
    FreeHost,
    Frozen,
    HostEnded,
    HostLost,
    HostRestarted,
    Instruction,
    Primary,
    PrimaryCame,
    PrimaryLeft,
    Retire,
    Save,
    Stage,
    Started,
    TimeUp,
    Window,
    WindowOver,
)
from skerry.spec.sandbox import EndReason

HISTORY_LENGTH = 16


class Life(msgspec.Struct, frozen=True, kw_only=True):
    """All that decides what happens to a sandbox next.

    Attributes:
        session: It ends with its primary client.
        stop_at_ms: When a sandbox with a duration ends; for a session only remembered. None: no end is set.
        reason: Why it ended; set from ``ENDING`` on.
        exit_code: Status of its first process if that ended by itself.
        history: The last events, for error messages.
    """

    stage: Stage
    session: bool = False
    stop_at_ms: int | None = None
    primary: Primary = Primary.UNNEEDED
    reason: EndReason | None = None
    exit_code: int | None = None
    history: tuple[str, ...] = ()


class InvalidTransition(SkerryError):
    """An event that cannot happen in this stage: a defect of the caller. The life is unchanged."""

    def __init__(self, life: Life, event: Event) -> None:
        told = f"{type(event).__name__} in stage {life.stage}"
        super().__init__(
            "internal error in a sandbox's life", detail=f"{told} after {' '.join(life.history) or 'nothing'}"
        )


Outcome = tuple[Life, tuple[Instruction, ...]]

_IDLE_REASON = {Stage.STARTING: EndReason.START_FAILED, Stage.POOLED: EndReason.DISCARDED}
"""What an end is called before any client had the sandbox."""

_NEEDS_IT_ALIVE = (Frozen, Claimed, Started, Adopted, PrimaryCame, Extended)
"""Events that mean nothing for a sandbox that is ending: somebody wanted something of it and must be told."""

_ALREADY_OVER = (EndAsked, PrimaryLeft, WindowOver, TimeUp, HostEnded, HostLost, HostRestarted)
"""Events that may arrive late, when the sandbox is ending anyway; they change nothing."""


def step(life: Life, event: Event) -> Outcome:
    """Say what an event changes and what is to be done.

    Raises:
        SandboxEnded: Something is wanted of a sandbox that is ending or stopped.
        InvalidTransition: The event cannot happen in this stage.
    """
    if life.reason is not None and life.stage in (Stage.ENDING, Stage.STOPPED):
        if isinstance(event, _NEEDS_IT_ALIVE):
            raise SandboxEnded(life.reason)
        if isinstance(event, _ALREADY_OVER):
            return life, ()
    handler = _HANDLERS.get((life.stage, type(event)))
    if handler is None:
        raise InvalidTransition(life, event)
    after, instructions = handler(life, event)
    history = (*life.history, f"{life.stage}:{type(event).__name__}")[-HISTORY_LENGTH:]
    return msgspec.structs.replace(after, history=history), instructions


def _frozen(life: Life, event: Frozen) -> Outcome:
    return msgspec.structs.replace(life, stage=Stage.POOLED), ()


def _given(life: Life, event: Claimed | Started) -> Outcome:
    after = msgspec.structs.replace(
        life,
        stage=Stage.RUNNING,
        session=event.session,
        stop_at_ms=event.stop_at_ms,
        primary=Primary.ATTACHED if event.session else Primary.UNNEEDED,
    )
    return after, _expiry(after)


def _adopted(life: Life, event: Adopted) -> Outcome:
    if life.session:
        return msgspec.structs.replace(life, primary=Primary.AWAITED), (ArmWindow(Window.REATTACH),)
    return life, _expiry(life)


def _expiry(life: Life) -> tuple[Instruction, ...]:
    if life.session or life.stop_at_ms is None:
        return ()
    return (ArmExpiry(life.stop_at_ms),)


def _primary_came(life: Life, event: PrimaryCame) -> Outcome:
    if life.primary is not Primary.AWAITED:
        raise InvalidTransition(life, event)
    return msgspec.structs.replace(life, primary=Primary.ATTACHED), (Disarm(),)


def _primary_left(life: Life, event: PrimaryLeft) -> Outcome:
    if life.primary is not Primary.ATTACHED:
        return life, ()
    if event.clean:
        return _end(life, EndReason.CLOSED)
    return msgspec.structs.replace(life, primary=Primary.LOST), (ArmWindow(Window.GRACE),)


def _window_over(life: Life, event: WindowOver) -> Outcome:
    if life.primary in (Primary.AWAITED, Primary.LOST):
        return _end(life, EndReason.DISCONNECTED)
    return life, ()


def _time_up(life: Life, event: TimeUp) -> Outcome:
    if life.session or life.stop_at_ms is None:
        return life, ()
    if event.now_ms < life.stop_at_ms:
        return life, (ArmExpiry(life.stop_at_ms),)
    return _end(life, EndReason.EXPIRED)


def _extended(life: Life, event: Extended) -> Outcome:
    if life.stop_at_ms is not None and event.stop_at_ms <= life.stop_at_ms:
        return life, ()
    after = msgspec.structs.replace(life, stop_at_ms=event.stop_at_ms)
    return after, _expiry(after)


def _end_asked(life: Life, event: EndAsked) -> Outcome:
    return _end(life, event.reason)


def _host_ended(life: Life, event: HostEnded) -> Outcome:
    after = msgspec.structs.replace(life, exit_code=event.exit_code)
    return _end(
        after, _IDLE_REASON.get(life.stage) or reason_of_exit(exit_code=event.exit_code, oom=event.oom)
    )


def _host_lost(life: Life, event: HostLost) -> Outcome:
    return _host_ended(life, HostEnded(exit_code=None, oom=False))


def _host_restarted(life: Life, event: HostRestarted) -> Outcome:
    return _end(life, _IDLE_REASON.get(life.stage, EndReason.HOST_RESTARTED))


def _freed(life: Life, event: Freed) -> Outcome:
    after = msgspec.structs.replace(life, stage=Stage.STOPPED)
    if life.reason in (EndReason.CRASHED, EndReason.EXITED):
        # The record that the host found while it freed the sandbox is the later and better one.
        code = event.exit_code if event.exit_code is not None else life.exit_code
        reason = EndReason.OUT_OF_MEMORY if event.oom else reason_of_exit(exit_code=code, oom=False)
        after = msgspec.structs.replace(after, reason=reason, exit_code=code)
    return after, (Retire(),)


def _end(life: Life, reason: EndReason) -> Outcome:
    after = msgspec.structs.replace(life, stage=Stage.ENDING, reason=reason)
    return after, (Save(), Disconnect(reason), FreeHost())


def reason_of_exit(*, exit_code: int | None, oom: bool) -> EndReason:
    """Why a sandbox ended that nobody asked to end. An unknown status, or death by a signal (128 and above),
    is a crash.
    """
    if oom:
        return EndReason.OUT_OF_MEMORY
    if exit_code is None or exit_code >= 128:
        return EndReason.CRASHED
    return EndReason.EXITED


_Handler = Callable[..., Outcome]

_ENDS: tuple[tuple[object, _Handler], ...] = (
    (EndAsked, _end_asked),
    (HostEnded, _host_ended),
    (HostLost, _host_lost),
    (HostRestarted, _host_restarted),
)

_HANDLERS: dict[tuple[Stage, object], _Handler] = {
    (Stage.STARTING, Frozen): _frozen,
    (Stage.STARTING, Started): _given,
    (Stage.POOLED, Claimed): _given,
    (Stage.RUNNING, Adopted): _adopted,
    (Stage.RUNNING, PrimaryCame): _primary_came,
    (Stage.RUNNING, PrimaryLeft): _primary_left,
    (Stage.RUNNING, WindowOver): _window_over,
    (Stage.RUNNING, TimeUp): _time_up,
    (Stage.RUNNING, Extended): _extended,
    (Stage.ENDING, Freed): _freed,
}
_HANDLERS.update(
    {
        (stage, event): handler
        for stage in (Stage.STARTING, Stage.POOLED, Stage.RUNNING)
        for event, handler in _ENDS
    }
)
