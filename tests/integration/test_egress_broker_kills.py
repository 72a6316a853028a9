"""Kills of egressd, of its zygote and of `up`: what was answered survives them. Workers are stand-ins that do
what they are told.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from functools import partial

import pytest

from skerry.control.egress_client import EgressdClient
from skerry.policy.document import AllowRule
from skerry.protocol.egress_verbs import SandboxEgress
from skerry.spec.ids import SandboxId
from tests.harness.egress_ground import ID, VALUE, grant, secret, seq_of
from tests.harness.egressd_process import EgressdProcess, children_of, client_of, egressd
from tests.harness.waiting import until, until_awaited

pytestmark = [pytest.mark.needs_root, pytest.mark.timeout(120)]

OTHER = SandboxId("sbx_ord_" + "b" * 20)
NEW_VALUE = b"the-value-after-a-rotation-0123"


@pytest.fixture
async def process() -> AsyncIterator[EgressdProcess]:
    async with egressd() as made:
        yield made


@pytest.fixture
async def egress(process: EgressdProcess) -> AsyncIterator[EgressdClient]:
    async with client_of(process) as client:
        yield client


async def view(egress: EgressdClient, sandbox_id: SandboxId = ID) -> SandboxEgress:
    (found,) = [one for one in (await egress.describe()).sandboxes if one.sandbox_id == sandbox_id]
    return found


def gone(*pids: int) -> bool:
    return not any(os.path.exists(f"/proc/{pid}") for pid in pids)


async def test_everything_survives_a_kill_of_the_broker(
    process: EgressdProcess, egress: EgressdClient
) -> None:
    made = await egress.grant(grant(secret("ONE"), secret("TWO"), secret("THREE")))
    await egress.grant(grant(secret("FAR", NEW_VALUE), sandbox_id=OTHER))
    worker = (await process.tell("rules"))["pid"]
    await egress.revoke(ID, "TWO")
    await egress.rotate(ID, "THREE", NEW_VALUE)
    await egress.allow_host(ID, AllowRule(host="more.example.com"))
    for _ in range(3):
        await process.tell("use ONE")
        await process.tell("line text")
    # What has been put away is seen by what follows it: the counters go along.
    await egress.allow_host(ID, AllowRule(host="last.example.com"))
    before, version = await egress.secrets(ID), (await view(egress)).version
    assert [one.used for one in before] == [3, 0, 0]
    zygote = process.zygote

    await process.kill()
    await until(lambda: gone(worker, zygote))
    assert len(process.kept.descriptors()) == 2
    await process.start()

    assert await egress.secrets(ID) == before
    assert [one.name for one in await egress.secrets(OTHER)] == ["FAR"]
    found = await view(egress)
    assert (found.version, found.worker_pid, found.lost) == (version, None, False)
    rules = await process.tell("rules")
    assert rules["secrets"] == {
        "ONE": [VALUE.decode(), "active", 3],
        "TWO": [None, "revoked", 0],
        "THREE": [NEW_VALUE.decode(), "active", 0],
    }
    assert rules["authority"] is not None
    assert (rules["version"], rules["next_seq"]) == (version, 4)
    assert made.placeholders == {one.name: one.placeholder for one in await egress.secrets(ID)}
    assert [seq_of(line) for line in (await egress.read_audit(ID)).lines] == [1, 2, 3]
    await egress.release(ID)
    await until(lambda: len(process.kept.descriptors()) == 1)


async def test_counters_alone_are_put_away_too(process: EgressdProcess, egress: EgressdClient) -> None:
    await egress.grant(grant(secret()))
    await process.tell("use KEY")

    await until(lambda: process.put_away()[0].secret("KEY").used == 1)
    await process.kill()
    await process.start()
    assert [one.used for one in await egress.secrets(ID)] == [1]


async def test_without_its_zygote_it_ends_and_starts_over(
    process: EgressdProcess, egress: EgressdClient
) -> None:
    await egress.grant(grant(secret()))
    worker = (await process.tell("rules"))["pid"]
    os.kill(process.zygote, signal.SIGKILL)
    assert await process.ended() == 1
    await until(lambda: gone(worker))
    await process.start()
    assert (await process.tell("rules"))["secrets"]["KEY"] == [VALUE.decode(), "active", 0]


@pytest.mark.soak
async def test_grants_under_kills_are_kept_or_were_never_answered(
    process: EgressdProcess, egress: EgressdClient
) -> None:
    answered: list[SandboxId] = []

    async def grant_all() -> None:
        for number in range(300):
            name = SandboxId(f"sbx_ord_{number:020d}")
            await egress.grant(grant(secret(), sandbox_id=name))
            answered.append(name)

    def enough(goal: int) -> bool:
        return len(answered) >= goal or granting.done()

    async with asyncio.TaskGroup() as group:
        granting = group.create_task(grant_all())
        for goal in (20, 90, 200):
            await until(partial(enough, goal))
            await process.kill()
            await process.start()
    served = {one.sandbox_id for one in (await egress.describe()).sandboxes}
    assert served == set(answered)
    assert len(served) == 300
    assert process.complaints == []


async def test_when_up_dies_all_end(process: EgressdProcess, egress: EgressdClient) -> None:
    await egress.grant(grant(secret()))
    worker = (await process.tell("rules"))["pid"]
    broker, zygote = process.pid, process.zygote
    process.hang_up()
    assert await process.ended() == 0
    await until(lambda: gone(broker, zygote, worker))
    await process.start()


async def test_a_cut_holds_over_a_restart(process: EgressdProcess, egress: EgressdClient) -> None:
    async def is_cut() -> bool:
        return (await view(egress)).cut

    await egress.grant(grant(secret()))
    await process.tell("cut KEY")
    await until_awaited(is_cut)
    await egress.allow_host(ID, AllowRule(host="more.example.com"))
    await process.kill()
    await process.start()
    assert await is_cut()
    process.gateways.hostd.connect()
    await egress.allow_host(ID, AllowRule(host="last.example.com"))
    assert children_of(process.zygote) == []
    await egress.grant(grant(secret()))
    process.gateways.hostd.drain()
    assert (await process.tell("rules"))["secrets"]["KEY"][0] == VALUE.decode()


async def test_the_client_connects_again_and_says_so(process: EgressdProcess, egress: EgressdClient) -> None:
    times = 0

    async def count() -> None:
        nonlocal times
        async for _ in egress.reconnected():
            times += 1

    async with asyncio.TaskGroup() as group:
        counting = group.create_task(count())
        await egress.describe()
        await until(lambda: times >= 1)
        before = times
        await process.kill()
        await process.start()
        await until(lambda: times == before + 1)
        counting.cancel()
