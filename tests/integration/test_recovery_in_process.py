"""The server starts again over real agents: what they printed meanwhile is complete, and the pool serves
on.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from skerry.control.agent import Gap, Process
from skerry.control.clock import SystemClock
from skerry.service.requests import CreateRequest
from skerry.service.service import Service, open_service
from skerry.spec.sandbox import EndReason
from skerry.spec.settings import PoolSettings, Settings
from tests.conftest import Built
from tests.harness.in_process_host import InProcessHost, fake_host
from tests.harness.scripted_egress import ScriptedEgress
from tests.harness.waiting import until, until_awaited
from tests.harness.world import ADMIN, ALICE

TIMED = CreateRequest(session=False, duration_s=600)
LINES = 40_000
COUNT = f"i=0; while [ $i -lt {LINES} ]; do echo line $i; i=$((i+1)); done"
PRINTED = "".join(f"line {number}\n" for number in range(LINES)).encode()


@pytest.fixture
async def host(built: Built) -> AsyncIterator[InProcessHost]:
    async with fake_host(built.agent) as running:
        yield running


def settings(directory: Path, pool: int) -> Settings:
    quick = PoolSettings(size=pool, refill_delay_s=0.01)
    return Settings(data_dir=str(directory), isolation="fake", test_drivers=True, pool=quick)


def serving(host: InProcessHost, directory: Path, pool: int = 0) -> AbstractAsyncContextManager[Service]:
    return open_service(
        settings(directory, pool),
        host=host,
        egress=ScriptedEgress(),
        database=directory / "skerry.db",
        clock=SystemClock(),
    )


async def _read(process: Process, at_least: int) -> bytes:
    """Read from the start until so much is there, or to the end."""
    assert process.stdout is not None
    read = b""
    while len(read) < at_least and (part := await process.stdout.read()) is not None:
        assert not isinstance(part, Gap), part
        read += part
    return read


async def test_what_a_process_prints_across_a_restart_is_complete(
    host: InProcessHost, tmp_path: Path
) -> None:
    async with serving(host, tmp_path) as service:
        attachment = await service.create(ALICE, TIMED)
        process = await attachment.agent.spawn(command="/bin/sh", args=("-c", COUNT), stderr=False)
        assert PRINTED.startswith(await _read(process, 1))
        pid, sandbox_id = process.pid, attachment.sandbox_id
    async with serving(host, tmp_path) as service:
        agent = await service.agent(ALICE, sandbox_id)
        await until(lambda: agent.process(pid))
        again = agent.process(pid)
        assert again is not None
        assert again.stdout is not None
        again.stdout.attach(0)
        whole = await asyncio.wait_for(_read(again, len(PRINTED) + 1), 40)
        assert hashlib.sha256(whole).digest() == hashlib.sha256(PRINTED).digest()
        assert (await again.wait()).code == 0
        await service.kill(ALICE, sandbox_id)


async def test_a_process_that_ended_meanwhile_tells_its_status(host: InProcessHost, tmp_path: Path) -> None:
    async with serving(host, tmp_path) as service:
        attachment = await service.create(ALICE, TIMED)
        process = await attachment.agent.spawn(command="/bin/sh", args=("-c", "sleep 0.2; exit 7"))
        pid = process.pid
    async with serving(host, tmp_path) as service:
        agent = await service.agent(ALICE, attachment.sandbox_id)
        await until(lambda: agent.process(pid))
        again = agent.process(pid)
        assert again is not None
        exit_ = await asyncio.wait_for(again.wait(), 20)
        assert (exit_.code, exit_.signal) == (7, None)


async def test_pool_members_serve_after_a_restart(host: InProcessHost, tmp_path: Path) -> None:
    async def full(service: Service) -> None:
        async def ready() -> bool:
            return (await service.status(ADMIN)).pool.ready == 2

        await until_awaited(ready, what="a full pool")

    async with serving(host, tmp_path, pool=2) as service:
        await full(service)
        before = {one.sandbox_id for one in await host.inspect()}
    async with serving(host, tmp_path, pool=2) as service:
        await full(service)
        assert {one.sandbox_id for one in await host.inspect()} == before
        attachment = await service.create(ALICE, CreateRequest(env={"A": "1"}))
        assert attachment.sandbox_id in before
        process = await attachment.agent.spawn(command="/bin/sh", args=("-c", "echo $A"), stderr=False)
        assert await _read(process, 2) == b"1\n"
        await attachment.detach(clean=True)
        assert await asyncio.wait_for(attachment.ended, 10) is EndReason.CLOSED


async def test_twenty_sandboxes_are_all_there_after_a_restart(host: InProcessHost, tmp_path: Path) -> None:
    async with serving(host, tmp_path) as service:
        made = [await service.create(ALICE, TIMED) for _ in range(20)]
    async with serving(host, tmp_path) as service:
        agents = await asyncio.gather(*(service.agent(ALICE, one.sandbox_id) for one in made))
        assert [await agent.processes() for agent in agents] == [[]] * 20
        await service.end_all()
        assert await host.inspect() == []
