"""The gateway and the records after restarts of either: what is missing is granted again, the rest is
released.
"""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from skerry.errors import HostUnusable
from skerry.policy.document import PolicyDocument
from skerry.protocol.egress_verbs import Grant, NamedLayer
from skerry.spec.ids import OwnerId, SandboxId
from tests.harness.fake_clock import FakeClock
from tests.harness.scripted_egress import ScriptedEgress
from tests.harness.scripted_host import ScriptedHost
from tests.harness.waiting import until, until_awaited
from tests.harness.world import ADMIN, ALICE, MINUTE, SESSION, pool_filled, serving, settings

VALUE = "the-value-of-a-secret-0123456789"
WITH_SECRET = msgspec.structs.replace(MINUTE, secrets={"API_KEY": {"hosts": ["api.example"], "value": VALUE}})
UNKNOWN = SandboxId("sbx_ord_" + "0" * 20)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def host() -> AsyncIterator[ScriptedHost]:
    made = ScriptedHost()
    yield made
    made.close()


@pytest.fixture
def egress() -> ScriptedEgress:
    return ScriptedEgress()


async def test_a_restart_of_the_server_changes_nothing_at_the_gateway(
    host: ScriptedHost, egress: ScriptedEgress, clock: FakeClock, tmp_path: Path
) -> None:
    async with serving(host, tmp_path, clock, egress=egress) as service:
        made = await service.create(ALICE, WITH_SECRET)
    async with serving(host, tmp_path, clock, egress=egress) as service:
        await until(lambda: egress.called["describe"] >= 2)
        assert egress.called["grant"] == 1
        assert (await service.outbound.secrets(ALICE, made.sandbox_id))[0].state == "active"
        assert not egress.called["release"]


@pytest.mark.parametrize("when", ["while the server runs", "while it is down"])
async def test_what_every_daemon_has_lost_is_granted_again_without_values(
    host: ScriptedHost, egress: ScriptedEgress, clock: FakeClock, tmp_path: Path, when: str
) -> None:
    async with serving(host, tmp_path, clock, egress=egress) as service:
        made = await service.create(ALICE, WITH_SECRET)
        before = egress.served[made.sandbox_id].grant
        if when == "while the server runs":
            egress.forget_all()
            await until(lambda: host.agent(made.sandbox_id).calls["trust.install"] == 2)
    egress.forget_all()
    async with serving(host, tmp_path, clock, egress=egress) as service:
        await until(lambda: egress.served)
        again = egress.served[made.sandbox_id].grant
        assert [one.placeholder for one in again.secrets] == [one.placeholder for one in before.secrets]
        assert [one.value for one in again.secrets] == [None]
        assert (again.layers, again.owner) == (before.layers, before.owner)
        assert (await service.outbound.secrets(ALICE, made.sandbox_id))[0].state == "lost"
        status = await service.status(ADMIN)
        assert status.egress is not None
        assert [(one.sandbox_id, one.lost) for one in status.egress.sandboxes] == [(made.sandbox_id, True)]
        await service.outbound.rotate(ALICE, made.sandbox_id, "API_KEY", VALUE)
        assert (await service.outbound.secrets(ALICE, made.sandbox_id))[0].state == "active"


async def test_another_authority_is_trusted_inside_as_soon_as_the_agent_answers(
    host: ScriptedHost, egress: ScriptedEgress, clock: FakeClock, tmp_path: Path
) -> None:
    async with serving(host, tmp_path, clock, egress=egress) as service:
        made = await service.create(ALICE, WITH_SECRET)
        agent = host.agent(made.sandbox_id)
        egress.faults["grant"] = [HostUnusable("not yet")]
        egress.forget_all()
        await until(lambda: egress.called["grant"] == 2)
        assert not egress.served
        egress.restart()
        await until(lambda: agent.calls["trust.install"] == 2)
        assert egress.served.keys() == {made.sandbox_id}


async def test_what_nobody_wants_is_released(
    host: ScriptedHost, egress: ScriptedEgress, clock: FakeClock, tmp_path: Path
) -> None:
    layer = NamedLayer(name="sandbox", document=PolicyDocument(default="public"))
    await egress.grant(Grant(sandbox_id=UNKNOWN, owner=OwnerId("nobody"), layers=(layer,)))
    async with serving(host, tmp_path, clock, egress=egress) as service:
        made = await service.create(ALICE, SESSION)
        await until(lambda: egress.served.keys() == {made.sandbox_id})


async def test_a_gateway_that_is_away_at_the_start_holds_up_nothing(
    host: ScriptedHost, egress: ScriptedEgress, clock: FakeClock, tmp_path: Path
) -> None:
    async with serving(host, tmp_path, clock, egress=egress) as service:
        made = await service.create(ALICE, msgspec.structs.replace(MINUTE, duration_s=10**6))
    egress.served.clear()
    egress.faults["describe"] = [HostUnusable("away")]
    async with serving(host, tmp_path, clock, egress=egress) as service:
        assert (await service.connect(ALICE, made.sandbox_id)).sandbox_id == made.sandbox_id
        await until(lambda: not egress.faults["describe"])
        assert not egress.served

        async def served() -> bool:
            await clock.advance(61)
            return bool(egress.served)

        await until_awaited(served)


async def test_the_pool_is_no_business_of_the_gateway(
    host: ScriptedHost, egress: ScriptedEgress, clock: FakeClock, tmp_path: Path
) -> None:
    for _ in range(2):
        async with serving(host, tmp_path, clock, settings(pool=2), egress=egress) as service:
            await pool_filled(service, clock, 2)
            await clock.advance(61)
    assert not egress.called["grant"]
    assert not egress.called["release"]


async def test_a_sandbox_that_is_being_made_is_neither_granted_twice_nor_released(
    host: ScriptedHost, egress: ScriptedEgress, clock: FakeClock, tmp_path: Path
) -> None:
    async with serving(host, tmp_path, clock, egress=egress) as service:
        egress.stalled["grant"] = asyncio.Event()
        creating = asyncio.create_task(service.create(ALICE, SESSION))
        await until(lambda: egress.called["grant"])
        egress.restart()
        await until(lambda: egress.called["describe"] >= 2)
        egress.stalled["grant"].set()
        made = await creating
        egress.restart()
        await until(lambda: egress.called["describe"] >= 3)
        assert egress.called["grant"] == 1
        assert egress.served.keys() == {made.sandbox_id}
        assert not egress.called["release"]


async def test_a_sandbox_that_ends_while_it_is_granted_again_is_released(
    host: ScriptedHost, egress: ScriptedEgress, clock: FakeClock, tmp_path: Path
) -> None:
    async with serving(host, tmp_path, clock, egress=egress) as service:
        made = await service.create(ALICE, MINUTE)
        egress.stalled["grant"] = asyncio.Event()
        egress.forget_all()
        await until(lambda: egress.called["grant"] == 2)
        await service.kill(ALICE, made.sandbox_id)
        egress.stalled["grant"].set()
        await until(lambda: egress.called["release"] == 2)
        assert not egress.served
