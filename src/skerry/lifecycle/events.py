"""What can happen to a sandbox, and what is to be done about it."""

from enum import StrEnum

import msgspec

from skerry.spec.sandbox import EndReason


class Stage(StrEnum):
    """Where a sandbox is in its life. The values are stored."""

    STARTING = "starting"
    POOLED = "pooled"
    RUNNING = "running"
    ENDING = "ending"
    STOPPED = "stopped"


class Primary(StrEnum):
    """The client on which a session sandbox depends.

    ``UNNEEDED``: the sandbox has a duration. ``AWAITED``: the server restarted, the creator may come back.
    ``LOST``: its connection broke, and nothing can stop the end any more.
    """

    UNNEEDED = "unneeded"
    ATTACHED = "attached"
    AWAITED = "awaited"
    LOST = "lost"


class Window(StrEnum):
    """A limited time without a primary client; how long each lasts is a setting."""

    GRACE = "grace"
    REATTACH = "reattach"


class Frozen(msgspec.Struct, frozen=True):
    """A member of the warm pool has started, said hello and been frozen."""


class Claimed(msgspec.Struct, frozen=True):
    """A pool member was given to a client; this is committed."""

    session: bool
    stop_at_ms: int | None


class Started(msgspec.Struct, frozen=True):
    """A sandbox that was started for a client can serve it; this is committed."""

    session: bool
    stop_at_ms: int | None


class Adopted(msgspec.Struct, frozen=True):
    """A restarted server found the sandbox running and serves it again."""


class PrimaryCame(msgspec.Struct, frozen=True):
    """The creator of an awaited session sandbox is back."""


class PrimaryLeft(msgspec.Struct, frozen=True):
    """The primary client is gone.

    Attributes:
        clean: It said goodbye.
    """

    clean: bool


class WindowOver(msgspec.Struct, frozen=True):
    """The time without a primary client is used up."""


class TimeUp(msgspec.Struct, frozen=True):
    """The end that was set has come."""

    now_ms: int


class Extended(msgspec.Struct, frozen=True):
    """A later end was asked for; an earlier one changes nothing. Whoever asked commits it."""

    stop_at_ms: int


class EndAsked(msgspec.Struct, frozen=True):
    """Somebody with the right to do so wants the sandbox gone."""

    reason: EndReason


class HostEnded(msgspec.Struct, frozen=True):
    """The host says that the sandbox ended by itself or was killed there."""

    exit_code: int | None
    oom: bool


class HostLost(msgspec.Struct, frozen=True):
    """The host knows nothing of the sandbox, although it should run."""


class HostRestarted(msgspec.Struct, frozen=True):
    """The machine was booted since the sandbox started."""


class Freed(msgspec.Struct, frozen=True):
    """The host has freed all that the sandbox held."""

    exit_code: int | None
    oom: bool


Event = (
    Frozen
    | Claimed
    | Started
    | Adopted
    | PrimaryCame
    | PrimaryLeft
    | WindowOver
    | TimeUp
    | Extended
    | EndAsked
    | HostEnded
    | HostLost
    | HostRestarted
    | Freed
)


class Save(msgspec.Struct, frozen=True):
    """Commit the life to the record, before anything that follows."""


class ArmExpiry(msgspec.Struct, frozen=True):
    """Report `TimeUp` at this time, in place of any earlier request."""

    at_ms: int


class ArmWindow(msgspec.Struct, frozen=True):
    """Report `WindowOver` when this window's time is over."""

    window: Window


class Disarm(msgspec.Struct, frozen=True):
    """The window is closed: report no `WindowOver`."""


class Disconnect(msgspec.Struct, frozen=True):
    """Report nothing timed any more, close the agent's link so that pending calls are answered, and tell
    every client why.
    """

    reason: EndReason


class FreeHost(msgspec.Struct, frozen=True):
    """Have the host and the outbound gateway free all that the sandbox holds, then report `Freed`."""


class Retire(msgspec.Struct, frozen=True):
    """Commit that the sandbox is stopped; a pool member, which no client ever had, is forgotten instead."""


Instruction = Save | ArmExpiry | ArmWindow | Disarm | Disconnect | FreeHost | Retire
