"""When a daemon is started again."""

from hypothesis import given
from hypothesis import strategies as st

from skerry.daemon.restarts import FIRST_DELAY_S, LIMIT, MAX_DELAY_S, WINDOW_S, RestartPolicy


def test_delays_double_and_then_it_gives_up() -> None:
    policy = RestartPolicy()
    delays = [policy.died(float(at)) for at in range(LIMIT + 1)]
    assert delays[:3] == [FIRST_DELAY_S, 2 * FIRST_DELAY_S, 4 * FIRST_DELAY_S]
    assert delays[-1] is None
    assert None not in delays[:-1]


def test_rare_deaths_never_add_up() -> None:
    policy = RestartPolicy()
    assert {policy.died(number * WINDOW_S * 1.01) for number in range(100)} == {FIRST_DELAY_S}


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=100))
def test_delays_are_bounded(times: list[float]) -> None:
    policy = RestartPolicy()
    delays = [policy.died(at) for at in sorted(times)]
    assert all(delay is None or FIRST_DELAY_S <= delay <= MAX_DELAY_S for delay in delays)
