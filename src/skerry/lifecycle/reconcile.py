"""What to do when the records (intent) are compared with what the host really has. Pure."""

from collections.abc import Iterable
from enum import StrEnum

import msgspec

from skerry.lifecycle.events import Event, HostEnded, HostLost, HostRestarted, Stage
from skerry.spec.ids import SandboxId
from skerry.spec.sandbox import Ended, Observed, Phase


class Recorded(msgspec.Struct, frozen=True):
    """One sandbox as the records have it; ``boot_id`` names the boot of the machine in which it was
    started.
    """

    sandbox_id: SandboxId
    stage: Stage
    boot_id: str


class Action(StrEnum):
    """What becomes of one sandbox.

    ``ADOPT``: serve it again; thaw it if it is frozen. ``REVIVE``: a pool member; thaw it until it says
    hello, then freeze it, or discard it.
    ``REPORT``: it ended while nobody looked; tell its life so. ``FINISH``: what had begun to end or to start
    must be freed.
    ``SWEEP``: the host has something that no record wants.
    """

    ADOPT = "adopt"
    REVIVE = "revive"
    REPORT = "report"
    FINISH = "finish"
    SWEEP = "sweep"


class Decision(msgspec.Struct, frozen=True):
    """One sandbox, what to do, and for ``REPORT`` what to tell its life.

    Attributes:
        frozen: For ``ADOPT``: a pause must be undone first.
    """

    sandbox_id: SandboxId
    action: Action
    event: Event | None = None
    frozen: bool = False


def plan_start(records: Iterable[Recorded], observed: Iterable[Observed], *, boot_id: str) -> list[Decision]:
    """Compare at the start of the server, when nothing is being served yet.

    Args:
        records: Every sandbox that is not stopped.
        observed: What the host has.
        boot_id: The machine's present boot.
    """
    seen = {one.sandbox_id: one for one in observed}
    plan = [_decide(record, seen.pop(record.sandbox_id, None), boot_id) for record in records]
    return plan + [Decision(sandbox_id, Action.SWEEP) for sandbox_id in seen]


def _decide(record: Recorded, found: Observed | None, boot_id: str) -> Decision:
    if record.stage in (Stage.STARTING, Stage.ENDING, Stage.STOPPED):
        return Decision(record.sandbox_id, Action.FINISH)
    if record.boot_id != boot_id:
        return Decision(record.sandbox_id, Action.REPORT, HostRestarted())
    gone = _event_of(found)
    if gone is not None:
        return Decision(record.sandbox_id, Action.REPORT, gone)
    if record.stage is Stage.POOLED:
        return Decision(record.sandbox_id, Action.REVIVE)
    return Decision(record.sandbox_id, Action.ADOPT, frozen=found is not None and found.phase is Phase.FROZEN)


def plan_running(
    served: Iterable[SandboxId], known: Iterable[SandboxId], observed: Iterable[Observed]
) -> list[Decision]:
    """Compare while sandboxes are being served, because news from the host may have been missed.

    Args:
        served: Those which were pooled or running *before* the host was asked (one that was being started
            then may rightly be missing).
        known: Those which have a record, read *after* the host was asked (a record comes before its sandbox).
        observed: What the host has.
    """
    seen = {one.sandbox_id: one for one in observed}
    plan: list[Decision] = []
    for sandbox_id in served:
        gone = _event_of(seen.get(sandbox_id))
        if gone is not None:
            plan.append(Decision(sandbox_id, Action.REPORT, gone))
    wanted = set(known)
    return plan + [Decision(sandbox_id, Action.SWEEP) for sandbox_id in seen if sandbox_id not in wanted]


def _event_of(found: Observed | None) -> Event | None:
    """What to tell a life whose sandbox should be there; None: it is. A host that could not find out has not
    said "gone".
    """
    if found is None or found.phase is Phase.GONE:
        return HostLost()
    if found.phase is Phase.ENDED:
        ended = found.ended or Ended(exit_code=None, oom=False)
        return HostEnded(exit_code=ended.exit_code, oom=ended.oom)
    return None
