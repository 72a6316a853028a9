"""Where the hierarchies are, and what the kernel's files say. Pure.

Source: kernel cgroup-v2.rst, cgroup-v1/memory.rst, cgroup-v1/freezer-subsystem.rst, proc_pid_mountinfo(5).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from skerry.errors import HostUnusable

REQUIRED_V1 = ("memory", "cpu", "cpuacct", "pids", "freezer")
REQUIRED_V2 = ("memory", "cpu", "pids")

CPU_PERIOD_US = 100_000
_MIN_QUOTA_US = 1_000


@dataclass(frozen=True, slots=True)
class Hierarchies:
    """What is mounted.

    Attributes:
        version: 2 when the unified hierarchy has the controllers, else 1.
        required: Mount points of the hierarchies that Skerry uses, by controller; one entry ``""`` for
            version 2.
        all_roots: Every mount point of that version: a runtime makes groups in hierarchies that Skerry does
            not use.
    """

    version: int
    required: Mapping[str, Path]
    all_roots: tuple[Path, ...]


def find_hierarchies(mountinfo: str, unified_controllers: str) -> Hierarchies:
    """Choose the hierarchies to use.

    Args:
        mountinfo: Text of /proc/self/mountinfo.
        unified_controllers: Text of the unified root's ``cgroup.controllers``; empty when there is none.

    Raises:
        HostUnusable: A controller is missing; the message names it.
    """
    v1: dict[str, Path] = {}
    v1_roots: list[Path] = []
    v2_roots: list[Path] = []
    for point, kind, options in _cgroup_mounts(mountinfo):
        if kind == "cgroup2":
            v2_roots.append(point)
            continue
        v1_roots.append(point)
        for option in options:
            v1.setdefault(option, point)
    missing_v2 = [name for name in REQUIRED_V2 if name not in unified_controllers.split()]
    if v2_roots and not missing_v2:
        return Hierarchies(2, {"": v2_roots[0]}, (v2_roots[0],))
    missing_v1 = [name for name in REQUIRED_V1 if name not in v1]
    if not missing_v1:
        return Hierarchies(1, {name: v1[name] for name in REQUIRED_V1}, tuple(v1_roots))
    missing = missing_v1 if v1 else missing_v2
    raise HostUnusable(
        f"the kernel's control groups lack {', '.join(missing)}: "
        "boot with systemd.unified_cgroup_hierarchy=1 and without cgroup_disable="
    )


def unified_root(mountinfo: str) -> Path | None:
    """Mount point of the unified hierarchy, if there is one."""
    return next((point for point, kind, _ in _cgroup_mounts(mountinfo) if kind == "cgroup2"), None)


def _cgroup_mounts(mountinfo: str) -> Iterable[tuple[Path, str, list[str]]]:
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        fields = after.split(" ")
        if len(fields) >= 3 and fields[0] in ("cgroup", "cgroup2"):
            yield Path(before.split(" ")[4]), fields[0], fields[2].split(",")


@dataclass(frozen=True, slots=True)
class Limits:
    """What a group may use.

    Attributes:
        memory_bytes: Hard limit; beyond it the kernel kills.
        cpus: Cores.
        tasks: Processes and threads of the host.
    """

    memory_bytes: int
    cpus: float
    tasks: int


def quota_us(cpus: float) -> int:
    """CPU time per `CPU_PERIOD_US`."""
    return max(_MIN_QUOTA_US, round(cpus * CPU_PERIOD_US))


def v1_settings(limits: Limits) -> list[tuple[str, str, str]]:
    """(controller, file, value) in the order in which they must be written."""
    memory = str(limits.memory_bytes)
    return [
        ("memory", "memory.limit_in_bytes", memory),
        (
            "memory",
            "memory.memsw.limit_in_bytes",
            memory,
        ),  # no swap on top; refused while below the limit above
        ("cpu", "cpu.cfs_period_us", str(CPU_PERIOD_US)),
        ("cpu", "cpu.cfs_quota_us", str(quota_us(limits.cpus))),
        ("pids", "pids.max", str(limits.tasks)),
    ]


def v2_settings(limits: Limits) -> list[tuple[str, str]]:
    """(file, value)."""
    return [
        ("memory.max", str(limits.memory_bytes)),
        ("memory.swap.max", "0"),
        ("memory.oom.group", "1"),
        ("cpu.max", f"{quota_us(limits.cpus)} {CPU_PERIOD_US}"),
        ("pids.max", str(limits.tasks)),
    ]


OPTIONAL_FILES = frozenset({"memory.memsw.limit_in_bytes", "memory.swap.max", "memory.oom.group"})
"""Missing on kernels without swap accounting, or older ones; nothing is lost without swap."""


def parse_counters(text: str) -> dict[str, int]:
    """Lines of ``name number``; lines of another form are left out."""
    counters = {}
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        if value.isdecimal():
            counters[name] = int(value)
    return counters


def held_v1(stat: Mapping[str, int]) -> int:
    """Memory that nothing can give back but its owner: the guest's and the sentry's.

    Not all that is charged counts: file cache and the kernel's caches of names and inodes go by themselves
    when memory is short. gVisor keeps the guest's memory in a memfd, which is ``shmem``; in v1 ``rss`` is
    anonymous memory only.
    """
    return stat.get("total_rss", 0) + stat.get("total_shmem", 0)


def held_v2(stat: Mapping[str, int]) -> int:
    """The same for v2, which also tells what the kernel itself holds for the group and cannot give back."""
    names = ("anon", "shmem", "kernel_stack", "pagetables", "sec_pagetables", "percpu", "slab_unreclaimable")
    return sum(stat.get(name, 0) for name in names)
