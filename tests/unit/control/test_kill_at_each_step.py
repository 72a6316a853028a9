"""The server dies at every moment of a create: nothing is left that nobody wants, and nothing that ran is
lost.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from skerry.service.requests import CreateRequest
from skerry.service.service import Service
from skerry.spec.ids import SandboxId
from tests.harness.fake_clock import FakeClock
from tests.harness.killing import KillSwitch, MortalEgress, MortalHost, mortal_database
from tests.harness.scripted_egress import ScriptedEgress
from tests.harness.scripted_host import ScriptedHost
from tests.harness.waiting import until, until_awaited
from tests.harness.world import ALICE, BOB, SESSION, pool_filled, serving, settings

HOUR = CreateRequest(session=False, duration_s=3600, env={"WHOSE": "bob"})
REQUESTS = {"session": SESSION, "duration": CreateRequest(session=False, duration_s=300)}


async def _first_run(
    host: ScriptedHost,
    egress: ScriptedEgress,
    directory: Path,
    clock: FakeClock,
    switch: KillSwitch,
    pool: int,
    request: CreateRequest,
) -> SandboxId:
    """Start a bystander, then create under the switch."""
    gateway: Any = MortalEgress(egress, switch)
    async with serving(
        MortalHost(host, switch), directory, clock, settings(pool=pool), egress=gateway
    ) as service:
        bystander = await service.create(BOB, HOUR)
        await pool_filled(service, clock, pool)
        switch.on_kill(lambda: None)
        switch.armed = True
        (directory / "bystander").write_text(bystander.sandbox_id)
        await service.create(ALICE, request)
        switch.armed = False
    return bystander.sandbox_id


@asynccontextmanager
async def _killed(
    at: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pool: int, request: CreateRequest
) -> AsyncIterator[tuple[ScriptedHost, ScriptedEgress, FakeClock, KillSwitch, Path]]:
    host, egress, clock = ScriptedHost(), ScriptedEgress(), FakeClock()
    first, survivor = tmp_path / "first", tmp_path / "survivor"
    first.mkdir()
    switch = KillSwitch(at, first, survivor)
    with mortal_database(switch, monkeypatch):
        run = asyncio.create_task(_first_run(host, egress, first, clock, switch, pool, request))
        death = asyncio.create_task(switch.killed.wait())
        await asyncio.wait({run, death}, timeout=30, return_when=asyncio.FIRST_COMPLETED)
        for task in (run, death):
            task.cancel()
        await asyncio.gather(run, death, return_exceptions=True)
    try:
        yield host, egress, clock, switch, survivor
    finally:
        host.close()


async def _nothing_is_lost_or_left(
    service: Service, host: ScriptedHost, egress: ScriptedEgress, clock: FakeClock, bystander: SandboxId
) -> None:
    attachment = await service.connect(BOB, bystander)
    assert await attachment.agent.env_all() == {"WHOSE": "bob"}
    listed = {view.sandbox_id for view in await service.list(ALICE) if view.running}
    await until(lambda: host.running() == listed | {bystander}, what="agreement of records and host")
    await until(lambda: egress.served.keys() == host.running(), what="agreement with the gateway")
    await clock.advance(301)
    await until(lambda: host.running() == {bystander}, what="the end of what nobody came back for")
    await until(lambda: egress.served.keys() == {bystander}, what="the release of what ended")

    async def all_stopped() -> bool:
        return not any(view.running for view in await service.list(ALICE))

    await until_awaited(all_stopped)
    assert not attachment.ended.done()


@pytest.mark.parametrize("pool", [0, 1], ids=["cold", "warm"])
@pytest.mark.parametrize("kind", REQUESTS)
async def test_at_each_moment_of_a_create(
    pool: int, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = REQUESTS[kind]
    (tmp_path / "whole").mkdir()
    async with _killed(None, tmp_path / "whole", monkeypatch, pool, request) as (_, _, _, switch, _):
        moments = list(switch.moments)
    expected = ["commit", "resume", "grant"] if pool else ["commit", "listen", "start", "grant", "commit"]
    every = [f"{when} {name}" for name in expected for when in ("before", "after")]
    assert sorted(moments) == sorted(every), "resuming and granting go on at once"
    assert moments[:2] == every[:2], "the record comes first"
    for at in range(len(moments)):
        place = tmp_path / str(at)
        place.mkdir()
        async with _killed(at, place, monkeypatch, pool, request) as (
            host,
            egress,
            clock,
            switch,
            survivor,
        ):
            assert switch.killed.is_set()
            bystander = SandboxId((place / "first" / "bystander").read_text())
            async with serving(host, survivor, clock, settings(pool=0), egress=egress) as service:
                await _nothing_is_lost_or_left(service, host, egress, clock, bystander)
