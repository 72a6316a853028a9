"""What a gVisor sandbox costs when it does nothing, and what is left after many."""

import asyncio
from pathlib import Path

import pytest

from skerry.spec.sandbox import Isolation
from tests.conftest import Built
from tests.harness.guest import Guest, guest_on, spec
from tests.harness.hostd_process import client_of, instance

pytestmark = [pytest.mark.needs_root, pytest.mark.timeout(120)]

IDLE_S = 3.0
SANDBOXES = 12


async def test_an_idle_sandbox_uses_next_to_no_cpu(built: Built) -> None:
    async with (
        instance(built) as hostd,
        client_of(hostd) as host,
        guest_on(host, Isolation.GVISOR) as guest,
    ):
        await guest.run("/bin/true")
        before = await host.stats(guest.id)
        await asyncio.sleep(IDLE_S)  # the time over which is measured
        after = await host.stats(guest.id)

    used = (after.cpu_us - before.cpu_us) / 1e6 / IDLE_S
    assert used < 0.01  # versions that waste use 0.04 of a core


async def test_nothing_is_left_of_many_sandboxes_started_and_destroyed_at_once(built: Built) -> None:
    async with instance(built) as hostd, client_of(hostd) as host:
        await host.describe()
        before = hostd.left()
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(Guest.started(host, spec(Isolation.GVISOR))) for _ in range(SANDBOXES)]
        guests = [task.result() for task in tasks]
        present = len(await host.inspect())
        async with asyncio.TaskGroup() as group:
            for guest in guests:
                group.create_task(guest.destroy())
        after = hostd.left()

    assert present == SANDBOXES
    assert sorted(after) == sorted(before)


async def test_no_process_of_a_sandbox_runs_outside_its_control_group(built: Built) -> None:
    async with instance(built) as hostd, client_of(hostd) as host, guest_on(host, Isolation.GVISOR) as guest:
        await guest.agent.spawn(command="/bin/sleep", args=["1000"])
        name = f"skerry-{hostd.instance}-{guest.id.removeprefix('sbx_').replace('_', '-')}"
        outside = [line for line in hostd.left() if name in line and _is_outside(line, name)]

    # Its parent, which writes down how it ends, must go on while the sandbox is frozen.
    assert len(outside) == 1
    assert "conmon" in outside[0]


def _is_outside(line: str, name: str) -> bool:
    """Whether a line is about a process, and one that is in no group of that name."""
    pid = line.split(":")[0]
    return pid.isdecimal() and name not in Path(f"/proc/{pid}/cgroup").read_text()
