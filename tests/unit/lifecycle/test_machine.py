"""The state machine of a sandbox's life: every stage with every event, and what a whole life must hold."""

import itertools

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.errors import SandboxEnded
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
from skerry.lifecycle.machine import HISTORY_LENGTH, InvalidTransition, Life, reason_of_exit, step
from skerry.spec.sandbox import EndReason

STARTING = Life(stage=Stage.STARTING)
POOLED = Life(stage=Stage.POOLED)
SESSION = Life(stage=Stage.RUNNING, session=True, primary=Primary.ATTACHED)
AWAITING = Life(stage=Stage.RUNNING, session=True, primary=Primary.AWAITED)
ALONE = Life(stage=Stage.RUNNING, session=True, primary=Primary.LOST)
TIMED = Life(stage=Stage.RUNNING, stop_at_ms=1000)
ENDING = Life(stage=Stage.ENDING, reason=EndReason.KILLED)
STOPPED = Life(stage=Stage.STOPPED, reason=EndReason.KILLED)

LIVES = {
    "starting": STARTING,
    "pooled": POOLED,
    "session": SESSION,
    "awaiting": AWAITING,
    "alone": ALONE,
    "timed": TIMED,
    "ending": ENDING,
    "stopped": STOPPED,
}

ENDS = (Save, Disconnect, FreeHost)

EVENTS: tuple[Event, ...] = (
    Frozen(),
    Claimed(session=True, stop_at_ms=None),
    Claimed(session=False, stop_at_ms=2000),
    Started(session=True, stop_at_ms=None),
    Started(session=False, stop_at_ms=2000),
    Adopted(),
    PrimaryCame(),
    PrimaryLeft(clean=True),
    PrimaryLeft(clean=False),
    WindowOver(),
    TimeUp(now_ms=999),
    TimeUp(now_ms=1000),
    Extended(stop_at_ms=500),
    Extended(stop_at_ms=5000),
    EndAsked(EndReason.KILLED),
    HostEnded(exit_code=0, oom=False),
    HostEnded(exit_code=137, oom=True),
    HostLost(),
    HostRestarted(),
    Freed(exit_code=None, oom=False),
)

# What is allowed, by name of the life: every other pair must be refused without a change.
CHANGES: dict[tuple[str, Event], tuple[Stage, EndReason | None, tuple[type, ...]]] = {
    ("starting", Frozen()): (Stage.POOLED, None, ()),
    ("starting", Started(session=True, stop_at_ms=None)): (Stage.RUNNING, None, ()),
    ("starting", Started(session=False, stop_at_ms=2000)): (Stage.RUNNING, None, (ArmExpiry,)),
    ("starting", EndAsked(EndReason.KILLED)): (Stage.ENDING, EndReason.KILLED, ENDS),
    ("starting", HostEnded(exit_code=0, oom=False)): (Stage.ENDING, EndReason.START_FAILED, ENDS),
    ("starting", HostEnded(exit_code=137, oom=True)): (Stage.ENDING, EndReason.START_FAILED, ENDS),
    ("starting", HostLost()): (Stage.ENDING, EndReason.START_FAILED, ENDS),
    ("starting", HostRestarted()): (Stage.ENDING, EndReason.START_FAILED, ENDS),
    ("pooled", Claimed(session=True, stop_at_ms=None)): (Stage.RUNNING, None, ()),
    ("pooled", Claimed(session=False, stop_at_ms=2000)): (Stage.RUNNING, None, (ArmExpiry,)),
    ("pooled", EndAsked(EndReason.KILLED)): (Stage.ENDING, EndReason.KILLED, ENDS),
    ("pooled", HostEnded(exit_code=0, oom=False)): (Stage.ENDING, EndReason.DISCARDED, ENDS),
    ("pooled", HostEnded(exit_code=137, oom=True)): (Stage.ENDING, EndReason.DISCARDED, ENDS),
    ("pooled", HostLost()): (Stage.ENDING, EndReason.DISCARDED, ENDS),
    ("pooled", HostRestarted()): (Stage.ENDING, EndReason.DISCARDED, ENDS),
    ("session", Adopted()): (Stage.RUNNING, None, (ArmWindow,)),
    ("awaiting", Adopted()): (Stage.RUNNING, None, (ArmWindow,)),
    ("alone", Adopted()): (Stage.RUNNING, None, (ArmWindow,)),
    ("timed", Adopted()): (Stage.RUNNING, None, (ArmExpiry,)),
    ("awaiting", PrimaryCame()): (Stage.RUNNING, None, (Disarm,)),
    ("session", PrimaryLeft(clean=True)): (Stage.ENDING, EndReason.CLOSED, ENDS),
    ("session", PrimaryLeft(clean=False)): (Stage.RUNNING, None, (ArmWindow,)),
    ("awaiting", WindowOver()): (Stage.ENDING, EndReason.DISCONNECTED, ENDS),
    ("alone", WindowOver()): (Stage.ENDING, EndReason.DISCONNECTED, ENDS),
    ("timed", TimeUp(now_ms=999)): (Stage.RUNNING, None, (ArmExpiry,)),
    ("timed", TimeUp(now_ms=1000)): (Stage.ENDING, EndReason.EXPIRED, ENDS),
    ("timed", Extended(stop_at_ms=5000)): (Stage.RUNNING, None, (ArmExpiry,)),
    ("ending", Freed(exit_code=None, oom=False)): (Stage.STOPPED, EndReason.KILLED, (Retire,)),
}
for _name in ("session", "awaiting", "alone"):
    CHANGES[_name, Extended(stop_at_ms=500)] = (Stage.RUNNING, None, ())
    CHANGES[_name, Extended(stop_at_ms=5000)] = (Stage.RUNNING, None, ())
