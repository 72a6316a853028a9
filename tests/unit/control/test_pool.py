"""The warm pool: what is ready, what is handed out, and what happens when it cannot be filled."""

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from skerry.control.store.database import Database
from skerry.control.store.sandboxes import SandboxStore
from skerry.errors import HostUnusable, ResourceExhausted, RuntimeFailed
from skerry.lifecycle.events import Stage
from skerry.service.requests import CreateRequest
from skerry.service.service import Service
from skerry.spec.sandbox import Ended
from tests.harness.fake_clock import FakeClock
from tests.harness.scripted_host import ScriptedHost
from tests.harness.waiting import until, until_awaited
from tests.harness.world import ADMIN, ALICE, MINUTE, SESSION, pool_filled, serving, settings


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def host() -> AsyncIterator[ScriptedHost]:
    made = ScriptedHost()
    yield made
    made.close()


@pytest.fixture
async def service(host: ScriptedHost, tmp_path: Path, clock: FakeClock) -> AsyncIterator[Service]:
    async with serving(host, tmp_path, clock, settings(pool=2)) as running:
        await pool_filled(running, clock, 2)
        yield running


async def test_members_are_frozen_and_belong_to_nobody(service: Service, host: ScriptedHost) -> None:
    assert not host.running()
    status = await service.status(ADMIN)
    assert (status.pool.target, status.pool.ready, status.running) == (2, 2, 0)
    assert await service.list(ADMIN, all_owners=True) == []


async def test_a_create_takes_the_oldest_member_and_thaws_it(service: Service, host: ScriptedHost) -> None:
    oldest, other = host.machines
    attachment = await service.create(
        ALICE, msgspec.structs.replace(SESSION, env={"A": "1"}, labels={"k": "v"})
    )
    assert attachment.sandbox_id == oldest
    assert (host.running(), host.frozen()) == ({oldest}, {other})
    assert await attachment.agent.env_all() == {"A": "1"}
    assert host.called["start"] == 2
    (view,) = await service.list(ALICE)
    assert (view.sandbox_id, view.labels, view.running) == (oldest, {"k": "v"}, True)


async def test_the_time_of_a_pooled_sandbox_counts_from_the_create(
    service: Service, host: ScriptedHost, clock: FakeClock
) -> None:
    await clock.advance(600)
    attachment = await service.create(ALICE, MINUTE)
    assert attachment.stop_at_ms == clock.now_ms() + 60_000
    assert (await service.get(ALICE, attachment.sandbox_id)).created_at_ms == clock.now_ms()


async def test_it_is_filled_again_after_a_quiet_while(
    service: Service, host: ScriptedHost, clock: FakeClock
) -> None:
    await service.create(ALICE, SESSION)
    await clock.advance(0.2)
    await service.create(ALICE, SESSION)
    await clock.advance(0.2)
    assert host.called["start"] == 2
    await pool_filled(service, clock, 2)
    assert host.called["start"] == 4


async def test_an_empty_pool_falls_back_to_a_cold_start(service: Service, host: ScriptedHost) -> None:
    made = [await service.create(ALICE, SESSION) for _ in range(4)]
    assert host.running() == {one.sandbox_id for one in made}
    assert host.called["start"] == 4


async def test_another_shape_is_started_cold(service: Service, host: ScriptedHost) -> None:
    attachment = await service.create(ALICE, CreateRequest(memory_mib=2048))
    assert len(host.frozen()) == 2
    assert host.machines[attachment.sandbox_id].spec.memory_mib == 2048


async def test_a_member_that_died_is_replaced(service: Service, host: ScriptedHost, clock: FakeClock) -> None:
    first = next(iter(host.machines))
    host.die(first, Ended(exit_code=137, oom=True))
    await until(lambda: first not in host.machines)
    await pool_filled(service, clock, 2)
    assert await service.list(ADMIN, all_owners=True) == []


async def test_a_member_that_grew_old_is_replaced(
    service: Service, host: ScriptedHost, clock: FakeClock
) -> None:
    before = set(host.machines)
    await clock.advance(3599)
    assert set(host.machines) == before
    await clock.advance(2)
    await until(lambda: not before & set(host.machines))
    await pool_filled(service, clock, 2)


async def test_a_refused_claim_leaves_the_member_in_the_pool(service: Service, host: ScriptedHost) -> None:
    limited = msgspec.structs.replace(ALICE, max_running=1)
    await service.create(limited, SESSION)
    with pytest.raises(ResourceExhausted):
        await service.create(limited, SESSION)
    assert len(host.frozen()) == 1
    assert (await service.status(ADMIN)).pool.ready == 1


async def test_a_member_that_cannot_be_thawed_never_returns(service: Service, host: ScriptedHost) -> None:
    bad, good = host.machines
    host.faults["resume"] = [RuntimeFailed("stuck")]
    attachment = await service.create(ALICE, SESSION)
    assert attachment.sandbox_id == good
    await until(lambda: bad not in host.machines)
    assert {view.sandbox_id: view.running for view in await service.list(ALICE)} == {good: True, bad: False}


async def test_a_pool_whose_members_are_all_bad_still_gives_a_sandbox(
    service: Service, host: ScriptedHost
) -> None:
    host.faults["resume"] = [RuntimeFailed("stuck")] * 2
    attachment = await service.create(ALICE, SESSION)
    await until(lambda: host.running() == {attachment.sandbox_id} and not host.frozen())


async def test_a_host_that_is_away_costs_one_member_only(service: Service, host: ScriptedHost) -> None:
    host.faults["resume"] = [HostUnusable("hostd cannot be reached")] * 2
    with pytest.raises(HostUnusable, match="hostd cannot be reached"):
        await service.create(ALICE, SESSION)
    assert (await service.status(ADMIN)).pool.ready == 1


async def test_failing_refills_wait_longer_each_time_and_are_seen(
    service: Service, host: ScriptedHost, clock: FakeClock
) -> None:
    await service.create(ALICE, SESSION)
    host.faults["start"] = [RuntimeFailed("no more")] * 100
    await clock.advance(0.31)
    for failures, pause_s in enumerate((1, 2, 4, 8, 16, 32, 60, 60), start=1):
        await _failed(service, failures)
        tries = host.called["start"]
        await clock.advance(pause_s * 0.8)
        assert host.called["start"] == tries
        await clock.advance(pause_s * 0.3)
    await _failed(service, 9)
    pool = (await service.status(ADMIN)).pool
    assert (pool.ready, pool.last_error) == (1, "no more")
    host.faults["start"].clear()
    await clock.advance(61)
    await pool_filled(service, clock, 2)
    assert (await service.status(ADMIN)).pool.failures == 0


async def _failed(service: Service, times: int) -> None:
    async def counted() -> bool:
        return (await service.status(ADMIN)).pool.failures == times

    await until_awaited(counted, what=f"{times} failures")


async def test_the_records_of_members_are_kept_apart_and_forgotten(
    tmp_path: Path, host: ScriptedHost, clock: FakeClock
) -> None:
    async with serving(host, tmp_path, clock, settings(pool=1)) as service:
        await pool_filled(service, clock, 1)
        (first,) = host.machines
        host.die(first, Ended(exit_code=1, oom=False))
        await until(lambda: first not in host.machines)
        await pool_filled(service, clock, 1)
        assert (await service.status(ADMIN)).pool.ready == 1
    database = Database.open(tmp_path / "skerry.db")
    (record,) = await SandboxStore(database).active()
    assert (record.stage, record.owner, record.labels) == (Stage.POOLED, None, {})
    await database.close()
