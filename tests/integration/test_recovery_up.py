"""Every process killed at bad moments under real sandboxes: what should go on goes on, and nothing else is
left.
"""

import asyncio
import hashlib
import os
import random
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from skerry.spec.ids import SandboxId, container_name
from tests.conftest import Built
from tests.harness.raw_client import DEADLINE_S, RawClient, until
from tests.harness.skerry_up import SkerryUp

pytestmark = [pytest.mark.needs_root, pytest.mark.timeout(180)]

SOAK_ROUNDS = int(os.environ.get("SKERRY_TEST_SOAK_ROUNDS", "250"))
LONG = "600m"
LINES = 60_000
"""About 700 kB: what the agent keeps of a stream that nobody reads is 1 MiB."""

PRINT = f"i=0; while [ $i -lt {LINES} ]; do echo line $i; i=$((i+1)); done"
PRINTED = "".join(f"line {number}\n" for number in range(LINES)).encode()


@pytest.fixture
def skerry(tmp_path: Path, built: Built) -> Iterator[SkerryUp]:
    """One that is taken down at the end, and must leave nothing."""
    made = SkerryUp(tmp_path / "data")
    made.environment |= {"SKERRY_POOL_SIZE": "1", "SKERRY_REATTACH_WINDOW_S": "4"}
    yield made
    made.command("down", expect=None)
    assert made.leftovers() == []


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def kill(skerry: SkerryUp, *names: str) -> None:
    """Kill processes, once all of them are there."""

    async def there() -> bool:
        skerry.ensure_up()  # `up` may just have given up on what dies so often
        return set(names) <= skerry.processes().keys()

    await until(there, "the processes to be killed")
    skerry.kill(*names)


def kill_sandbox(skerry: SkerryUp, sandbox_id: str) -> None:
    """Kill every process of a sandbox on the host."""
    name = container_name(skerry.runtime.path.name, SandboxId(sandbox_id))  # type: ignore[arg-type]
    groups = [path for path in Path("/sys/fs/cgroup").glob(f"**/{name}") if (path / "cgroup.procs").exists()]
    pids = {pid for group in groups for pid in (group / "cgroup.procs").read_text().split()}
    assert pids, "the sandbox has no process"
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)


def sandboxes_of(skerry: SkerryUp) -> set[str]:
    """Names of the control groups of sandboxes."""
    instance = skerry.runtime.path.name
    return {path.name for path in Path("/sys/fs/cgroup").glob(f"**/skerry-{instance}-*")}


async def reason_of(client: RawClient, sandbox_id: str) -> tuple[str, int | None]:
    """Why a sandbox ended, once it has."""
    rows: dict[str, dict[str, Any]] = {}

    async def ended() -> bool:
        rows.update(await client.list())
        return rows[sandbox_id]["end_reason"] is not None

    await until(ended, "its end")
    return rows[sandbox_id]["end_reason"], rows[sandbox_id]["exit_code"]


KILLED = [("api",), ("hostd",), ("api", "hostd"), ("up", "api", "hostd")]


@pytest.mark.parametrize("names", KILLED)
async def test_killed_while_sandboxes_are_made(
    skerry: SkerryUp, http: aiohttp.ClientSession, names: tuple[str, ...]
) -> None:
    await _killed_while_sandboxes_are_made(skerry, http, names, rounds=2)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("names", KILLED)
async def test_killed_often_while_sandboxes_are_made(
    skerry: SkerryUp, http: aiohttp.ClientSession, names: tuple[str, ...]
) -> None:
    await _killed_while_sandboxes_are_made(skerry, http, names, rounds=SOAK_ROUNDS)