for _name in ("session", "awaiting", "alone", "timed"):
    CHANGES[_name, EndAsked(EndReason.KILLED)] = (Stage.ENDING, EndReason.KILLED, ENDS)
    CHANGES[_name, HostEnded(exit_code=0, oom=False)] = (Stage.ENDING, EndReason.EXITED, ENDS)
    CHANGES[_name, HostEnded(exit_code=137, oom=True)] = (Stage.ENDING, EndReason.OUT_OF_MEMORY, ENDS)
    CHANGES[_name, HostLost()] = (Stage.ENDING, EndReason.CRASHED, ENDS)
    CHANGES[_name, HostRestarted()] = (Stage.ENDING, EndReason.HOST_RESTARTED, ENDS)

# What may come too late, or concerns another kind of sandbox, and must change nothing.
_LATE = (
    PrimaryLeft(clean=True),
    PrimaryLeft(clean=False),
    WindowOver(),
    TimeUp(now_ms=999),
    TimeUp(now_ms=1000),
    EndAsked(EndReason.KILLED),
    HostEnded(exit_code=0, oom=False),
    HostEnded(exit_code=137, oom=True),
    HostLost(),
    HostRestarted(),
)
IGNORED: set[tuple[str, Event]] = {(name, event) for name in ("ending", "stopped") for event in _LATE}
IGNORED |= {
    (name, event)
    for name in ("session", "awaiting", "alone")
    for event in (TimeUp(now_ms=999), TimeUp(now_ms=1000))
}
IGNORED |= {
    (name, PrimaryLeft(clean=clean)) for name in ("awaiting", "alone", "timed") for clean in (True, False)
}
IGNORED |= {("session", WindowOver()), ("timed", WindowOver()), ("timed", Extended(stop_at_ms=500))}

TOO_LATE: set[tuple[str, Event]] = {
    (name, event)
    for name in ("ending", "stopped")
    for event in EVENTS
    if isinstance(event, Frozen | Claimed | Started | Adopted | PrimaryCame | Extended)
}


@pytest.mark.parametrize(("name", "event"), list(itertools.product(LIVES, EVENTS)), ids=repr)
def test_every_event_in_every_stage(name: str, event: Event) -> None:
    life = LIVES[name]
    if (name, event) in CHANGES:
        stage, reason, instructions = CHANGES[name, event]
        after, told = step(life, event)
        assert (after.stage, after.reason) == (stage, reason)
        assert tuple(type(one) for one in told) == instructions
    elif (name, event) in IGNORED:
        after, told = step(life, event)
        assert msgspec.structs.replace(after, history=()) == life
        assert told == ()
    elif (name, event) in TOO_LATE:
        with pytest.raises(SandboxEnded) as ended:
            step(life, event)
        assert ended.value.reason == "killed"
    else:
        with pytest.raises(InvalidTransition):
            step(life, event)


def test_a_session_remembers_an_extension_but_does_not_end_by_it() -> None:
    life, told = step(SESSION, Extended(stop_at_ms=5000))
    assert told == ()
    assert life.stop_at_ms == 5000
    assert step(life, TimeUp(now_ms=9999)) == (step(life, TimeUp(now_ms=9999))[0], ())


