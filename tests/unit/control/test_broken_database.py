"""The database refuses (a full disk): nothing is left running that nobody has, and what was begun is
completed later.
"""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from skerry.control.store.database import Database
from skerry.errors import RuntimeFailed
from skerry.service.service import Service
from skerry.spec.sandbox import EndReason
from tests.harness.fake_clock import FakeClock
from tests.harness.scripted_host import ScriptedHost
from tests.harness.waiting import until, until_awaited
from tests.harness.world import ALICE, MINUTE, SESSION, pool_filled, serving, settings

Refuse = Callable[[set[int]], None]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def host() -> AsyncIterator[ScriptedHost]:
    made = ScriptedHost()
    yield made
    made.close()


@pytest.fixture
def refuse(monkeypatch: pytest.MonkeyPatch) -> Refuse:
    """Lets the commits with these numbers, counted from now, fail."""
    write = Database.write
    count, refused = 0, set[int]()

    async def breaking(database: Database, work: Callable[[Any], Any], *, durable: bool = False) -> Any:
        nonlocal count
        count += 1
        if count - 1 in refused:
            raise RuntimeFailed("the database could not be used")
        return await write(database, work, durable=durable)

    def choose(numbers: set[int]) -> None:
        nonlocal count
        count = 0
        refused.clear()
        refused.update(numbers)

    monkeypatch.setattr(Database, "write", breaking)
    return choose


async def _nothing_runs(service: Service, host: ScriptedHost, clock: FakeClock) -> None:
    await until(lambda: not host.running(), what="an end on the host")

    async def agreed() -> bool:
        await clock.advance(61)
        return not any(view.running for view in await service.list(ALICE))

    await until_awaited(agreed, what="an end in the records")


@pytest.mark.parametrize("commit", [0, 1], ids=["intent", "hand over"])
async def test_a_cold_create(
    host: ScriptedHost, tmp_path: Path, clock: FakeClock, refuse: Refuse, commit: int
) -> None:
    async with serving(host, tmp_path, clock) as service:
        await clock.advance(1)
        refuse({commit})
        with pytest.raises(RuntimeFailed, match="database"):
            await service.create(ALICE, SESSION)
        await _nothing_runs(service, host, clock)
        await service.create(ALICE, SESSION)


async def test_a_claim(host: ScriptedHost, tmp_path: Path, clock: FakeClock, refuse: Refuse) -> None:
    async with serving(host, tmp_path, clock, settings(pool=1)) as service:
        await pool_filled(service, clock, 1)
        (member,) = host.machines
        refuse({0})
        with pytest.raises(RuntimeFailed, match="database"):
            await service.create(ALICE, SESSION)
        await until(lambda: member not in host.machines)
        assert await service.list(ALICE) == []


@pytest.mark.parametrize("commits", [{0}, {1}, {0, 1}], ids=["intent", "result", "both"])
async def test_an_end(
    host: ScriptedHost, tmp_path: Path, clock: FakeClock, refuse: Refuse, commits: set[int]
) -> None:
    async with serving(host, tmp_path, clock) as service:
        attachment = await service.create(ALICE, MINUTE)
        refuse(commits)
        await attachment.detach(clean=True)
        await clock.advance(60.1)
        await _nothing_runs(service, host, clock)
        assert (await service.get(ALICE, attachment.sandbox_id)).end_reason is EndReason.EXPIRED


async def test_an_extension_that_is_not_recorded_is_not_confirmed(
    host: ScriptedHost, tmp_path: Path, clock: FakeClock, refuse: Refuse
) -> None:
    async with serving(host, tmp_path, clock) as service:
        attachment = await service.create(ALICE, MINUTE)
        refuse({0})
        with pytest.raises(RuntimeFailed, match="database"):
            await service.extend(ALICE, attachment.sandbox_id, clock.now_ms() + 600_000)
