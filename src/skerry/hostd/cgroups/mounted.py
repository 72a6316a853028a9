"""The hierarchies of this host."""

from pathlib import Path

from skerry.hostd.cgroups.group import Group, GroupV1, GroupV2, try_rmdir
from skerry.hostd.cgroups.layout import Hierarchies, find_hierarchies, unified_root


def hierarchies() -> Hierarchies:
    """Look what is mounted.

    Raises:
        HostUnusable: A controller is missing; the message names it.
    """
    mountinfo = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace")
    unified = unified_root(mountinfo)
    controllers = (unified / "cgroup.controllers").read_text() if unified else ""
    return find_hierarchies(mountinfo, controllers)


def group_at(found: Hierarchies, path: str) -> Group:
    """The group of that path, which need not exist."""
    return GroupV1(found, path) if found.version == 1 else GroupV2(found, path)


def groups_below(found: Hierarchies, path: str) -> set[str]:
    """Names of the groups directly below one, in any hierarchy."""
    names: set[str] = set()
    for root in found.all_roots:
        parent = root / path
        if parent.is_dir():
            names.update(entry.name for entry in parent.iterdir() if entry.is_dir())
    return names


def remove_if_empty(hierarchies: Hierarchies, path: str) -> None:
    """Remove a group that holds no process and no group; others stay. For the parent of all sandboxes."""
    for root in hierarchies.all_roots:
        try_rmdir(root / path)
