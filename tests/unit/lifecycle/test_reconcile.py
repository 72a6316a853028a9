"""Records compared with reality: every combination, and what no plan may ever do."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.lifecycle.events import HostEnded, HostLost, HostRestarted, Stage
from skerry.lifecycle.reconcile import Action, Decision, Recorded, plan_running, plan_start
from skerry.spec.ids import SandboxId
from skerry.spec.sandbox import Ended, Isolation, Observed, Phase

ID = SandboxId("sbx_ord_00000000000000000001")
OOM = Ended(exit_code=137, oom=True)


def observed(phase: Phase, sandbox_id: SandboxId = ID) -> Observed:
    ended = OOM if phase is Phase.ENDED else None
    return Observed(sandbox_id=sandbox_id, isolation=Isolation.FAKE, phase=phase, ended=ended)


GONE = Decision(ID, Action.REPORT, HostLost())
DIED = Decision(ID, Action.REPORT, HostEnded(exit_code=137, oom=True))
EXPECTED = {
    (Stage.RUNNING, None): GONE,
    (Stage.RUNNING, Phase.GONE): GONE,
    (Stage.RUNNING, Phase.ENDED): DIED,
    (Stage.RUNNING, Phase.RUNNING): Decision(ID, Action.ADOPT),
    (Stage.RUNNING, Phase.UNKNOWN): Decision(ID, Action.ADOPT),
    (Stage.RUNNING, Phase.FROZEN): Decision(ID, Action.ADOPT, frozen=True),
    (Stage.POOLED, None): GONE,
    (Stage.POOLED, Phase.GONE): GONE,
    (Stage.POOLED, Phase.ENDED): DIED,
    (Stage.POOLED, Phase.RUNNING): Decision(ID, Action.REVIVE),
    (Stage.POOLED, Phase.UNKNOWN): Decision(ID, Action.REVIVE),
    (Stage.POOLED, Phase.FROZEN): Decision(ID, Action.REVIVE),
}
FINISH = Decision(ID, Action.FINISH)
PHASES = (None, *Phase)


@pytest.mark.parametrize(("stage", "phase"), list(itertools.product(Stage, PHASES)))
def test_every_stage_with_everything_that_can_be_found(stage: Stage, phase: Phase | None) -> None:
    found = [observed(phase)] if phase is not None else []
    assert plan_start([Recorded(ID, stage, "b")], found, boot_id="b") == [
        EXPECTED.get((stage, phase), FINISH)
    ]


@pytest.mark.parametrize("stage", [Stage.POOLED, Stage.RUNNING])
@pytest.mark.parametrize("phase", PHASES)
def test_after_a_reboot_nothing_is_adopted(stage: Stage, phase: Phase | None) -> None:
    found = [observed(phase)] if phase is not None else []
    assert plan_start([Recorded(ID, stage, "old")], found, boot_id="new") == [
        Decision(ID, Action.REPORT, HostRestarted())
    ]


@pytest.mark.parametrize("phase", list(Phase))
def test_what_no_record_wants_is_swept(phase: Phase) -> None:
    assert plan_start([], [observed(phase)], boot_id="b") == [Decision(ID, Action.SWEEP)]
    assert plan_running([], [], [observed(phase)]) == [Decision(ID, Action.SWEEP)]


def test_an_end_without_a_status_is_reported_as_such() -> None:
    found = Observed(sandbox_id=ID, isolation=Isolation.FAKE, phase=Phase.ENDED)
    (decision,) = plan_running([ID], [ID], [found])
    assert decision.event == HostEnded(exit_code=None, oom=False)


def test_while_running_only_the_served_can_be_missing() -> None:
    starting = SandboxId("sbx_ord_00000000000000000002")
    assert plan_running([ID], [ID, starting], []) == [GONE]


@pytest.mark.parametrize("phase", [Phase.RUNNING, Phase.FROZEN, Phase.UNKNOWN])
def test_while_running_what_is_there_is_left_alone(phase: Phase) -> None:
    assert plan_running([ID], [ID], [observed(phase)]) == []


_IDS = st.integers(0, 5).map(lambda n: SandboxId(f"sbx_ord_0000000000000000000{n}"))
_FOUND = st.lists(st.tuples(_IDS, st.sampled_from(Phase)), unique_by=lambda one: one[0])
_RECORDS = st.lists(
    st.tuples(_IDS, st.sampled_from(Stage), st.sampled_from(["b", "old"])), unique_by=lambda one: one[0]
)


@given(_RECORDS, _FOUND)
def test_a_plan_covers_everything_once_and_spares_what_runs(
    records: list[tuple[SandboxId, Stage, str]], found: list[tuple[SandboxId, Phase]]
) -> None:
    plan = plan_start(
        [Recorded(*record) for record in records], [observed(phase, one) for one, phase in found], boot_id="b"
    )
    assert sorted(decision.sandbox_id for decision in plan) == sorted(
        {one[0] for one in records} | {one[0] for one in found}
    )
    phases = dict(found)
    stages = {one: stage for one, stage, boot in records if boot == "b"}
    for decision in plan:
        runs = phases.get(decision.sandbox_id) in (Phase.RUNNING, Phase.FROZEN, Phase.UNKNOWN)
        if runs and stages.get(decision.sandbox_id) is Stage.RUNNING:
            assert decision.action is Action.ADOPT
