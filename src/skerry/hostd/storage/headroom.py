"""How much the disks of sandboxes may still grow, so that a full host is "no space left" for one and never an
I/O error for all. Pure.

Disks are thin: each has a limit, but takes space only as it is written, and the sum of the limits may exceed
what the host has. If the pool itself ran full, every write to any disk would fail as an I/O error. So some
space is held in reserve, new disks are refused when little is left above it, and when all limits together no
longer fit, each disk gets an allowance that shrinks with what is left.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

MIB = 1 << 20
GIB = 1 << 30

BURST_DISKS = 16
"""Disks that may all use up their allowance between two looks without touching the reserve."""

WRITE_RATE_BYTES_PER_S = 2 * GIB
"""Faster than a sandbox writes (page cache included), so that a look comes in time."""


@dataclass(frozen=True, slots=True)
class Space:
    """A file system that the pool rests on."""

    total_bytes: int
    free_bytes: int


@dataclass(frozen=True, slots=True)
class DiskUsage:
    """One disk.

    Attributes:
        limit_bytes: What its file system can hold.
        used_bytes: What is written in it, including what is still in memory or only allocated.
        backed_bytes: What its image takes of the pool now.
    """

    limit_bytes: int
    used_bytes: int
    backed_bytes: int

    @property
    def remaining_bytes(self) -> int:
        """What its own limit still allows."""
        return max(0, self.limit_bytes - self.used_bytes)

    @property
    def promised_bytes(self) -> int:
        """What the pool must still find for writes that were already accepted."""
        return max(0, self.used_bytes - self.backed_bytes)


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do until the next look.

    Attributes:
        spendable_bytes: What all disks together may still take of the pool.
        allowances: Bytes each disk may still take, by name.
        next_look_s: When to compute this again.
    """

    spendable_bytes: int
    allowances: dict[str, int]
    next_look_s: float


def reserve_bytes(total_bytes: int) -> int:
    """Space that sandboxes never get: 5 % of the file system, at least 512 MiB and at most 16 GiB."""
    return min(max(total_bytes // 20, 512 * MIB), 16 * GIB)


def spendable_bytes(spaces: Sequence[Space], promised_bytes: int) -> int:
    """What may still be taken.

    The tightest file system counts: its free space less its reserve and less what disks were already
    promised.
    """
    free = min(space.free_bytes - reserve_bytes(space.total_bytes) for space in spaces)
    return max(0, free - promised_bytes)


def plan(spaces: Sequence[Space], disks: Mapping[str, DiskUsage]) -> Plan:
    """Divide what is left.

    As long as every disk could be filled to its limit, all may. Otherwise each may take a share of what is
    left, rounded down to a power of two so that allowances change rarely; the next look comes before a fast
    writer can have used it up.
    """
    spendable = spendable_bytes(spaces, sum(disk.promised_bytes for disk in disks.values()))
    remaining = {name: disk.remaining_bytes for name, disk in disks.items()}
    if sum(remaining.values()) <= spendable:
        return Plan(spendable, remaining, 5.0)
    share = _power_of_two_below(spendable // min(len(disks), BURST_DISKS))
    next_look_s = min(max(share / WRITE_RATE_BYTES_PER_S, 0.25), 2.0)
    return Plan(spendable, {name: min(left, share) for name, left in remaining.items()}, next_look_s)


def needed_for_a_new_disk(limit_bytes: int) -> int:
    """Spendable space without which no further disk is made: enough to be of use at all, not its whole
    limit."""
    return min(limit_bytes, 512 * MIB)


def _power_of_two_below(number: int) -> int:
    return 1 << (number.bit_length() - 1) if number > 0 else 0
