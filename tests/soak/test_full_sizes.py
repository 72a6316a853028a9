"""Full sizes and long runs against a whole Skerry: hundreds of sandboxes, a hundred kills, a gigabyte."""

import asyncio
import hashlib
import os
import random
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import aiohttp
import pytest
from deno_sandbox import AsyncDenoDeploy

from tests.conftest import Built
from tests.harness.raw_client import RawClient, until
from tests.harness.skerry_up import SkerryUp

pytestmark = [pytest.mark.soak, pytest.mark.needs_root, pytest.mark.timeout(3600)]

GIB = 1 << 30
KILLS = int(os.environ.get("SKERRY_TEST_SOAK_KILLS", "100"))
API_GROWTH_BYTES = 96 << 20
"""What api may grow by while a gigabyte passes through it: budgets and buffers, not the file."""


@pytest.fixture
def skerry(tmp_path: Path, built: Built) -> Iterator[SkerryUp]:
    """One that is taken down at the end, and must leave nothing."""
    made = SkerryUp(tmp_path / "data")
    made.environment |= {"SKERRY_POOL_SIZE": "2", "SKERRY_REATTACH_WINDOW_S": "20"}
    yield made
    made.command("down", expect=None)
    assert made.leftovers() == []


def up_for_the_sdk(skerry: SkerryUp, monkeypatch: pytest.MonkeyPatch) -> None:
    """Start it, and let the SDK of this process find it."""
    skerry.up()
    for line in skerry.text("env").splitlines():
        name, _, value = line.removeprefix("export ").partition("=")
        monkeypatch.setenv(name, value.strip("'"))


async def test_200_creates_and_kills_leave_nothing(skerry: SkerryUp) -> None:
    skerry.up()
    async with aiohttp.ClientSession() as session:
        client = RawClient(skerry, session)

        async def one() -> None:
            sandbox_id, socket = await client.create(timeout="10m")
            assert await client.serves(sandbox_id)
            await socket.close()
            await client.kill(sandbox_id)

        for _ in range(50):
            await asyncio.gather(*(one() for _ in range(4)))
        assert not [row for row in (await client.list()).values() if row["running"]]
    skerry.down()
    assert skerry.leftovers() == []


async def test_pool_members_live_on_after_their_thaw(skerry: SkerryUp) -> None:
    """A program that is started a moment after the thaw, when the guest is idle again."""
    skerry.up()
    async with aiohttp.ClientSession() as session:
        client = RawClient(skerry, session)
        for _ in range(300):
            sandbox_id, socket = await client.create(timeout="10m")
            await socket.close()
            await asyncio.sleep(0.25)
            assert skerry.command("exec", sandbox_id, "true").returncode == 0
            await client.kill(sandbox_id)


async def test_100_sandboxes_outlive_an_api(skerry: SkerryUp) -> None:
    skerry.up()
    async with aiohttp.ClientSession() as session:
        client = RawClient(skerry, session)
        made = [(await client.create(timeout="30m"))[0] for _ in range(100)]
        skerry.kill("api")
        killed_s = time.monotonic()

        async def all_answer() -> bool:
            return all(await asyncio.gather(*(client.serves(one) for one in made)))

        await until(all_answer, "an answer of each")
        print(f"100 sandboxes answered {time.monotonic() - killed_s:.2f} s after api was killed")
        rows = await client.list()
        assert all(rows[one]["running"] for one in made)


async def test_random_kills_lose_no_sandbox(skerry: SkerryUp) -> None:
    seed = int.from_bytes(os.urandom(4), "big")
    chance = random.Random(seed)  # noqa: S311 - moments, not secrets
    skerry.up()
    async with aiohttp.ClientSession() as session:
        client = RawClient(skerry, session)
        kept = [(await client.create(timeout="600m"))[0] for _ in range(3)]

        async def disturb() -> None:
            try:
                _, socket = await client.create(timeout="600m")
                await socket.close()
            except (aiohttp.ClientError, OSError):
                pass  # it was killed meanwhile

        for _ in range(KILLS):
            names = chance.choice((("api",), ("hostd",), ("api", "hostd"), ("up", "api", "hostd")))
            disturbing = asyncio.create_task(disturb())
            await asyncio.sleep(chance.uniform(0, 0.5))
            await until(partial(_there, skerry, names), "the processes to be killed")
            skerry.kill(*names)
            await disturbing

            async def back() -> bool:
                nonlocal client
                skerry.ensure_up()
                client = RawClient(skerry, session)
                return all([await client.serves(one) for one in kept])

            await until(back, f"service after the kill (seed {seed})")
            for extra in [one for one, row in (await client.list()).items() if row["running"]]:
                if extra not in kept:
                    await until(partial(_killed, client, extra), f"an end (seed {seed})")


async def _there(skerry: SkerryUp, names: tuple[str, ...]) -> bool:
    skerry.ensure_up()  # `up` may just have given up on what dies so often
    return set(names) <= skerry.processes().keys()


async def _killed(client: RawClient, sandbox_id: str) -> bool:
    await client.kill(sandbox_id)
    return not (await client.list())[sandbox_id]["running"]


async def test_a_gigabyte_passes_with_flat_memory(skerry: SkerryUp, monkeypatch: pytest.MonkeyPatch) -> None:
    up_for_the_sdk(skerry, monkeypatch)
    block = os.urandom(1 << 20)
    expected = hashlib.sha256()
    for _ in range(GIB // len(block)):
        expected.update(block)
    before = _resident_bytes(skerry)
    async with AsyncDenoDeploy().sandbox.create() as sandbox:
        await sandbox.fs.write_file("big", (block for _ in range(GIB // len(block))))
        process = await sandbox.spawn("sha256sum", args=["big"], stdout="piped")
        told = await process.stdout.read(-1)
        await process.wait()
        assert told.split()[0].decode() == expected.hexdigest()
        assert _resident_bytes(skerry) - before < API_GROWTH_BYTES


def _resident_bytes(skerry: SkerryUp) -> int:
    pid = skerry.processes()["api"].process.pid
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


async def test_no_write_of_thousands_is_forgotten(skerry: SkerryUp, monkeypatch: pytest.MonkeyPatch) -> None:
    """gVisor loses an event of the agent's about once in a thousand; the write then must go on by itself."""
    up_for_the_sdk(skerry, monkeypatch)
    pieces = [os.urandom(65_536) for _ in range(30)]
    async with AsyncDenoDeploy().sandbox.create() as sandbox:
        for number in range(3000):
            async with asyncio.timeout(10):
                await asyncio.gather(
                    sandbox.fs.write_file("large", iter(pieces)),
                    sandbox.fs.write_file("small", b"x"),
                    sandbox.fs.write_text_file("text", str(number)),
                )
        assert await sandbox.fs.read_text_file("text") == "2999"
