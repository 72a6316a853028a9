"""Whether the host has memory for one more sandbox.

Limits of sandboxes may add up to far more than the host has: an idle one uses a few MiB of its limit. So what
counts is what the kernel could give now, not what has been promised.
"""

from pathlib import Path

from skerry.errors import ResourceExhausted

MEMORY_INFO = Path("/proc/meminfo")

STARTING_MIB = 96
"""What a fresh sandbox and its agent take while they start; measured 30 to 60 MiB."""

RESERVE_MIB = 256
"""Kept free for the host in any case."""

RESERVE_SHARE = 0.03
"""Kept free for the host: this share of its memory, if that is more."""


def check_memory(memory_info: str) -> None:
    """Refuse a start for which the host has not enough memory left.

    Args:
        memory_info: Text of /proc/meminfo (proc(5)).

    Raises:
        ResourceExhausted: It has not.
    """
    total_mib, available_mib = _mib(memory_info, "MemTotal"), _mib(memory_info, "MemAvailable")
    needed_mib = STARTING_MIB + max(RESERVE_MIB, int(total_mib * RESERVE_SHARE))
    if available_mib < needed_mib:
        raise ResourceExhausted(
            f"the host's memory is almost used up: {available_mib} MiB are left, a start needs "
            f"{needed_mib} MiB; end sandboxes, or make the warm pool smaller"
        )


def _mib(memory_info: str, name: str) -> int:
    for line in memory_info.splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) // 1024
    raise ValueError(f"no {name} in the kernel's memory information")
