"""The warm pool of a whole Skerry on gVisor: what its members know when a client gets them, and what happens
when there are none.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest

from tests.conftest import Built
from tests.harness.raw_client import RawClient, until
from tests.harness.skerry_up import SkerryUp

pytestmark = [pytest.mark.needs_root, pytest.mark.timeout(120)]

LONG_ENOUGH_FROZEN_S = 8.0
CLOCK_TOLERANCE_S = 0.25


@pytest.fixture
def skerry(tmp_path: Path, built: Built) -> Iterator[SkerryUp]:
    """One with a pool of two, which must leave nothing."""
    made = SkerryUp(tmp_path / "data")
    made.environment |= {"SKERRY_POOL_SIZE": "2"}
    made.up()
    yield made
    made.command("down", expect=None)
    assert made.leftovers() == []


@pytest.fixture
async def client(skerry: SkerryUp) -> AsyncIterator[RawClient]:
    """Calls it."""
    async with aiohttp.ClientSession() as session:
        yield RawClient(skerry, session)


async def full(skerry: SkerryUp) -> None:
    """Wait until the pool has all its members."""

    async def ready() -> bool:
        pool = skerry.json("status")["server"]["pool"]
        return bool(pool["ready"] == pool["target"])

    await until(ready, "a full pool")


async def test_the_clock_is_right_at_the_first_command_after_a_long_freeze(
    skerry: SkerryUp, client: RawClient
) -> None:
    await full(skerry)
    await asyncio.sleep(LONG_ENOUGH_FROZEN_S)  # the freeze itself; nothing is waited for
    sandbox_id, socket = await client.create(timeout="5m")
    before_s = time.time()
    told_s = float(skerry.text("exec", sandbox_id, "date +%s.%N"))
    after_s = time.time()
    assert before_s - CLOCK_TOLERANCE_S <= told_s <= after_s + CLOCK_TOLERANCE_S
    await socket.close()


async def test_a_burst_larger_than_the_pool_is_served_and_the_pool_fills_again(
    skerry: SkerryUp, client: RawClient
) -> None:
    await full(skerry)
    made = await asyncio.gather(*(client.create(timeout="5m") for _ in range(6)))
    ids = [sandbox_id for sandbox_id, _ in made]
    assert len(set(ids)) == 6
    assert all(await asyncio.gather(*(client.serves(one) for one in ids)))
    await full(skerry)
    rows = await client.list()
    assert {one for one, row in rows.items() if row["running"]} == set(ids)
    for _, socket in made:
        await socket.close()


async def test_what_the_pool_cannot_have_ready_is_started_at_once(
    skerry: SkerryUp, client: RawClient
) -> None:
    await full(skerry)
    sandbox_id, socket = await client.create(timeout="5m", memory_mb=1024)
    row = (await client.list())[sandbox_id]
    assert (row["memory_mib"], row["isolation"]) == (1024, "gvisor")
    assert skerry.json("status")["server"]["pool"]["ready"] == 2
    await socket.close()
