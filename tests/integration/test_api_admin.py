"""Skerry's own REST routes over real sandboxes: status, tokens, listings, processes and their output."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import aiohttp
import pytest

from tests.conftest import Built
from tests.harness.rpc_client import RpcClient, rpc_client
from tests.harness.running_api import RunningApi, fake, running_api
from tests.harness.waiting import until_awaited


@pytest.fixture(scope="module")
def api(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApi]:
    with running_api(fake(built), tmp_path_factory.mktemp("api")) as running:
        yield running


@pytest.fixture
async def http(api: RunningApi) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(api.url, headers={"Authorization": f"Bearer {api.admin}"}) as session:
        yield session


async def get(http: aiohttp.ClientSession, path: str) -> Any:
    async with http.get(path) as response:
        assert response.status == 200, await response.text()
        return await response.json()


async def test_health_needs_no_token(api: RunningApi) -> None:
    async with aiohttp.ClientSession(api.url) as session:
        health = await get(session, "/skerry/v1/health")
    assert health["pid"] > 0
    assert health["version"]


async def test_status(http: aiohttp.ClientSession) -> None:
    status = await get(http, "/skerry/v1/status")
    assert status["isolation"] == "fake"
    assert set(status["pool"]) >= {"target", "ready"}


async def test_a_token_s_life(http: aiohttp.ClientSession, api: RunningApi) -> None:
    body = {"name": "new", "owner": "dora", "max_running": 1}
    async with http.post("/skerry/v1/tokens", json=body) as response:
        assert response.status == 201
        made = await response.json()
    assert any(row["token_id"] == made["view"]["token_id"] for row in await get(http, "/skerry/v1/tokens"))
    assert made["token"] not in str(await get(http, "/skerry/v1/tokens"))
    async with rpc_client(api.url, made["token"]):
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            async with rpc_client(api.url, made["token"]):
                pytest.fail("the quota was not kept")
        assert caught.value.status == 429
    async with http.delete(f"/skerry/v1/tokens/{made['view']['token_id']}") as response:
        assert response.status == 204
    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
        async with rpc_client(api.url, made["token"]):
            pytest.fail("it was revoked")
    assert caught.value.status == 401


@pytest.mark.parametrize(
    "body", [{}, {"name": 7}, {"name": "x", "unknown": 1}, {"name": "x", "scopes": ["root"]}]
)
async def test_bad_tokens_are_refused(http: aiohttp.ClientSession, body: dict[str, object]) -> None:
    async with http.post("/skerry/v1/tokens", json=body) as response:
        assert response.status == 400
        assert (await response.json())["message"]


async def test_listings_of_one_and_of_all(http: aiohttp.ClientSession, api: RunningApi) -> None:
    async with rpc_client(api.url, api.alice) as client:
        everything = await get(http, "/skerry/v1/sandboxes?all=1")
        row = next(row for row in everything if row["sandbox_id"] == client.sandbox_id)
        assert (row["owner"], row["isolation"], row["running"]) == ("alice", "fake", True)
        assert all(row["owner"] == "carol" for row in await get(http, "/skerry/v1/sandboxes"))


async def left_behind(api: RunningApi, script: str) -> tuple[str, int]:
    """A sandbox without clients, and a process in it that was never waited for."""
    async with rpc_client(api.url, api.admin, config={"timeout": "5m"}) as client:
        spawned = await client.ok("spawn", command="sh", args=["-c", script], stdout="piped", stderr="piped")
        return client.sandbox_id, spawned["pid"]


async def ended(http: aiohttp.ClientSession, sandbox_id: str) -> None:
    async def all_ended() -> bool:
        rows = await get(http, f"/skerry/v1/sandboxes/{sandbox_id}/processes")
        return all(row["exit"] is not None for row in rows)

    await until_awaited(all_ended, what="the end of the process")


async def output(http: aiohttp.ClientSession, sandbox_id: str, pid: int, **query: str) -> tuple[Any, bytes]:
    path = f"/skerry/v1/sandboxes/{sandbox_id}/processes/{pid}/output"
    async with http.get(path, params=query) as response:
        assert response.status == 200, await response.text()
        return response.headers, await response.read()


async def test_processes_and_their_output(http: aiohttp.ClientSession, api: RunningApi) -> None:
    sandbox_id, pid = await left_behind(api, "echo out; echo err >&2; exit 3")
    await ended(http, sandbox_id)
    (row,) = await get(http, f"/skerry/v1/sandboxes/{sandbox_id}/processes")
    assert (row["pid"], row["command"], row["exit"]["code"]) == (pid, "sh", 3)
    headers, data = await output(http, sandbox_id, pid)
    assert (headers["x-skerry-from"], data) == ("0", b"out\n")
    assert (await output(http, sandbox_id, pid))[1] == b"out\n"
    assert (await output(http, sandbox_id, pid, stream="stderr"))[1] == b"err\n"
    headers, data = await output(http, sandbox_id, pid, **{"from": "2"})
    assert (headers["x-skerry-from"], data) == ("2", b"t\n")
    assert (await output(http, sandbox_id, pid, **{"from": "4"}))[1] == b""
    await kill(http, sandbox_id)


async def kill(http: aiohttp.ClientSession, sandbox_id: str) -> None:
    async with http.delete(f"/api/v3/sandboxes/{sandbox_id}") as response:
        assert response.status == 204


async def test_what_the_ring_had_to_drop_is_reported(http: aiohttp.ClientSession, api: RunningApi) -> None:
    size = 3_000_000
    sandbox_id, pid = await left_behind(api, f"head -c {size} /dev/zero; echo end")
    await ended(http, sandbox_id)
    headers, data = await output(http, sandbox_id, pid)
    assert int(headers["x-skerry-gap-before"]) == int(headers["x-skerry-from"]) > 0
    assert int(headers["x-skerry-from"]) + len(data) == size + 4
    assert data.endswith(b"\0end\n")
    await kill(http, sandbox_id)


async def test_following_goes_on_to_the_end(http: aiohttp.ClientSession, api: RunningApi) -> None:
    sandbox_id, pid = await left_behind(api, "echo one; read line </tmp/skerry-never || sleep 1000")
    path = f"/skerry/v1/sandboxes/{sandbox_id}/processes/{pid}/output?follow=1"
    async with http.get(path) as response:
        assert await response.content.readexactly(4) == b"one\n"
        async with rpc_client(api.url, api.admin, path=f"/api/v3/sandbox/{sandbox_id}/connect") as client:
            await client.ok("processKill", pid=pid, signal="SIGKILL")
        assert await response.content.read() == b""
    await kill(http, sandbox_id)


@pytest.mark.parametrize(
    ("query", "status"),
    [("from=9999", 400), ("from=x", 400), ("stream=stdin", 400), ("from=99999999999999999999", 400)],
)
async def test_bad_ranges(http: aiohttp.ClientSession, api: RunningApi, query: str, status: int) -> None:
    sandbox_id, pid = await left_behind(api, "echo x")
    await ended(http, sandbox_id)
    async with http.get(f"/skerry/v1/sandboxes/{sandbox_id}/processes/{pid}/output?{query}") as response:
        assert response.status == status
    async with http.get(f"/skerry/v1/sandboxes/{sandbox_id}/processes/4000000000/output") as response:
        assert response.status == 404
    await kill(http, sandbox_id)


async def test_output_that_a_client_reads_is_not_taken_from_it(
    http: aiohttp.ClientSession, api: RunningApi
) -> None:
    async with rpc_client(api.url, api.admin) as client:
        spawned = await client.ok(
            "spawn", command="sh", args=["-c", "echo x; exec sleep 1000"], stdout="piped", stderr="null"
        )
        waiting = await client.ask("processWait", pid=spawned["pid"])
        await client.some_output(spawned["stdoutStreamId"])
        path = f"/skerry/v1/sandboxes/{client.sandbox_id}/processes/{spawned['pid']}/output"
        async with http.get(path) as response:
            assert response.status == 409
        await _end(client, spawned["pid"], waiting)
        assert await client.output(spawned["stdoutStreamId"]) == b"x\n"
        assert (await output(http, client.sandbox_id, spawned["pid"]))[1] == b"x\n"


async def _end(client: RpcClient, pid: int, waiting: int) -> None:
    await client.ok("processKill", pid=pid)
    assert (await client.answer(waiting))["result"]["ok"]["signal"] == "SIGTERM"
