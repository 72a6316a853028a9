"""What ends a sandbox, and when: the tables of the design, over a scripted host."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from skerry.errors import (
    InvalidRequest,
    NotFound,
    ResourceExhausted,
    RuntimeFailed,
    SandboxEnded,
    TimedOut,
)
from skerry.service.requests import CreateRequest
from skerry.service.service import Service
from skerry.spec.sandbox import Ended, EndReason
from tests.harness.fake_clock import FakeClock, settle_loop
from tests.harness.scripted_host import ScriptedHost
from tests.harness.waiting import until
from tests.harness.world import ALICE, ALICE_TOO, BOB, MINUTE, SESSION, pool_filled, serving, settings


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
    async with serving(host, tmp_path, clock) as running:
        yield running


async def test_a_created_sandbox_serves(service: Service, host: ScriptedHost) -> None:
    attachment = await service.create(
        ALICE, msgspec.structs.replace(SESSION, env={"A": "1"}, labels={"k": "v"})
    )
    assert attachment.primary
    assert await attachment.agent.env_all() == {"A": "1"}
    assert host.running() == {attachment.sandbox_id}
    view = await service.get(ALICE, attachment.sandbox_id)
    assert (view.running, view.labels, view.memory_mib, view.session) == (True, {"k": "v"}, 1280, True)
    assert view.isolation == "fake"


async def test_a_session_ends_at_once_when_its_primary_says_goodbye(
    service: Service, host: ScriptedHost
) -> None:
    first = await service.create(ALICE, SESSION)
    second = await service.connect(ALICE_TOO, first.sandbox_id)
    assert not second.primary
    await first.detach(clean=True)
    assert await asyncio.wait_for(second.ended, 10) is EndReason.CLOSED
    await until(lambda: not host.machines)
    with pytest.raises(SandboxEnded, match="closed"):
        await service.connect(ALICE, first.sandbox_id)


async def test_a_session_ends_after_a_grace_when_its_primarys_connection_breaks(
    service: Service, host: ScriptedHost, clock: FakeClock
) -> None:
    attachment = await service.create(ALICE, SESSION)
    await attachment.detach(clean=False)
    await settle_loop()
    secondary = await service.connect(ALICE, attachment.sandbox_id)
    assert not secondary.primary
    await clock.advance(1.9)
    assert host.running() == {attachment.sandbox_id}
    await clock.advance(0.2)
    assert await asyncio.wait_for(attachment.ended, 10) is EndReason.DISCONNECTED
    await until(lambda: not host.machines)


async def test_a_secondary_may_come_and_go(service: Service, host: ScriptedHost, clock: FakeClock) -> None:
    first = await service.create(ALICE, SESSION)
    second = await service.connect(ALICE, first.sandbox_id)
    await second.detach(clean=True)
    await clock.advance(3600)
    assert host.running() == {first.sandbox_id}


@pytest.mark.parametrize("clean", [True, False])
async def test_a_sandbox_with_a_duration_outlives_its_clients_until_its_time(
    service: Service, host: ScriptedHost, clock: FakeClock, clean: bool
) -> None:
    attachment = await service.create(ALICE, MINUTE)
    await attachment.detach(clean=clean)
    await clock.advance(59)
    late = await service.connect(ALICE_TOO, attachment.sandbox_id)
    await clock.advance(1.1)
    assert await asyncio.wait_for(late.ended, 10) is EndReason.EXPIRED
    await until(lambda: not host.machines)


async def test_an_absolute_end_holds_although_the_machine_slept(
    service: Service, host: ScriptedHost, clock: FakeClock
) -> None:
    attachment = await service.create(
        ALICE, CreateRequest(session=False, stop_at_ms=clock.now_ms() + 600_000)
    )
    await settle_loop()
    clock.jump(601)
    await clock.advance(31)
    assert await asyncio.wait_for(attachment.ended, 10) is EndReason.EXPIRED


async def test_a_clock_that_was_set_back_does_not_end_it_early(
    service: Service, host: ScriptedHost, clock: FakeClock
) -> None:
    attachment = await service.create(ALICE, MINUTE)
    await settle_loop()
    clock.jump(-3600)
    await clock.advance(600)
    assert host.running() == {attachment.sandbox_id}


async def test_an_extension_gives_the_later_end(
    service: Service, host: ScriptedHost, clock: FakeClock
) -> None:
    attachment = await service.create(ALICE, MINUTE)
    end = clock.now_ms() + 60_000
    assert await service.extend(ALICE, attachment.sandbox_id, end - 30_000) == end
    assert await service.extend(ALICE, attachment.sandbox_id, end + 30_000) == end + 30_000
    assert attachment.stop_at_ms == end + 30_000
    await clock.advance(89)
    assert host.running()
    await clock.advance(1.1)
    assert await asyncio.wait_for(attachment.ended, 10) is EndReason.EXPIRED


async def test_an_extension_of_a_session_is_remembered_only(
    service: Service, host: ScriptedHost, clock: FakeClock
) -> None:
    attachment = await service.create(ALICE, SESSION)
    end = clock.now_ms() + 10_000
    assert await service.extend(ALICE, attachment.sandbox_id, end) == end
    await clock.advance(60)
    assert host.running() == {attachment.sandbox_id}
    await attachment.detach(clean=True)
    assert await asyncio.wait_for(attachment.ended, 10) is EndReason.CLOSED


async def test_what_cannot_be_extended(service: Service, clock: FakeClock) -> None:
    attachment = await service.create(ALICE, MINUTE)
    with pytest.raises(InvalidRequest, match="in the past"):
        await service.extend(ALICE, attachment.sandbox_id, clock.now_ms())
    with pytest.raises(NotFound):
        await service.extend(BOB, attachment.sandbox_id, clock.now_ms() + 1000)
    await service.kill(ALICE, attachment.sandbox_id)
    with pytest.raises(SandboxEnded, match="killed"):
        await service.extend(ALICE, attachment.sandbox_id, clock.now_ms() + 1000)


async def test_an_extension_is_cut_to_the_longest_lifetime(
    host: ScriptedHost, tmp_path: Path, clock: FakeClock
) -> None:
    chosen = settings()
    chosen = msgspec.structs.replace(
        chosen, sandbox=msgspec.structs.replace(chosen.sandbox, max_lifetime_s=1800)
    )
    async with serving(host, tmp_path, clock, chosen) as service:
        attachment = await service.create(ALICE, MINUTE)
        far = clock.now_ms() + 999_000_000
        assert await service.extend(ALICE, attachment.sandbox_id, far) == clock.now_ms() + 1_800_000


async def test_a_kill_returns_when_nothing_is_left(service: Service, host: ScriptedHost) -> None:
    attachment = await service.create(ALICE, SESSION)
    await service.kill(ALICE_TOO, attachment.sandbox_id)
    assert not host.machines
    assert attachment.ended.result() is EndReason.KILLED
    await service.kill(ALICE, attachment.sandbox_id)
    view = await service.get(ALICE, attachment.sandbox_id)
    assert (view.running, view.end_reason) == (False, EndReason.KILLED)
    assert view.stopped_at_ms is not None


async def test_a_pending_call_is_answered_before_the_host_frees(service: Service, host: ScriptedHost) -> None:
    attachment = await service.create(ALICE, SESSION)
    host.agent(attachment.sandbox_id).thawed.clear()
    host.stalled["destroy"] = asyncio.Event()
    pending = asyncio.create_task(attachment.agent.env_all())
    killing = asyncio.create_task(service.kill(ALICE, attachment.sandbox_id))
    with pytest.raises(SandboxEnded, match="killed"):
        await asyncio.wait_for(pending, 10)
    assert not killing.done()
    host.stalled["destroy"].set()
    await killing


async def test_a_kill_says_when_the_host_is_slow_and_is_completed_later(
    service: Service, host: ScriptedHost, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("skerry.control.control.END_TIMEOUT_S", 0.05)
    attachment = await service.create(ALICE, SESSION)
    host.stalled["destroy"] = asyncio.Event()
    with pytest.raises(TimedOut, match="ending the sandbox"):
        await service.kill(ALICE, attachment.sandbox_id)
    with pytest.raises(SandboxEnded):
        await service.connect(ALICE, attachment.sandbox_id)
    host.stalled["destroy"].set()
    await until(lambda: not host.machines)


async def test_an_end_that_the_host_refused_is_taken_up_again(
    service: Service, host: ScriptedHost, clock: FakeClock
) -> None:
    attachment = await service.create(ALICE, SESSION)
    host.faults["destroy"] = [RuntimeFailed("busy")] * 3
    await attachment.detach(clean=True)
    await until(lambda: clock.pending() > 1 or host.called["destroy"] == 1)
    for _ in range(3):
        await clock.advance(1)
    await until(lambda: not host.faults["destroy"])
    assert host.machines
    await clock.advance(61)
    await until(lambda: not host.machines)
    await until(lambda: attachment.ended.done())
    assert (await service.get(ALICE, attachment.sandbox_id)).end_reason is EndReason.CLOSED


@pytest.mark.parametrize(
    ("ended", "reason", "exit_code"),
    [
        (Ended(exit_code=137, oom=True), EndReason.OUT_OF_MEMORY, 137),
        (Ended(exit_code=0, oom=False), EndReason.EXITED, 0),
        (Ended(exit_code=139, oom=False), EndReason.CRASHED, 139),
        (Ended(exit_code=None, oom=False), EndReason.CRASHED, None),
    ],
)
async def test_an_end_by_itself_is_reported_as_it_was(
    service: Service, host: ScriptedHost, ended: Ended, reason: EndReason, exit_code: int | None
) -> None:
    attachment = await service.create(ALICE, MINUTE)
    host.die(attachment.sandbox_id, ended)
    assert await asyncio.wait_for(attachment.ended, 10) is reason
    await until(lambda: not host.machines)
    view = await service.get(ALICE, attachment.sandbox_id)
    assert (view.end_reason, view.exit_code) == (reason, exit_code)


async def test_an_end_that_nobody_reported_is_found_when_news_may_have_been_missed(
    service: Service, host: ScriptedHost
) -> None:
    died, vanished, lives = [await service.create(ALICE, MINUTE) for _ in range(3)]
    host.die(died.sandbox_id, Ended(exit_code=3, oom=False), tell=False)
    host.vanish(vanished.sandbox_id)
    host.publish(None)
    assert await asyncio.wait_for(died.ended, 10) is EndReason.EXITED
    assert await asyncio.wait_for(vanished.ended, 10) is EndReason.CRASHED
    assert host.running() == {lives.sandbox_id}


async def test_memory_pressure_is_passed_to_the_agent_once_at_a_time(
    service: Service, host: ScriptedHost
) -> None:
    attachment = await service.create(ALICE, SESSION)
    agent = host.agent(attachment.sandbox_id)
    host.press(attachment.sandbox_id)
    await until(lambda: agent.calls["system.reclaim"] == 1)
    agent.thawed.clear()
    host.press(attachment.sandbox_id)
    host.press(attachment.sandbox_id)
    await settle_loop()
    agent.thawed.set()
    await until(lambda: agent.calls["system.reclaim"] == 2)
    assert host.running() == {attachment.sandbox_id}


async def test_going_down_ends_everything_and_refuses_more(
    host: ScriptedHost, tmp_path: Path, clock: FakeClock
) -> None:
    async with serving(host, tmp_path, clock, settings(pool=2)) as service:
        await pool_filled(service, clock, 2)
        one, two = await service.create(ALICE, SESSION), await service.create(BOB, MINUTE)
        await service.end_all()
        assert not host.machines
        assert {one.ended.result(), two.ended.result()} == {EndReason.SERVER_STOPPED}
        with pytest.raises(ResourceExhausted, match="stopping"):
            await service.create(ALICE, SESSION)
        await clock.advance(60)
        assert not host.machines
