"""Finding control groups, and what the kernel's files say."""

from pathlib import Path

import pytest

from skerry.errors import HostUnusable
from skerry.hostd.cgroups.layout import (
    Limits,
    find_hierarchies,
    held_v1,
    held_v2,
    parse_counters,
    quota_us,
    unified_root,
    v1_settings,
    v2_settings,
)

UNIFIED = "34 24 0:29 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
HYBRID = """\
31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw shared:10 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
37 31 0:34 / /sys/fs/cgroup/freezer rw - cgroup cgroup rw,freezer
39 31 0:36 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids
40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
"""
LIMITS = Limits(memory_bytes=1 << 30, cpus=1.5, tasks=100)


def test_the_unified_hierarchy_is_used_when_it_has_the_controllers() -> None:
    found = find_hierarchies(UNIFIED, "cpuset cpu io memory pids")

    assert found.version == 2
    assert found.all_roots == (Path("/sys/fs/cgroup"),)


def test_a_hybrid_host_uses_one_hierarchy_per_controller() -> None:
    found = find_hierarchies(HYBRID, "")

    assert found.version == 1
    assert found.required["cpu"] == found.required["cpuacct"] == Path("/sys/fs/cgroup/cpu,cpuacct")
    assert Path("/sys/fs/cgroup/systemd") in found.all_roots  # runsc makes groups there
    assert Path("/sys/fs/cgroup/unified") not in found.all_roots


@pytest.mark.parametrize(
    ("mountinfo", "controllers", "named"),
    [
        (UNIFIED, "cpu io pids", "memory"),
        (HYBRID.replace("freezer", "devices"), "", "freezer"),
        ("", "", "memory"),
    ],
)
def test_a_missing_controller_is_named(mountinfo: str, controllers: str, named: str) -> None:
    with pytest.raises(HostUnusable, match=named):
        find_hierarchies(mountinfo, controllers)


def test_the_unified_mount_is_found_on_both_kinds_of_host() -> None:
    assert unified_root(UNIFIED) == Path("/sys/fs/cgroup")
    assert unified_root(HYBRID) == Path("/sys/fs/cgroup/unified")
    assert unified_root("") is None


def test_v1_limits_are_written_so_that_each_write_is_allowed() -> None:
    names = [name for _, name, _ in v1_settings(LIMITS)]

    # The kernel refuses a limit with swap below the one without.
    assert names.index("memory.limit_in_bytes") < names.index("memory.memsw.limit_in_bytes")
    assert ("cpu", "cpu.cfs_quota_us", "150000") in v1_settings(LIMITS)


def test_v2_limits_leave_no_swap_and_end_the_group_as_a_whole() -> None:
    settings = dict(v2_settings(LIMITS))

    assert settings["memory.max"] == str(1 << 30)
    assert settings["memory.swap.max"] == "0"
    assert settings["memory.oom.group"] == "1"
    assert settings["cpu.max"] == "150000 100000"
    assert settings["pids.max"] == "100"


@pytest.mark.parametrize(("cpus", "us"), [(0.001, 1_000), (0.1, 10_000), (2.0, 200_000)])
def test_a_quota_is_never_below_what_the_kernel_takes(cpus: float, us: int) -> None:
    assert quota_us(cpus) == us


def test_counters_are_read_and_other_lines_left_out() -> None:
    assert parse_counters("low 0\noom_kill 3\nsome avg10=0.00\nbad\n\nnegative -1\n") == {
        "low": 0,
        "oom_kill": 3,
    }


def test_page_cache_does_not_count_as_held_but_the_guest_s_memory_does() -> None:
    # As seen after a guest with 321 MiB in a tmpfs, and after one that wrote 2 GB to its disk.
    assert held_v1({"total_rss": 14, "total_shmem": 321, "total_cache": 1_000}) == 335
    assert held_v2({"anon": 14, "shmem": 321, "file": 1_000, "slab_reclaimable": 500, "pagetables": 2}) == 337
