"""Creating when something fails: nothing is left, and the answer says what went wrong."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from skerry.errors import (
    HostUnusable,
    NotFound,
    ResourceExhausted,
    RuntimeFailed,
    SkerryError,
    TimedOut,
)
from skerry.service.service import Service
from skerry.spec.sandbox import Ended, EndReason
from tests.harness.fake_clock import FakeClock
from tests.harness.scripted_host import ScriptedHost
from tests.harness.waiting import until, until_awaited
from tests.harness.world import ALICE, BOB, MINUTE, SESSION, pool_filled, serving, settings


@pytest.fixture
async def host() -> AsyncIterator[ScriptedHost]:
    made = ScriptedHost()
    yield made
    made.close()


@pytest.fixture
async def service(host: ScriptedHost, tmp_path: Path) -> AsyncIterator[Service]:
    async with serving(host, tmp_path, FakeClock()) as running:
        yield running


async def _only_start_failed(service: Service, host: ScriptedHost) -> None:
    async def recorded() -> bool:
        views = await service.list(ALICE)
        return [(view.running, view.end_reason) for view in views] == [(False, EndReason.START_FAILED)]

    await until_awaited(recorded, what="the record of a failed start")
    await until(lambda: not host.machines and not host.factories, what="an empty host")


@pytest.mark.parametrize("verb", ["listen", "start"])
@pytest.mark.parametrize(
    "error", [RuntimeFailed("it broke"), ResourceExhausted("no memory"), HostUnusable("away")]
)
async def test_a_step_that_fails_on_the_host(
    service: Service, host: ScriptedHost, verb: str, error: SkerryError
) -> None:
    host.faults[verb] = [error]
    with pytest.raises(type(error), match=error.message):
        await service.create(ALICE, SESSION)
    await _only_start_failed(service, host)


async def test_a_sandbox_that_ends_before_its_agent_speaks(service: Service, host: ScriptedHost) -> None:
    host.mute_agents = True
    creating = asyncio.create_task(service.create(ALICE, SESSION))
    await until(lambda: host.machines)
    (sandbox_id,) = host.machines
    host.die(sandbox_id, Ended(exit_code=1, oom=False))
    with pytest.raises(RuntimeFailed, match="ended while it was being started") as error:
        await asyncio.wait_for(creating, 10)
    assert error.value.code == "SANDBOX_START_FAILED"
    await _only_start_failed(service, host)


async def test_an_agent_that_never_speaks_costs_the_boot_timeout(host: ScriptedHost, tmp_path: Path) -> None:
    chosen = settings()
    chosen = msgspec.structs.replace(
        chosen, sandbox=msgspec.structs.replace(chosen.sandbox, boot_timeout_s=0.2)
    )
    async with serving(host, tmp_path, FakeClock(), chosen) as service:
        host.stalled["start"] = asyncio.Event()
        with pytest.raises(TimedOut, match="starting the sandbox"):
            await service.create(ALICE, SESSION)
        host.stalled["start"].set()
        await _only_start_failed(service, host)


async def test_a_create_that_is_cancelled(service: Service, host: ScriptedHost) -> None:
    host.stalled["start"] = asyncio.Event()
    creating = asyncio.create_task(service.create(ALICE, SESSION))
    await until(lambda: host.called["start"])
    creating.cancel()
    with pytest.raises(asyncio.CancelledError):
        await creating
    host.stalled["start"].set()
    await _only_start_failed(service, host)


async def test_a_create_that_is_cancelled_while_it_is_being_recorded(
    service: Service, host: ScriptedHost
) -> None:
    creating = asyncio.create_task(service.create(ALICE, SESSION))
    await asyncio.sleep(0)
    creating.cancel()
    with pytest.raises(asyncio.CancelledError):
        await creating
    await _only_start_failed(service, host)


async def test_an_environment_that_cannot_be_set(
    service: Service, host: ScriptedHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: object, **__: object) -> None:
        raise RuntimeFailed("no room")

    monkeypatch.setattr("skerry.control.agent.AgentClient.env_update", refuse)
    with pytest.raises(RuntimeFailed, match="no room"):
        await service.create(ALICE, msgspec.structs.replace(SESSION, env={"A": "1"}))
    await _only_start_failed(service, host)


async def test_a_sandbox_that_is_being_started_is_nobodys_yet(service: Service, host: ScriptedHost) -> None:
    host.stalled["start"] = asyncio.Event()
    creating = asyncio.create_task(service.create(ALICE, SESSION))
    await until(lambda: host.called["start"])
    (sandbox_id,) = host.factories
    assert await service.list(ALICE) == []
    for ask in (service.get, service.kill, service.connect):
        with pytest.raises(NotFound):
            await ask(ALICE, sandbox_id)
    host.stalled["start"].set()
    assert (await creating).sandbox_id == sandbox_id


async def test_quotas_refuse_before_anything_is_started(host: ScriptedHost, tmp_path: Path) -> None:
    chosen = settings()
    chosen = msgspec.structs.replace(
        chosen, sandbox=msgspec.structs.replace(chosen.sandbox, max_running_per_owner=2)
    )
    async with serving(host, tmp_path, FakeClock(), chosen) as service:
        first, _ = await service.create(ALICE, MINUTE), await service.create(ALICE, MINUTE)
        with pytest.raises(ResourceExhausted, match=r"2 sandboxes of this owner .* limit is 2"):
            await service.create(ALICE, MINUTE)
        limited = msgspec.structs.replace(BOB, max_running=1)
        await service.create(limited, MINUTE)
        with pytest.raises(ResourceExhausted, match="1 sandboxes of this token"):
            await service.create(limited, MINUTE)
        assert host.called["start"] == 3
        await service.kill(ALICE, first.sandbox_id)
        await service.create(ALICE, MINUTE)


async def test_a_burst_never_exceeds_a_quota(host: ScriptedHost, tmp_path: Path) -> None:
    chosen = settings(pool=2)
    chosen = msgspec.structs.replace(
        chosen, sandbox=msgspec.structs.replace(chosen.sandbox, max_running_per_owner=5)
    )
    clock = FakeClock()
    async with serving(host, tmp_path, clock, chosen) as service:
        await pool_filled(service, clock, 2)
        made = await asyncio.gather(
            *(service.create(ALICE, MINUTE) for _ in range(20)), return_exceptions=True
        )
        refused = [one for one in made if isinstance(one, ResourceExhausted)]
        assert len(refused) == 15
        assert len(host.running()) == 5


async def test_nobody_gets_what_somebody_else_got(host: ScriptedHost, tmp_path: Path) -> None:
    clock = FakeClock()
    async with serving(host, tmp_path, clock, settings(pool=3)) as service:
        await pool_filled(service, clock, 3)
        made = await asyncio.gather(*(service.create(who, SESSION) for who in (ALICE, BOB) * 10))
        assert len({one.sandbox_id for one in made}) == 20


async def test_no_isolation_says_what_is_missing(tmp_path: Path) -> None:
    host = ScriptedHost(usable=False)
    async with serving(host, tmp_path, FakeClock(), settings(pool=2)) as service:
        with pytest.raises(HostUnusable, match="it was switched off; switch it on"):
            await service.create(ALICE, SESSION)
    host.close()
