"""The unified hierarchy of this kernel: what of a group works without controllers, on real processes.

Limits need controllers, which a hybrid host has given to the other hierarchies; there the files' content is
checked by unit tests.
"""

import os
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from skerry.hostd.cgroups import mounted
from skerry.hostd.cgroups.group import GroupV2
from skerry.hostd.cgroups.layout import Hierarchies, unified_root
from tests.conftest import unavailable

pytestmark = pytest.mark.needs_root


@pytest.fixture
def group() -> Iterator[GroupV2]:
    root = unified_root(Path("/proc/self/mountinfo").read_text())
    if root is None:
        unavailable("needs a unified hierarchy")
    assert root is not None
    parent = f"skerry-test-{secrets.token_hex(4)}"
    made = GroupV2(Hierarchies(2, {"": root}, (root,)), f"{parent}/one")
    made.directory("").mkdir(parents=True)
    yield made
    made.directory("").parent.rmdir()


def busy_in(group: GroupV2) -> "subprocess.Popen[bytes]":
    """A process with a child, both in the group."""
    child = subprocess.Popen(["/bin/sh", "-c", "read go; sleep 1000 & wait"], stdin=subprocess.PIPE)
    (group.directory("") / "cgroup.procs").write_text(str(child.pid))
    assert child.stdin is not None
    child.stdin.write(b"go\n")
    child.stdin.close()
    return child


async def test_a_group_is_frozen_thawed_killed_and_removed(group: GroupV2) -> None:
    child = busy_in(group)
    try:
        assert group.has(child.pid)
        assert not group.has(os.getpid())
        assert not group.is_frozen()
        await group.freeze()
        assert group.is_frozen()
        group.thaw()
        assert not group.is_frozen()

        await group.kill()
        assert group.processes() == []
    finally:
        status = child.wait()
    await group.remove()
    await group.remove()

    assert status == -9
    assert not group.exists()


async def test_a_frozen_group_is_killed(group: GroupV2) -> None:
    child = busy_in(group)
    await group.freeze()
    await group.kill()

    assert child.wait() == -9
    await group.remove()


async def test_a_group_that_is_gone_has_no_processes_and_uses_nothing(group: GroupV2) -> None:
    await group.remove()

    assert group.processes() == []
    assert group.usage().held_bytes == 0
    await group.kill()


def test_this_host_has_what_skerry_needs() -> None:
    found = mounted.hierarchies()

    assert found.version in (1, 2)
    assert all(root.is_dir() for root in found.all_roots)
