"""Crashes are put right at once, until there are too many of them."""

from skerry.egress.broker.crash_limit import CRASHES, PAUSE_S, WINDOW_S, CrashLimit


def test_a_few_crashes_cost_nothing_and_more_cost_a_pause() -> None:
    limit = CrashLimit()
    assert [limit.crashed(now_s) for now_s in range(CRASHES)] == [0.0] * CRASHES
    assert limit.crashed(CRASHES) == PAUSE_S


def test_old_crashes_are_forgotten() -> None:
    limit = CrashLimit()
    for now_s in range(CRASHES + 1):
        limit.crashed(now_s)
    assert limit.crashed(CRASHES + 1 + WINDOW_S) == 0.0
