"""Accounting of what disks may still take."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.hostd.storage.headroom import (
    BURST_DISKS,
    GIB,
    MIB,
    WRITE_RATE_BYTES_PER_S,
    DiskUsage,
    Space,
    needed_for_a_new_disk,
    plan,
    reserve_bytes,
    spendable_bytes,
)


def disk(*, used: int = 0, backed: int | None = None, limit: int = 10 * GIB) -> DiskUsage:
    """A disk that is backed by what it uses unless said otherwise."""
    return DiskUsage(limit, used, used if backed is None else backed)


@pytest.mark.parametrize(
    ("total", "reserve"),
    [(4 * GIB, 512 * MIB), (100 * GIB, 5 * GIB), (2_000 * GIB, 16 * GIB)],
)
def test_reserve_grows_with_the_file_system_between_two_bounds(total: int, reserve: int) -> None:
    assert reserve_bytes(total) == reserve


def test_the_tightest_file_system_decides() -> None:
    roomy, tight = Space(100 * GIB, 90 * GIB), Space(100 * GIB, 8 * GIB)

    assert spendable_bytes([roomy, tight], 0) == 3 * GIB


def test_what_was_accepted_but_is_not_written_yet_is_spent_already() -> None:
    assert spendable_bytes([Space(100 * GIB, 8 * GIB)], 2 * GIB) == 1 * GIB


def test_nothing_is_spendable_below_the_reserve() -> None:
    assert spendable_bytes([Space(100 * GIB, 1 * GIB)], 0) == 0


def test_with_room_for_all_every_disk_may_be_filled() -> None:
    disks = {"a": disk(used=GIB), "b": disk()}

    result = plan([Space(100 * GIB, 50 * GIB)], disks)

    assert result.allowances == {"a": 9 * GIB, "b": 10 * GIB}


def test_without_room_for_all_each_gets_a_share() -> None:
    disks = {"a": disk(), "b": disk(), "full": disk(used=10 * GIB)}

    result = plan([Space(100 * GIB, 5 * GIB + 7 * GIB)], disks)

    assert result.allowances == {"a": 2 * GIB, "b": 2 * GIB, "full": 0}


def test_a_full_host_allows_nothing_more_to_anybody() -> None:
    result = plan([Space(100 * GIB, 5 * GIB)], {"a": disk(), "b": disk(used=GIB)})

    assert result.allowances == {"a": 0, "b": 0}


def test_no_disks_need_no_plan() -> None:
    assert plan([Space(100 * GIB, 1 * GIB)], {}).allowances == {}


def test_a_new_disk_needs_little_but_something() -> None:
    assert needed_for_a_new_disk(10 * GIB) == 512 * MIB
    assert needed_for_a_new_disk(64 * MIB) == 64 * MIB


usages = st.builds(
    lambda limit, used, backed: DiskUsage(limit, min(used, limit), backed),
    st.integers(64 * MIB, 100 * GIB),
    st.integers(0, 100 * GIB),
    st.integers(0, 100 * GIB),
)


@given(
    st.integers(GIB, 10_000 * GIB),
    st.integers(0, 10_000 * GIB),
    st.dictionaries(st.text(min_size=1, max_size=3), usages, max_size=40),
)
def test_a_burst_never_touches_the_reserve_and_no_disk_passes_its_limit(
    total: int, free: int, disks: dict[str, DiskUsage]
) -> None:
    result = plan([Space(total, free)], disks)

    greediest = sorted(result.allowances.values(), reverse=True)[:BURST_DISKS]
    assert sum(greediest) <= result.spendable_bytes
    assert all(result.allowances[name] <= usage.remaining_bytes for name, usage in disks.items())


@given(st.integers(0, 200 * GIB), st.integers(1, 40))
def test_the_next_look_comes_before_a_fast_writer_is_through(free: int, count: int) -> None:
    disks = {str(number): disk() for number in range(count)}

    result = plan([Space(100 * GIB, free)], disks)

    held_back = [allowed for allowed in result.allowances.values() if allowed < 10 * GIB]
    for allowed in held_back:
        assert result.next_look_s <= max(0.25, allowed / WRITE_RATE_BYTES_PER_S)
