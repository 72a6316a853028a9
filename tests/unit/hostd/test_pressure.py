"""When memory pressure is told."""

from skerry.hostd.cgroups.pressure import LOOK_AGAIN_S, REPEAT_S, PressureGauge


def test_below_the_threshold_nothing_is_told() -> None:
    assert PressureGauge(100).look(99, 0.0) == (False, None)


def test_reaching_it_is_told_once_and_watched_by_the_clock() -> None:
    gauge = PressureGauge(100)

    assert gauge.look(100, 5.0) == (True, LOOK_AGAIN_S)
    assert gauge.look(120, 5.0 + REPEAT_S / 2) == (False, LOOK_AGAIN_S)


def test_it_is_told_again_while_it_lasts() -> None:
    gauge = PressureGauge(100)
    gauge.look(100, 5.0)

    assert gauge.look(100, 5.0 + REPEAT_S) == (True, LOOK_AGAIN_S)


def test_after_a_calm_the_next_time_is_told_at_once() -> None:
    gauge = PressureGauge(100)
    gauge.look(100, 5.0)
    gauge.look(50, 5.1)

    assert gauge.look(100, 5.2) == (True, LOOK_AGAIN_S)
