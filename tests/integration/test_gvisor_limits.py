"""Limits of gVisor sandboxes as a program inside meets them, and what the neighbours notice."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest
import pytest_asyncio

from skerry.control.host_client import HostdClient
from skerry.protocol.host_verbs import Happening, MemoryPressure, SandboxExited
from skerry.spec.sandbox import Isolation, Phase
from tests.conftest import Built
from tests.harness.guest import Guest, guest_on
from tests.harness.hostd_process import client_of, instance

pytestmark = [
    pytest.mark.needs_root,
    pytest.mark.timeout(120),
    pytest.mark.asyncio(loop_scope="module"),
]

EVENT_S = 30.0
MIB = 1 << 20

HOG = """
held = []
while True:
    held.append(b"x" * (1 << 20))
"""
SLOWER_HOG = """
import time
held = []
while True:
    held.append(b"x" * (1 << 20))
    time.sleep(0.005)
"""
FORK_BOMB = ":(){ :|:& };:"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def host(built: Built) -> AsyncIterator[HostdClient]:
    async with instance(built) as hostd, client_of(hostd) as client:
        yield client


async def event_of(host: HostdClient, kind: type[Happening], guest: Guest) -> Happening:
    """The next event of a kind about a sandbox."""
    async with asyncio.timeout(EVENT_S), aclosing(host.events()) as events:  # type: ignore[type-var]
        async for event in events:
            if isinstance(event, kind) and event.sandbox_id == guest.id:
                return event
    raise AssertionError("the events ended")


async def test_a_memory_hog_is_told_of_and_the_agent_can_end_it_so_that_the_sandbox_lives(
    host: HostdClient,
) -> None:
    async with guest_on(host, Isolation.GVISOR, memory_mib=256) as guest:
        async with asyncio.TaskGroup() as group:
            told = group.create_task(event_of(host, MemoryPressure, guest))
            hog = await guest.agent.spawn(command="/usr/bin/python3", args=["-c", SLOWER_HOG])
            pressure = await told
            await guest.agent.reclaim()
            ended = await hog.wait()
        lives = await guest.shell("echo alive")

    assert isinstance(pressure, MemoryPressure)
    assert pressure.used_bytes > 256 * MIB
    assert (ended.code, ended.signal, ended.oom) == (137, "SIGKILL", True)
    assert lives.stdout == "alive\n"


async def test_without_that_the_sandbox_ends_for_lack_of_memory_and_a_neighbour_does_not(
    host: HostdClient,
) -> None:
    async with (
        guest_on(host, Isolation.GVISOR, memory_mib=256) as guest,
        guest_on(host, Isolation.GVISOR) as neighbour,
    ):
        before = await neighbour.shell("cat /proc/sys/kernel/random/boot_id")
        async with asyncio.TaskGroup() as group:
            told = group.create_task(event_of(host, SandboxExited, guest))
            await guest.agent.spawn(command="/usr/bin/python3", args=["-c", HOG])
        event = told.result()
        phases = {one.sandbox_id: one.phase for one in await host.inspect()}
        after = await neighbour.shell("cat /proc/sys/kernel/random/boot_id")

    assert isinstance(event, SandboxExited)
    assert event.ended.oom
    assert phases == {guest.id: Phase.ENDED, neighbour.id: Phase.RUNNING}
    assert (after.exit.code, after.stdout) == (0, before.stdout)


async def test_files_in_memory_count_and_have_a_size_of_their_own(host: HostdClient) -> None:
    async with guest_on(host, Isolation.GVISOR, memory_mib=256) as guest:
        full = await guest.shell("dd if=/dev/zero of=/dev/shm/full bs=1M")
        usage = await host.stats(guest.id)

    assert "No space left on device" in full.stderr
    assert 128 * MIB <= usage.memory_bytes < 256 * MIB


async def test_page_cache_is_no_memory_pressure(host: HostdClient) -> None:
    told: list[Happening | None] = []
    async with (
        guest_on(host, Isolation.GVISOR, memory_mib=256, disk_mib=2048) as guest,
        asyncio.TaskGroup() as group,
    ):
        collecting = group.create_task(_collect(host, told))
        done = await guest.shell(
            "dd if=/dev/zero of=/home/app/big bs=1M count=1200 && cat /home/app/big >/dev/null"
        )
        usage = await host.stats(guest.id)
        collecting.cancel()

    assert done.exit.code == 0, done.stderr
    assert [one for one in told if one is not None] == []
    assert usage.memory_bytes < 128 * MIB


@pytest.mark.parametrize("user", ["app", "root"])
async def test_a_fork_bomb_is_refused_more_processes_while_sandbox_and_neighbour_go_on(
    host: HostdClient, user: str
) -> None:
    async with (
        guest_on(host, Isolation.GVISOR, max_processes=128, memory_mib=1024) as guest,
        guest_on(host, Isolation.GVISOR) as neighbour,
    ):
        await guest.agent.spawn(
            command="/bin/bash",
            args=["-c", FORK_BOMB],
            stdout=False,
            stderr=False,
            user=user,  # type: ignore[arg-type]
        )
        for _ in range(20):
            assert (await neighbour.run("/bin/true")).exit.code == 0
        usage = await host.stats(guest.id)
        phases = {one.phase for one in await host.inspect()}

    assert phases == {Phase.RUNNING}
    assert usage.processes < 4 * 128


async def test_a_disk_filler_fills_only_its_own_disk(host: HostdClient) -> None:
    async with (
        guest_on(host, Isolation.GVISOR, disk_mib=64) as guest,
        guest_on(host, Isolation.GVISOR, disk_mib=64) as neighbour,
    ):
        filled = await guest.shell("dd if=/dev/zero of=/full bs=1M", user="root")
        wrote = await neighbour.shell("dd if=/dev/zero of=/tmp/some bs=1M count=20 && sync")
        usage = await host.stats(guest.id)

    assert "No space left on device" in filled.stderr
    assert wrote.exit.code == 0, wrote.stderr
    assert usage.disk_bytes <= 64 * MIB


async def _collect(host: HostdClient, into: list[Happening | None]) -> None:
    async with aclosing(host.events()) as events:  # type: ignore[type-var]
        async for event in events:
            into.append(event)
