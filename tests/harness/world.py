"""A service over a scripted host, with a clock that the test sets."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from skerry.control.egress import Egress
from skerry.control.host import Host
from skerry.service.requests import CreateRequest, Principal
from skerry.service.service import Service, open_service
from skerry.spec.ids import OwnerId, TokenId
from skerry.spec.settings import PoolSettings, Settings
from tests.harness.fake_clock import FakeClock
from tests.harness.scripted_egress import ScriptedEgress
from tests.harness.waiting import until_awaited

ALICE = Principal(token_id=TokenId("tok_alice"), owner=OwnerId("alice"), scopes=frozenset({"sandbox"}))
ALICE_TOO = msgspec.structs.replace(ALICE, token_id=TokenId("tok_alice2"))
BOB = Principal(token_id=TokenId("tok_bob"), owner=OwnerId("bob"), scopes=frozenset({"sandbox"}))
ADMIN = Principal(token_id=TokenId("tok_root"), owner=OwnerId("root"), scopes=frozenset({"sandbox", "admin"}))

SESSION = CreateRequest()
MINUTE = CreateRequest(session=False, duration_s=60)


def settings(*, pool: int = 0, **changes: Any) -> Settings:
    """Settings for the fake driver, without a pool unless asked for."""
    chosen = Settings(data_dir="/nowhere", isolation="fake", test_drivers=True, pool=PoolSettings(size=pool))
    return msgspec.structs.replace(chosen, **changes)


@asynccontextmanager
async def serving(
    host: Host,
    directory: Path,
    clock: FakeClock,
    chosen: Settings | None = None,
    *,
    egress: Egress | None = None,
) -> AsyncIterator[Service]:
    """One run of the server, from its start to its stop; sandboxes go on after it.

    Args:
        egress: One of its own when it is None, which forgets all at the end.
    """
    database = directory / "skerry.db"
    gateway = egress if egress is not None else ScriptedEgress()
    async with open_service(
        chosen or settings(), host=host, egress=gateway, database=database, clock=clock
    ) as service:
        yield service


async def pool_filled(service: Service, clock: FakeClock, size: int) -> None:
    """Let the quiet time pass, and wait until the pool is full."""
    await clock.advance(0.31)

    async def full() -> bool:
        return (await service.status(ADMIN)).pool.ready == size

    await until_awaited(full, what="a full pool")
