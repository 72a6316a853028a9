"""hostd is killed and comes back: sandboxes go on, and what was half made is removed."""

import asyncio
import contextlib

import pytest

from skerry.control.host_client import HostdClient
from skerry.errors import SkerryError
from skerry.spec.sandbox import Isolation, Phase
from tests.conftest import Built
from tests.harness.guest import Guest, new_id, spec
from tests.harness.hostd_process import HostdProcess, client_of, instance
from tests.harness.waiting import until

pytestmark = [pytest.mark.needs_root, pytest.mark.timeout(180)]

WAIT_S = 20.0


async def restart(hostd: HostdProcess) -> None:
    await hostd.kill()
    await hostd.start()


async def phases(host: HostdClient) -> dict[str, Phase]:
    return {one.sandbox_id: one.phase for one in await host.inspect()}


async def test_a_running_sandbox_does_not_notice_that_hostd_died(built: Built) -> None:
    async with instance(built) as hostd, client_of(hostd) as host:
        guest = await Guest.started(host, spec(Isolation.GVISOR))
        counter = await guest.agent.spawn(
            command="/bin/sh", args=["-c", "i=0; while [ $i -lt 3000 ]; do echo $i; i=$((i+1)); done"]
        )
        await restart(hostd)
        found = await phases(host)
        lines: list[bytes] = []
        assert counter.stdout is not None
        while (part := await counter.stdout.read()) is not None:
            assert isinstance(part, bytes)
            lines.append(part)
        ended = await counter.wait()
        await guest.destroy()

    assert found == {guest.id: Phase.RUNNING}
    assert b"".join(lines).split() == [str(number).encode() for number in range(3000)]
    assert ended.code == 0


async def test_the_agent_reaches_a_listener_that_was_asked_for_after_the_restart(built: Built) -> None:
    async with instance(built) as hostd, client_of(hostd) as host:
        guest = await Guest.started(host, spec(Isolation.GVISOR))
        await hostd.kill()
        guest.leave()
        await hostd.start()
        again = await Guest.connected(host, guest.id)
        await again.link.wait_connected(WAIT_S)
        done = await again.shell("echo again")
        await again.destroy()

    assert done.stdout == "again\n"


async def test_a_listener_of_before_goes_on_while_hostd_is_down(built: Built) -> None:
    async with instance(built) as hostd, client_of(hostd) as host:
        guest = await Guest.started(host, spec(Isolation.GVISOR))
        await hostd.kill()
        # Whatever breaks the connection now, the agent dials the same socket, which api holds.
        assert guest.link._live is not None
        guest.link._live.close()
        await guest.link.wait_connected(WAIT_S)
        done = await guest.shell("echo connected without hostd")
        await hostd.start()
        await guest.destroy()

    assert done.stdout == "connected without hostd\n"


async def test_how_a_sandbox_ended_while_hostd_was_down_is_known_afterwards(built: Built) -> None:
    async with instance(built) as hostd, client_of(hostd) as host:
        guest = await Guest.started(host, spec(Isolation.GVISOR))
        paused = await Guest.started(host, spec(Isolation.GVISOR))
        await host.pause(paused.id)
        await hostd.kill()
        killer = await guest.agent.spawn(
            command="/bin/sh", args=["-c", "read go; kill -9 1"], stdin=True, user="root"
        )
        assert killer.stdin is not None
        await killer.stdin.write(b"go\n")
        await until(lambda: not guest.link.connected, what="the end of the sandbox")
        await hostd.start()
        observed = {one.sandbox_id: one for one in await host.inspect()}
        for one in (guest, paused):
            await one.destroy()

    ended = observed[guest.id].ended
    assert observed[guest.id].phase is Phase.ENDED
    assert ended is not None
    assert ended.exit_code not in (None, 0)
    assert not ended.oom
    assert observed[paused.id].phase is Phase.FROZEN


@pytest.mark.parametrize("after_ms", [1, 5, 10, 15, 20, 30, 60, 90, 120, 160])
async def test_a_start_that_dies_with_hostd_leaves_a_whole_sandbox_or_nothing(
    built: Built, after_ms: int
) -> None:
    async with instance(built) as hostd, client_of(hostd) as host:
        sandbox_id = new_id()
        await host.describe()
        async with asyncio.TaskGroup() as group:
            group.create_task(_start_or_not(host, sandbox_id))
            await asyncio.sleep(after_ms / 1000)  # the moment at which it dies is what is tried out
            await hostd.kill()
        await hostd.start()
        found = await phases(host)
        if found:
            guest = await Guest.connected(host, sandbox_id)
            await guest.link.wait_connected(WAIT_S)
            await guest.destroy()
        else:
            assert not [one for one in hostd.left() if sandbox_id.removeprefix("sbx_ord_") in one]

    assert found in ({}, {sandbox_id: Phase.RUNNING})


async def test_stopping_without_keeping_ends_what_no_database_knows(built: Built) -> None:
    async with instance(built) as hostd, client_of(hostd) as host:
        for _ in range(2):
            (await Guest.started(host, spec(Isolation.GVISOR))).leave()
        await restart(hostd)
        assert len(await host.inspect()) == 2
    # Leaving the block stops hostd so, and counts what is left.


async def test_two_instances_do_not_touch_each_other(built: Built) -> None:
    async with instance(built) as one, client_of(one) as host:
        guest = await Guest.started(host, spec(Isolation.GVISOR))
        async with instance(built) as other, client_of(other) as other_host:
            assert await other_host.inspect() == []
            await other_host.destroy(guest.id)
            await restart(other)
            assert await other_host.inspect() == []
        done = await guest.shell("echo untouched")
        await guest.destroy()

    assert done.stdout == "untouched\n"


async def _start_or_not(host: HostdClient, sandbox_id: str) -> None:
    with contextlib.suppress(SkerryError):
        await host.start(spec(Isolation.GVISOR, sandbox_id))  # type: ignore[arg-type]
