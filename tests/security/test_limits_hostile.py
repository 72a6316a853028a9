"""A guest that does its worst, as root, against the limits: the host and a neighbour do not notice."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from skerry.control.host_client import HostdClient
from skerry.hostd.drivers.gvisor_parts import HOST_TASKS_BASE, HOST_TASKS_PER_GUEST_TASK, OVERHEAD_MIB
from skerry.spec.sandbox import Isolation, Observed, Phase
from tests.conftest import Built
from tests.harness.guest import Guest, guest_on
from tests.harness.hostd_process import HostdProcess, client_of, instance
from tests.harness.waiting import until_awaited

pytestmark = [
    pytest.mark.needs_root,
    pytest.mark.timeout(120),
    pytest.mark.asyncio(loop_scope="module"),
]

MIB = 1 << 20
MAX_PROCESSES = 32

FORK_AS_MANY_USERS = f"""
import os, signal
for uid in range(2000, 2000 + 200):
    if os.fork() == 0:
        os.setuid(uid)
        for _ in range({MAX_PROCESSES} - 1):
            try:
                if os.fork() == 0: signal.pause()
            except OSError: pass
        signal.pause()
signal.pause()
"""
RAISE_LIMIT = """
import resource
for limit in (resource.RLIMIT_NPROC,):
    resource.setrlimit(limit, (1_000_000, 1_000_000))
"""
FILL_DEV = "dd if=/dev/zero of=/dev/full-of-it bs=1M"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hostd(built: Built) -> AsyncIterator[HostdProcess]:
    async with instance(built) as process:
        yield process


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def host(hostd: HostdProcess) -> AsyncIterator[HostdClient]:
    async with client_of(hostd) as client:
        yield client


def highest(hostd: HostdProcess, guest: Guest, controller: str, file: str) -> int:
    """A high-water mark that the kernel keeps of the sandbox's control group."""
    name = f"skerry-{hostd.instance}-{guest.id.removeprefix('sbx_').replace('_', '-')}"
    path = f"skerry-{hostd.instance}/{name}"
    for directory in (Path("/sys/fs/cgroup", controller, path), Path("/sys/fs/cgroup", path)):
        if (directory / file).exists():
            return int((directory / file).read_text())
    pytest.skip(f"this kernel keeps no {file}")


async def observed(host: HostdClient, guest: Guest) -> Observed:
    (found,) = [one for one in await host.inspect() if one.sandbox_id == guest.id]
    return found


async def test_root_cannot_raise_the_process_limit(host: HostdClient) -> None:
    async with guest_on(host, Isolation.GVISOR, max_processes=MAX_PROCESSES) as guest:
        done = await guest.run("/usr/bin/python3", "-c", RAISE_LIMIT, user="root")

    assert done.exit.code != 0
    assert "PermissionError" in done.stderr or "not allowed to raise" in done.stderr


async def test_processes_of_ever_new_users_end_at_the_guard_of_the_host(
    hostd: HostdProcess, host: HostdClient
) -> None:
    guard = HOST_TASKS_BASE + HOST_TASKS_PER_GUEST_TASK * MAX_PROCESSES
    async with (
        guest_on(host, Isolation.GVISOR, max_processes=MAX_PROCESSES, memory_mib=2048) as guest,
        guest_on(host, Isolation.GVISOR) as neighbour,
    ):
        await guest.agent.spawn(command="/usr/bin/python3", args=["-c", FORK_AS_MANY_USERS], user="root")

        async def reached() -> bool:
            crowded = highest(hostd, guest, "pids", "pids.peak") >= guard * 0.9
            return crowded or (await observed(host, guest)).phase is Phase.ENDED

        await until_awaited(reached, what="the guard")
        peak = highest(hostd, guest, "pids", "pids.peak")
        neighbours = await neighbour.shell("for i in 1 2 3 4 5; do /bin/true; done; echo fine")

    assert peak <= guard
    assert neighbours.stdout == "fine\n"


async def test_memory_that_belongs_to_no_process_is_limited_too(
    hostd: HostdProcess, host: HostdClient
) -> None:
    async with (
        guest_on(host, Isolation.GVISOR, memory_mib=256) as guest,
        guest_on(host, Isolation.GVISOR) as neighbour,
    ):
        await guest.agent.spawn(
            command="/bin/sh", args=["-c", FILL_DEV], stdout=False, stderr=False, user="root"
        )

        async def ended() -> bool:
            return (await observed(host, guest)).phase is Phase.ENDED

        await until_awaited(ended, what="the end of the sandbox")
        found = await observed(host, guest)
        peak = highest(hostd, guest, "memory", "memory.max_usage_in_bytes")
        neighbours = await neighbour.shell("echo fine")

    assert found.ended is not None
    assert found.ended.oom
    # The counter may have noted the pages of a charge that was then refused.
    assert peak <= (256 + OVERHEAD_MIB + 1) * MIB
    assert neighbours.stdout == "fine\n"


async def test_a_guest_that_stops_its_agent_can_still_be_paused_measured_and_destroyed(
    host: HostdClient,
) -> None:
    async with guest_on(host, Isolation.GVISOR) as guest:
        await guest.agent.spawn(
            command="/bin/sh", args=["-c", "while :; do kill -STOP 1; done"], stdout=False, user="root"
        )
        async with asyncio.timeout(30):
            await host.pause(guest.id)
            await host.resume(guest.id)
            usage = await host.stats(guest.id)

    assert usage.processes > 0
    assert guest.id not in [one.sandbox_id for one in await host.inspect()]