def test_the_windows_differ_by_who_went_away() -> None:
    assert step(SESSION, PrimaryLeft(clean=False))[1] == (ArmWindow(Window.GRACE),)
    assert step(SESSION, Adopted())[1] == (ArmWindow(Window.REATTACH),)


def test_a_creator_who_came_back_in_time_is_primary_again() -> None:
    life, _ = step(step(SESSION, Adopted())[0], PrimaryCame())
    assert life.primary is Primary.ATTACHED
    assert step(life, WindowOver())[1] == ()
    assert step(life, PrimaryLeft(clean=True))[0].reason is EndReason.CLOSED


def test_a_creator_whose_connection_broke_cannot_come_back() -> None:
    life, _ = step(SESSION, PrimaryLeft(clean=False))
    with pytest.raises(InvalidTransition):
        step(life, PrimaryCame())
    assert step(life, WindowOver())[0].reason is EndReason.DISCONNECTED


def test_the_clients_are_told_before_the_host_frees() -> None:
    _, told = step(TIMED, EndAsked(EndReason.KILLED))
    assert told == (Save(), Disconnect(EndReason.KILLED), FreeHost())


@pytest.mark.parametrize(
    ("ended", "freed", "reason", "exit_code"),
    [
        (HostLost(), Freed(exit_code=None, oom=True), EndReason.OUT_OF_MEMORY, None),
        (HostLost(), Freed(exit_code=3, oom=False), EndReason.EXITED, 3),
        (HostEnded(exit_code=139, oom=False), Freed(exit_code=None, oom=False), EndReason.CRASHED, 139),
        (HostEnded(exit_code=7, oom=False), Freed(exit_code=None, oom=False), EndReason.EXITED, 7),
        (EndAsked(EndReason.KILLED), Freed(exit_code=137, oom=True), EndReason.KILLED, None),
    ],
)
def test_the_record_found_while_freeing_is_the_better_one(
    ended: Event, freed: Freed, reason: EndReason, exit_code: int | None
) -> None:
    life, _ = step(step(TIMED, ended)[0], freed)
    assert (life.reason, life.exit_code) == (reason, exit_code)


@pytest.mark.parametrize(
    ("exit_code", "oom", "reason"),
    [
        (0, False, EndReason.EXITED),
        (127, False, EndReason.EXITED),
        (128, False, EndReason.CRASHED),
        (None, False, EndReason.CRASHED),
        (137, True, EndReason.OUT_OF_MEMORY),
        (0, True, EndReason.OUT_OF_MEMORY),
    ],
)
def test_reasons_of_an_end_that_nobody_asked_for(exit_code: int | None, oom: bool, reason: EndReason) -> None:
    assert reason_of_exit(exit_code=exit_code, oom=oom) is reason


def test_a_refused_event_tells_the_history() -> None:
    life, _ = step(STARTING, Frozen())
    life, _ = step(life, Claimed(session=True, stop_at_ms=None))
    with pytest.raises(InvalidTransition) as refused:
        step(life, Frozen())
    assert refused.value.detail == "Frozen in stage running after starting:Frozen pooled:Claimed"
    assert "Frozen" not in refused.value.message


def test_the_history_is_bounded() -> None:
    life = SESSION
    for _ in range(3 * HISTORY_LENGTH):
        life, _told = step(life, Adopted())
    assert len(life.history) == HISTORY_LENGTH


@given(st.lists(st.sampled_from(EVENTS), max_size=30))
def test_any_life_goes_forward_and_ends_once(events: list[Event]) -> None:
    order = {Stage.STARTING: 0, Stage.POOLED: 1, Stage.RUNNING: 2, Stage.ENDING: 3, Stage.STOPPED: 4}
    life = STARTING
    told: list[object] = []
    for event in events:
        try:
            after, instructions = step(life, event)
        except (InvalidTransition, SandboxEnded):
            continue
        assert order[after.stage] >= order[life.stage]
        assert (after.reason is not None) == (after.stage in (Stage.ENDING, Stage.STOPPED))
        told += instructions
        life = after
    assert sum(isinstance(one, FreeHost) for one in told) == (life.stage in (Stage.ENDING, Stage.STOPPED))
    assert sum(isinstance(one, Retire) for one in told) == (life.stage is Stage.STOPPED)
