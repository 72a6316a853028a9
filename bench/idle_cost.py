"""What sandboxes cost the host while they do nothing: memory and CPU of all their processes."""

import os
from collections.abc import Iterable
from pathlib import Path


def processes_of(needle: str) -> list[int]:
    """PIDs of all processes whose command line contains ``needle`` (the container's name, or the instance's
    prefix)."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            if needle.encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue  # it ended meanwhile
    return found


def pss_mib(pids: Iterable[int]) -> float:
    """Proportional set size of the processes together, in MiB (proc(5), smaps_rollup)."""
    total_kib = 0
    for pid in pids:
        try:
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
            continue
        total_kib += next((int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")), 0)
    return total_kib / 1024


def cpu_s(pids: Iterable[int]) -> float:
    """CPU seconds (user and system) that the processes have used since they started (proc(5), stat)."""
    ticks = 0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def available_mib() -> float:
    """The host's MemAvailable, in MiB (proc(5), meminfo)."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) / 1024
    raise OSError("no MemAvailable in /proc/meminfo")
