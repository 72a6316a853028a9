"""The server starts again: who is served on, who is ended, and with which reason."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from skerry.errors import HostUnusable, SandboxEnded
from skerry.service.requests import Principal
from skerry.service.service import Service
from skerry.spec.ids import SandboxId
from skerry.spec.sandbox import Ended, EndReason
from tests.harness.fake_clock import FakeClock
from tests.harness.scripted_host import ScriptedHost
from tests.harness.waiting import until, until_awaited
from tests.harness.world import ALICE, ALICE_TOO, BOB, MINUTE, SESSION, pool_filled, serving, settings


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def host() -> AsyncIterator[ScriptedHost]:
    made = ScriptedHost()
    yield made
    made.close()


async def _reason(service: Service, who: Principal, sandbox_id: SandboxId) -> EndReason | None:
    async def ended() -> bool:
        return (await service.get(who, sandbox_id)).end_reason is not None

    await until_awaited(ended)
    return (await service.get(who, sandbox_id)).end_reason


async def test_sandboxes_go_on_with_all_they_had(
    host: ScriptedHost, tmp_path: Path, clock: FakeClock
) -> None:
    with_env = msgspec.structs.replace(MINUTE, env={"A": "1"}, labels={"k": "v"})
    async with serving(host, tmp_path, clock) as service:
        ids = [(await service.create(ALICE, with_env)).sandbox_id for _ in range(20)]
        before = await service.list(ALICE)
    async with serving(host, tmp_path, clock) as service:
        assert await service.list(ALICE) == before
        for sandbox_id in ids:
            attachment = await service.connect(ALICE, sandbox_id)
            assert await attachment.agent.env_all() == {"A": "1"}
            assert not attachment.primary
        await until(lambda: all(host.agent(one).calls["process.list"] for one in ids))
        await clock.advance(61)
        await until(lambda: not host.machines)
    assert host.called["start"] == 20


async def test_the_creator_of_a_session_comes_back_as_primary(
    host: ScriptedHost, tmp_path: Path, clock: FakeClock
) -> None:
    async with serving(host, tmp_path, clock) as service:
        sandbox_id = (await service.create(ALICE, SESSION)).sandbox_id
    async with serving(host, tmp_path, clock) as service:
        await clock.advance(59)
        other = await service.connect(ALICE_TOO, sandbox_id)
        assert not other.primary
        creator = await service.connect(ALICE, sandbox_id)
        assert creator.primary
        again = await service.connect(ALICE, sandbox_id)
        assert not again.primary
        await clock.advance(120)
        assert host.running() == {sandbox_id}
        await creator.detach(clean=True)
        assert await asyncio.wait_for(other.ended, 10) is EndReason.CLOSED


async def test_a_session_whose_creator_stays_away_is_ended(
    host: ScriptedHost, tmp_path: Path, clock: FakeClock
) -> None:
    async with serving(host, tmp_path, clock) as service:
        sandbox_id = (await service.create(ALICE, SESSION)).sandbox_id
    async with serving(host, tmp_path, clock) as service:
        other = await service.connect(ALICE_TOO, sandbox_id)
        await clock.advance(61)
        assert await asyncio.wait_for(other.ended, 10) is EndReason.DISCONNECTED
        await until(lambda: not host.machines)


async def test_time_runs_while_the_server_is_down(
    host: ScriptedHost, tmp_path: Path, clock: FakeClock
) -> None:
    async with serving(host, tmp_path, clock) as service:
        sandbox_id = (await service.create(ALICE, MINUTE)).sandbox_id
    await clock.advance(3600)
    async with serving(host, tmp_path, clock) as service:
        await clock.advance(0.1)
        assert await _reason(service, ALICE, sandbox_id) is EndReason.EXPIRED
        await until(lambda: not host.machines)


async def test_an_end_while_the_server_was_down_is_reported_as_it_was(
    host: ScriptedHost, tmp_path: Path, clock: FakeClock
) -> None:
    async with serving(host, tmp_path, clock) as service:
        oom, exited, vanished = [(await service.create(ALICE, MINUTE)).sandbox_id for _ in range(3)]
    host.die(oom, Ended(exit_code=137, oom=True))
    host.die(exited, Ended(exit_code=3, oom=False))
    host.vanish(vanished)
    async with serving(host, tmp_path, clock) as service:
        assert await _reason(service, ALICE, oom) is EndReason.OUT_OF_MEMORY
        assert await _reason(service, ALICE, exited) is EndReason.EXITED
        assert await _reason(service, ALICE, vanished) is EndReason.CRASHED
        assert (await service.get(ALICE, exited)).exit_code == 3
        await until(lambda: not host.machines)


async def test_after_a_reboot_everything_is_stopped_and_freed(
    host: ScriptedHost, tmp_path: Path, clock: FakeClock
) -> None:
    chosen = settings(pool=1)
    async with serving(host, tmp_path, clock, chosen) as service:
        session, timed = await service.create(ALICE, SESSION), await service.create(BOB, MINUTE)
        await pool_filled(service, clock, 1)
    host.reboot()
    async with serving(host, tmp_path, clock, settings()) as service:
        assert await _reason(service, ALICE, session.sandbox_id) is EndReason.HOST_RESTARTED
        assert await _reason(service, BOB, timed.sandbox_id) is EndReason.HOST_RESTARTED
        with pytest.raises(SandboxEnded, match="host_restarted"):
            await service.connect(BOB, timed.sandbox_id)
        await until(lambda: host.called["destroy"] == 3)


async def test_what_no_record_knows_is_swept(host: ScriptedHost, tmp_path: Path, clock: FakeClock) -> None:
    other = tmp_path / "other"
    other.mkdir()
    async with serving(host, other, clock) as service:
        await service.create(ALICE, MINUTE)
    async with serving(host, tmp_path, clock):
        await until(lambda: not host.machines)


async def test_an_end_that_was_begun_is_completed_with_its_reason(
    host: ScriptedHost, tmp_path: Path, clock: FakeClock
) -> None:
    async with serving(host, tmp_path, clock) as service:
        attachment = await service.create(ALICE, SESSION)
        host.stalled["destroy"] = asyncio.Event()
        await attachment.detach(clean=True)
        await until(lambda: host.called["destroy"])
    del host.stalled["destroy"]
    assert host.machines
    async with serving(host, tmp_path, clock) as service:
        await until(lambda: not host.machines)
        assert (await service.get(ALICE, attachment.sandbox_id)).end_reason is EndReason.CLOSED


async def test_pool_members_are_thawed_once_and_kept(
    host: ScriptedHost, tmp_path: Path, clock: FakeClock
) -> None:
    chosen = settings(pool=2)
    async with serving(host, tmp_path, clock, chosen) as service:
        await pool_filled(service, clock, 2)
        members = set(host.machines)
    async with serving(host, tmp_path, clock, chosen) as service:
        await pool_filled(service, clock, 2)
        assert host.frozen() == members
        attachment = await service.create(ALICE, SESSION)
        assert attachment.sandbox_id in members
        assert await attachment.agent.env_all() == {}
    assert host.called["start"] == 2


@pytest.mark.parametrize("change", ["smaller", "other memory", "too old", "silent"])
async def test_pool_members_that_will_not_do_are_discarded(
    host: ScriptedHost, tmp_path: Path, clock: FakeClock, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("skerry.control.recovery.HELLO_TIMEOUT_S", 0.1)
    chosen = settings(pool=1)
    async with serving(host, tmp_path, clock, chosen) as service:
        await pool_filled(service, clock, 1)
        (member,) = host.machines
    if change == "smaller":
        chosen = settings()
    elif change == "other memory":
        limits = msgspec.structs.replace(chosen.sandbox, default_memory_mib=2048)
        chosen = msgspec.structs.replace(chosen, sandbox=limits)
    elif change == "too old":
        clock.jump(3601)
    else:
        host.agent(member).mute = True
    async with serving(host, tmp_path, clock, chosen):
        await until(lambda: member not in host.machines)


async def test_a_host_that_goes_away_during_the_start_costs_no_sandbox(
    host: ScriptedHost, tmp_path: Path, clock: FakeClock
) -> None:
    async with serving(host, tmp_path, clock) as service:
        sandbox_id = (await service.create(ALICE, MINUTE)).sandbox_id
    host.faults["listen"] = [HostUnusable("gone")]
    async with serving(host, tmp_path, clock) as service:
        assert host.running() == {sandbox_id}
        host.publish(None)
        attachment = await service.connect(ALICE, sandbox_id)
        assert await attachment.agent.env_all() == {}


async def test_a_host_that_cannot_be_reached_at_all_fails_the_start_and_changes_nothing(
    host: ScriptedHost, tmp_path: Path, clock: FakeClock
) -> None:
    async with serving(host, tmp_path, clock) as service:
        sandbox_id = (await service.create(ALICE, MINUTE)).sandbox_id
    host.faults["inspect"] = [HostUnusable("gone")]
    with pytest.raises(HostUnusable, match="gone"):
        async with serving(host, tmp_path, clock):
            pytest.fail("it started")
    assert host.running() == {sandbox_id}


async def test_stopped_sandboxes_are_forgotten_after_a_day(
    host: ScriptedHost, tmp_path: Path, clock: FakeClock
) -> None:
    async with serving(host, tmp_path, clock) as service:
        await service.kill(ALICE, (await service.create(ALICE, SESSION)).sandbox_id)
        clock.jump(23 * 3600)
        await clock.advance(61)
        assert len(await service.list(ALICE)) == 1
        clock.jump(3600)

        async def forgotten() -> bool:
            await clock.advance(61)
            return await service.list(ALICE) == []

        await until_awaited(forgotten)
