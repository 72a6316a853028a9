"""What every isolation driver must do. Tests of an ability run for the drivers that claim it."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from skerry.errors import Conflict, NotFound
from skerry.hostd.drivers.base import Pausing
from skerry.protocol.host_verbs import Happening, SandboxExited
from skerry.spec.sandbox import Capability, Ended, Phase
from tests.contract.conftest import CAPABILITIES, Bench
from tests.harness.guest import Guest, guest_on, new_id, spec
from tests.harness.in_process_host import InProcessHost
from tests.harness.waiting import until_awaited

EVENT_S = 15.0
BUSY = "while :; do :; done"


async def phase_of(host: InProcessHost, guest: Guest) -> Phase | None:
    return next((one.phase for one in await host.inspect() if one.sandbox_id == guest.id), None)


async def next_of(events: AsyncIterator[Happening | None]) -> Happening | None:
    async with asyncio.timeout(EVENT_S):
        return await anext(events)


async def test_the_driver_says_what_it_is_and_can_do(bench: Bench) -> None:
    async with bench.host() as host:
        (report,) = (await host.describe()).drivers

    assert report.isolation is bench.isolation
    assert report.usable, report.missing
    assert report.capabilities == CAPABILITIES[bench.isolation]


async def test_optional_abilities_are_there_exactly_when_they_are_claimed(bench: Bench) -> None:
    async with bench.host() as host:
        (driver,) = host.drivers
        claimed = Capability.PAUSE in CAPABILITIES[bench.isolation]

        assert isinstance(driver, Pausing) is claimed


async def test_a_started_sandbox_runs_programs(bench: Bench) -> None:
    async with bench.host() as host, guest_on(host, bench.isolation) as guest:
        done = await guest.shell("echo out; echo err >&2; exit 7")

        assert (done.exit.code, done.stdout, done.stderr) == (7, "out\n", "err\n")
        assert await phase_of(host, guest) is Phase.RUNNING


async def test_the_same_sandbox_is_not_started_twice(bench: Bench) -> None:
    async with bench.host() as host, guest_on(host, bench.isolation) as guest:
        with pytest.raises(Conflict):
            await host.start(spec(bench.isolation, guest.id))

        assert (await guest.shell("echo still here")).stdout == "still here\n"


async def test_use_is_measured(bench: Bench) -> None:
    async with bench.host() as host, guest_on(host, bench.isolation) as guest:
        before = await host.stats(guest.id)
        await guest.shell("i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done")
        after = await host.stats(guest.id)

        assert before.memory_bytes > 0
        assert before.processes >= 1
        assert after.cpu_us > before.cpu_us


async def test_a_destroyed_sandbox_is_gone_and_destroying_it_again_does_nothing(bench: Bench) -> None:
    async with bench.host() as host:
        guest = await Guest.started(host, spec(bench.isolation))
        guest.leave()

        await host.destroy(guest.id)
        assert await host.inspect() == []
        assert await host.destroy(guest.id) == Ended(None, oom=False)
        with pytest.raises(NotFound):
            await host.stats(guest.id)


async def test_all_that_the_guest_started_ends_with_it(bench: Bench) -> None:
    marker = "86399.5"
    async with bench.host() as host:
        guest = await Guest.started(host, spec(bench.isolation))
        await guest.agent.spawn(command="/bin/sh", args=["-c", f"sleep {marker} & setsid sleep {marker}"])
        await guest.destroy()

    assert not running_with(marker)


async def test_an_unknown_sandbox_can_only_be_destroyed(bench: Bench) -> None:
    async with bench.host() as host:
        unknown = new_id()
        with pytest.raises(NotFound):
            await host.stats(unknown)

        assert await host.destroy(unknown) == Ended(None, oom=False)


async def test_when_the_first_process_ends_that_is_told_with_its_status(bench: Bench) -> None:
    async with bench.host() as host:
        events = host.events()
        assert await next_of(events) is None
        guest = await Guest.started(host, spec(bench.isolation))

        await end_from_inside(guest)
        told = await next_of(events)

        assert isinstance(told, SandboxExited)
        assert told.sandbox_id == guest.id
        assert told.ended.exit_code not in (None, 0)
        (observed,) = await host.inspect()
        assert (observed.phase, observed.ended) == (Phase.ENDED, told.ended)
        guest.leave()
        assert await host.destroy(guest.id) == told.ended
        assert await host.inspect() == []
        await events.aclose()  # type: ignore[attr-defined]


async def test_a_paused_sandbox_uses_no_cpu_and_goes_on_after_that(bench: Bench) -> None:
    bench.needs(Capability.PAUSE)
    async with bench.host() as host, guest_on(host, bench.isolation) as guest:
        await guest.agent.spawn(command="/bin/sh", args=["-c", BUSY])
        await host.pause(guest.id)
        await host.pause(guest.id)

        assert await phase_of(host, guest) is Phase.FROZEN
        used = {(await host.stats(guest.id)).cpu_us for _ in range(200)}
        assert len(used) == 1

        await host.resume(guest.id)
        await host.resume(guest.id)
        assert await phase_of(host, guest) is Phase.RUNNING
        assert (await guest.shell("echo awake")).stdout == "awake\n"


async def test_a_paused_sandbox_can_be_destroyed(bench: Bench) -> None:
    bench.needs(Capability.PAUSE)
    async with bench.host() as host:
        guest = await Guest.started(host, spec(bench.isolation))
        await host.pause(guest.id)
        await guest.destroy()

        assert await host.inspect() == []


async def test_sandboxes_outlive_the_driver_object_and_the_next_one_finds_them(bench: Bench) -> None:
    async with bench.host(keep=True) as host:
        guest = await Guest.started(host, spec(bench.isolation))
        await guest.agent.env_update({"KEPT": "yes"})
        guest.leave()

    async with bench.host() as host:
        again = await Guest.connected(host, guest.id)
        await again.link.wait_connected(EVENT_S)

        assert await phase_of(host, again) is Phase.RUNNING
        assert (await again.shell("echo $KEPT")).stdout == "yes\n"
        await again.destroy()
        assert await host.inspect() == []


async def test_a_sandbox_that_ended_meanwhile_is_found_with_its_status(bench: Bench) -> None:
    async with bench.host(keep=True) as host:
        guest = await Guest.started(host, spec(bench.isolation))
    await end_from_inside(guest)

    async def has_ended() -> bool:
        async with bench.host(keep=True) as host:
            return await phase_of(host, guest) is Phase.ENDED

    await until_awaited(has_ended, what="the end of the sandbox")
    guest.leave()
    async with bench.host() as host:
        (observed,) = await host.inspect()

        assert observed.ended is not None
        assert observed.ended.exit_code not in (None, 0)
        assert await host.destroy(guest.id) == observed.ended


async def test_a_paused_sandbox_is_found_paused(bench: Bench) -> None:
    bench.needs(Capability.PAUSE)
    async with bench.host(keep=True) as host:
        guest = await Guest.started(host, spec(bench.isolation))
        await host.pause(guest.id)

    async with bench.host() as host:
        assert await phase_of(host, guest) is Phase.FROZEN
        await host.resume(guest.id)
        assert await phase_of(host, guest) is Phase.RUNNING
        await guest.destroy()


async def test_the_root_is_the_sandbox_s_own(bench: Bench) -> None:
    bench.needs(Capability.OWN_ROOT)
    async with bench.host() as host, guest_on(host, bench.isolation) as one:
        assert (await one.shell("echo mine > /etc/mine && cat /etc/mine", user="root")).stdout == "mine\n"
        async with guest_on(host, bench.isolation) as other:
            assert (await other.shell("ls /etc/mine", user="root")).exit.code != 0


async def test_the_only_network_is_the_gateway_which_refuses_what_nobody_serves(bench: Bench) -> None:
    bench.needs(Capability.OWN_NETWORK)
    connect = "import socket; socket.create_connection(('{}', 80), timeout=20)"
    async with bench.host() as host, guest_on(host, bench.isolation) as guest:
        listed = await guest.run("/usr/bin/python3", "-c", "import socket; print(socket.if_nameindex())")
        outside = await guest.run("/usr/bin/python3", "-c", connect.format("192.0.2.1"))
        loopback = await guest.run(
            *("/usr/bin/python3", "-c"),
            "from socket import *; s = create_server(('127.0.0.1', 0)); create_connection(s.getsockname())",
        )

    assert listed.stdout.strip() == "[(1, 'lo'), (2, 'eth0')]"
    assert "Connection refused" in outside.stderr
    assert loopback.exit.code == 0, loopback.stderr


async def test_the_guest_sees_the_memory_that_it_was_given(bench: Bench) -> None:
    bench.needs(Capability.MEMORY_LIMIT)
    async with bench.host() as host, guest_on(host, bench.isolation, memory_mib=512) as guest:
        total = await guest.shell("awk '/^MemTotal/ {print $2}' /proc/meminfo")

    assert int(total.stdout) == 512 * 1024


async def test_a_full_disk_is_no_space_left_and_room_comes_back(bench: Bench) -> None:
    bench.needs(Capability.DISK_LIMIT)
    async with bench.host() as host, guest_on(host, bench.isolation, disk_mib=64) as guest:
        full = await guest.shell("dd if=/dev/zero of=/tmp/full bs=1M count=200")
        after = await guest.shell("rm /tmp/full && echo room > /tmp/small && cat /tmp/small")

    assert "No space left on device" in full.stderr
    assert after.stdout == "room\n"


async def test_processes_are_limited_and_the_sandbox_lives(bench: Bench) -> None:
    bench.needs(Capability.PROCESS_LIMIT)
    fork_all = (
        "import os, signal\nchildren = []\n"
        "try:\n    while len(children) < 500:\n"
        "        child = os.fork()\n        if not child: signal.pause()\n        children.append(child)\n"
        "except BlockingIOError: print('refused after', len(children))\n"
        "for child in children: os.kill(child, 9)"
    )
    async with bench.host() as host, guest_on(host, bench.isolation, max_processes=64) as guest:
        for user in ("app", "root"):
            done = await guest.run("/usr/bin/python3", "-c", fork_all, user=user)
            refused = done.stdout.removeprefix("refused after ").strip()
            assert refused.isdecimal(), done
            assert int(refused) <= 64
        assert (await guest.shell("echo alive")).stdout == "alive\n"


async def test_cpu_is_limited(bench: Bench) -> None:
    bench.needs(Capability.CPU_LIMIT)
    async with bench.host() as host, guest_on(host, bench.isolation, cpus=0.3) as guest:
        before, began_s = await host.stats(guest.id), time.monotonic()
        await guest.shell(f"timeout 2 sh -c '{BUSY}' & timeout 2 sh -c '{BUSY}'; wait")
        used_s = ((await host.stats(guest.id)).cpu_us - before.cpu_us) / 1e6
        cores = used_s / (time.monotonic() - began_s)

    assert 0.05 < cores < 0.45


async def end_from_inside(guest: Guest) -> None:
    """Make the sandbox's first process end, once it has answered the request that starts the killer."""
    script = "read go; kill -9 $PPID"
    killer = await guest.agent.spawn(command="/bin/sh", args=["-c", script], stdin=True, user="root")
    assert killer.stdin is not None
    await killer.stdin.write(b"go\n")


def running_with(argument: str) -> bool:
    """Whether any process of this machine has the argument."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if argument.encode() in (entry / "cmdline").read_bytes().split(b"\0"):
                return True
        except OSError:
            continue
    return False
