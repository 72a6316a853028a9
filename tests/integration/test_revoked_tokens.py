"""A token that is revoked is worthless at once: its open connections end too, and nobody else's."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from skerry.api.app import SHUTDOWN_S
from skerry.api.deno.websocket import POLICY_VIOLATION
from tests.conftest import Built
from tests.harness.rpc_client import PYTHON_AGENT, rpc_client
from tests.harness.running_api import RunningApi, fake, fake_with_network, running_api
from tests.harness.waiting import until, until_awaited


@pytest.fixture(scope="module")
def api(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApi]:
    with running_api(fake(built), tmp_path_factory.mktemp("api")) as running:
        yield running


@pytest.fixture
async def http(api: RunningApi) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(api.url, headers={"Authorization": f"Bearer {api.admin}"}) as session:
        yield session


async def token(http: aiohttp.ClientSession, **changes: object) -> tuple[str, str]:
    """A new token: its value and its ID."""
    body = {"name": "to be revoked", "owner": "alice", **changes}
    async with http.post("/skerry/v1/tokens", json=body) as response:
        made = await response.json()
    return made["token"], made["view"]["token_id"]


async def revoke(http: aiohttp.ClientSession, token_id: str) -> None:
    async with http.delete(f"/skerry/v1/tokens/{token_id}") as response:
        assert response.status == 204


async def stopped(http: aiohttp.ClientSession, sandbox_id: str) -> bool:
    async with http.get("/skerry/v1/sandboxes?all=1") as response:
        rows: list[dict[str, Any]] = await response.json()
    return next(row["end_reason"] is not None for row in rows if row["sandbox_id"] == sandbox_id)


@pytest.mark.parametrize("agent", [None, PYTHON_AGENT], ids=["javascript", "python"])
async def test_its_connections_are_answered_and_closed(
    http: aiohttp.ClientSession, api: RunningApi, agent: str | None
) -> None:
    value, token_id = await token(http)
    async with rpc_client(api.url, value, agent=agent) as client, rpc_client(api.url, api.alice) as other:
        spawned = await client.ok("spawn", command="sleep", args=["1000"], stdout="piped", stderr="null")
        waiting = await client.ask("processWait", pid=spawned["pid"])
        await client.ok("envGet", key="A")
        await revoke(http, token_id)
        answer = await client.answer(waiting)
        assert answer["result"]["error"]["code"] == "TOKEN_REVOKED"
        assert await client.close_code() == POLICY_VIOLATION
        await until_awaited(lambda: stopped(http, client.sandbox_id), what="the end of its session")
        assert await other.ok("envGet", key="A") is None


async def test_a_sandbox_with_a_duration_goes_on(http: aiohttp.ClientSession, api: RunningApi) -> None:
    value, token_id = await token(http)
    async with rpc_client(api.url, value, config={"timeout": "5m"}) as client:
        await client.ok("envSet", key="A", value="1")
        await revoke(http, token_id)
        assert await client.close_code() == POLICY_VIOLATION
    path = f"/api/v3/sandbox/{client.sandbox_id}/connect"
    async with rpc_client(api.url, api.alice, path=path) as again:
        assert await again.ok("envGet", key="A") == "1"
    async with http.delete(
        f"/api/v3/sandboxes/{client.sandbox_id}", headers={"Authorization": f"Bearer {api.alice}"}
    ) as response:
        assert response.status == 204


async def test_a_request_that_goes_on_is_cut(http: aiohttp.ClientSession, api: RunningApi) -> None:
    value, token_id = await token(http)
    async with rpc_client(api.url, api.alice, config={"timeout": "5m"}) as client:
        script = "echo one; exec sleep 1000"
        spawned = await client.ok("spawn", command="sh", args=["-c", script], stdout="piped", stderr="null")
    path = f"/skerry/v1/sandboxes/{client.sandbox_id}/processes/{spawned['pid']}/output?follow=1"
    async with (
        aiohttp.ClientSession(api.url, headers={"Authorization": f"Bearer {value}"}) as session,
        session.get(path) as response,
    ):
        assert await response.content.readexactly(4) == b"one\n"
        await revoke(http, token_id)
        async with asyncio.timeout(10):
            with contextlib.suppress(aiohttp.ClientError):
                while await response.content.readany():
                    pass
    async with http.delete(
        f"/api/v3/sandboxes/{client.sandbox_id}", headers={"Authorization": f"Bearer {api.alice}"}
    ) as response:
        assert response.status == 204


async def test_a_token_may_revoke_itself(http: aiohttp.ClientSession, api: RunningApi) -> None:
    value, token_id = await token(http, scopes=["sandbox", "admin"])
    own = {"Authorization": f"Bearer {value}"}
    async with http.delete(f"/skerry/v1/tokens/{token_id}", headers=own) as response:
        assert response.status == 204
    async with http.get("/skerry/v1/status", headers=own) as response:
        assert response.status == 401


async def test_a_token_that_is_revoked_during_a_create_gets_nothing(
    http: aiohttp.ClientSession, api: RunningApi
) -> None:
    value, token_id = await token(http)
    for _ in range(3):
        creating = [asyncio.create_task(_create(api, value)) for _ in range(4)]
        await asyncio.sleep(0.01)
        await revoke(http, token_id)
        assert set(await asyncio.gather(*creating)) <= {401, POLICY_VIOLATION}
        value, token_id = await token(http)

    async def none_is_left() -> bool:
        async with http.get("/skerry/v1/sandboxes?all=1") as response:
            return not any(row["running"] for row in await response.json())

    await until_awaited(none_is_left, what="the end of all that was begun")


async def _create(api: RunningApi, value: str) -> int | None:
    """The HTTP status of a refusal, or the code with which the connection was closed."""
    try:
        async with rpc_client(api.url, value) as client:
            return await client.close_code()
    except aiohttp.WSServerHandshakeError as error:
        return error.status


async def test_a_request_that_waits_does_not_hold_up_the_end_of_the_server(
    built: Built, tmp_path: Path
) -> None:
    async def follow(url: str, value: str, sandbox_id: str) -> None:
        path = f"/skerry/v1/sandboxes/{sandbox_id}/audit?wait_ms=30000"
        headers = {"Authorization": f"Bearer {value}"}
        async with aiohttp.ClientSession(url, headers=headers) as session, session.get(path) as response:
            await response.read()

    serving = running_api(fake_with_network(built), tmp_path)
    api = await asyncio.to_thread(serving.__enter__)
    async with rpc_client(api.url, api.alice, config={"timeout": "5m"}) as client:
        sandbox_id = client.sandbox_id
    api.egress.stalled["read_audit"] = asyncio.Event()
    following = asyncio.create_task(follow(api.url, api.alice, sandbox_id))
    await until(lambda: api.egress.called["read_audit"])
    stopping = asyncio.create_task(asyncio.to_thread(serving.__exit__, None, None, None))
    with pytest.raises(aiohttp.ClientError):
        await asyncio.wait_for(following, SHUTDOWN_S - 1)
    await stopping