async def _killed_while_sandboxes_are_made(
    skerry: SkerryUp, http: aiohttp.ClientSession, names: tuple[str, ...], *, rounds: int
) -> None:
    seed = int.from_bytes(os.urandom(4), "big")
    chance = random.Random(seed)  # noqa: S311 - moments, not secrets
    skerry.up()
    client = RawClient(skerry, http)
    keeper, _ = await client.create(timeout=LONG)

    async def make() -> str | None:
        try:
            made, socket = await client.create(timeout=LONG, memory_mb=chance.choice((1280, 1024)))
            await socket.close()
        except (aiohttp.ClientError, OSError):
            return None
        return made

    told: set[str] = set()
    for _ in range(rounds):
        for sandbox_id in chance.sample(sorted(told), max(len(told) - 5, 0)):
            told.remove(sandbox_id)
            with suppress(aiohttp.ClientError, OSError):  # `up` may just give up on what dies so often
                await client.kill(sandbox_id)
        making = [asyncio.create_task(make()) for _ in range(3)]
        await asyncio.sleep(chance.uniform(0.0, 0.6))
        await kill(skerry, *names)
        told |= {one for one in await asyncio.gather(*making) if one is not None}

        async def back() -> bool:
            nonlocal client
            skerry.ensure_up()
            client = RawClient(skerry, http)
            return await client.serves(keeper)

        await until(back, f"service after the kill (seed {seed})")

    async def agree() -> bool:
        rows = await client.list()
        running = {one for one, row in rows.items() if row["running"]}
        assert told <= running, f"lost (seed {seed})"
        pool = (skerry.json("status"))["server"]["pool"]
        instance = skerry.runtime.path.name
        wanted = {container_name(instance, SandboxId(one)) for one in running}  # type: ignore[arg-type]
        there = sandboxes_of(skerry)
        return wanted <= there and len(there - wanted) == pool["ready"] == pool["target"]

    await until(agree, f"agreement of list and host (seed {seed})")
    assert all([await client.serves(one) for one in {keeper, *told}])


async def test_what_is_printed_while_everything_is_killed_is_complete(
    skerry: SkerryUp, http: aiohttp.ClientSession
) -> None:
    skerry.up()
    sandbox_id, _ = await RawClient(skerry, http).create(timeout="10m")
    with skerry.begin("exec", sandbox_id, PRINT, stdout=asyncio.subprocess.DEVNULL) as reading:

        async def prints() -> bool:
            return bool(skerry.json("logs", sandbox_id))

        await until(prints, "a process")
        skerry.kill("up", "api", "hostd")
        # Its connection is gone, and it says so.
        assert reading.wait(DEADLINE_S) != 0
    skerry.up()
    (process,) = skerry.json("logs", sandbox_id)
    printed = skerry.command("logs", sandbox_id, str(process["pid"]), "--follow").stdout
    assert hashlib.sha256(printed).digest() == hashlib.sha256(PRINTED).digest()


async def test_ends_while_nobody_looked_are_reported_as_they_were(
    skerry: SkerryUp, http: aiohttp.ClientSession
) -> None:
    skerry.up()
    client = RawClient(skerry, http)
    (crashed, _), (expired, _), (lives, _) = [
        await client.create(timeout=timeout) for timeout in ("10m", "3s", "10m")
    ]
    skerry.kill("up", "api", "hostd")
    kill_sandbox(skerry, crashed)
    await asyncio.sleep(3)  # for the duration to be over; not a synchronisation
    skerry.up()
    client = RawClient(skerry, http)
    assert await reason_of(client, crashed) == ("crashed", 137)
    assert (await reason_of(client, expired))[0] == "expired"
    assert await client.serves(lives)


async def test_an_end_while_only_hostd_is_down_is_reported(
    skerry: SkerryUp, http: aiohttp.ClientSession
) -> None:
    skerry.up()
    client = RawClient(skerry, http)
    (crashed, socket), (lives, _) = [await client.create(timeout="10m") for _ in range(2)]
    skerry.kill("hostd")
    kill_sandbox(skerry, crashed)
    assert await reason_of(client, crashed) == ("crashed", 137)
    closed = await socket.receive(timeout=DEADLINE_S)
    assert closed.type is aiohttp.WSMsgType.CLOSE
    assert await client.serves(lives)


async def test_sessions_wait_a_while_for_their_creator(skerry: SkerryUp, http: aiohttp.ClientSession) -> None:
    skerry.up()
    client = RawClient(skerry, http)
    (kept, first), (left, second) = [await client.create() for _ in range(2)]
    skerry.kill("api")
    again: list[aiohttp.ClientWebSocketResponse] = []

    async def back() -> bool:
        again.append(await client.connect(kept))
        return True

    await until(back, "the way back to a session")
    assert await reason_of(client, left) == ("disconnected", None)
    rows = await client.list()
    assert rows[kept]["running"]
    for socket in (first, second, *again):
        await socket.close()
    assert await reason_of(client, kept) == ("closed", None)


async def test_ten_sandboxes_outlive_an_api_and_all_answer(
    skerry: SkerryUp, http: aiohttp.ClientSession
) -> None:
    skerry.up()
    client = RawClient(skerry, http)
    made = [(await client.create(timeout="10m"))[0] for _ in range(10)]
    skerry.kill("api")

    async def all_answer() -> bool:
        return all(await asyncio.gather(*(client.serves(one) for one in made)))

    await until(all_answer, "an answer of each")
    skerry.down()
    assert skerry.leftovers() == []
