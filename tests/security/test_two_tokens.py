"""Two owners: whatever one asks about the other's things looks as if they had never been. Covers every route
and every RPC method."""

import asyncio
import json
import re
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest

from skerry.api.app import build_app
from skerry.api.deno.methods import METHODS
from tests.conftest import Built
from tests.harness.rpc_client import RpcClient, rpc_client
from tests.harness.running_api import RunningApi, fake, running_api

NOBODY = "sbx_ord_00000000000000000000"

OF_A_SANDBOX = [
    ("GET", "/api/v3/sandbox/{id}/connect", None),
    ("PATCH", "/api/v3/sandbox/{id}", {"stop_at_ms": 4_000_000_000_000}),
    ("DELETE", "/api/v3/sandbox/{id}", None),
    ("DELETE", "/api/v3/sandboxes/{id}", None),
    ("POST", "/api/v3/sandbox/{id}/expose/http", {}),
    ("POST", "/api/v3/sandbox/{id}/expose/ssh", {}),
    ("POST", "/api/v3/sandbox/{id}/expose/vscode", {}),
    ("POST", "/api/v2/sandboxes/{id}/deploy", {"app": "a", "entrypoint": "main.ts"}),
    ("GET", "/skerry/v1/sandboxes/{id}", None),
    ("GET", "/skerry/v1/sandboxes/{id}/processes", None),
    ("GET", "/skerry/v1/sandboxes/{id}/processes/{pid}/output", None),
    ("GET", "/skerry/v1/sandboxes/{id}/explain?target=https://example.com/", None),
    ("POST", "/skerry/v1/sandboxes/{id}/allow", {"host": "example.com"}),
    ("GET", "/skerry/v1/sandboxes/{id}/audit", None),
    ("GET", "/skerry/v1/sandboxes/{id}/secrets", None),
    ("PUT", "/skerry/v1/sandboxes/{id}/secrets/KEY", {"value": "x" * 20}),
    ("DELETE", "/skerry/v1/sandboxes/{id}/secrets/KEY", None),
]

LISTS = ["/api/v2/sandboxes", "/api/v3/sandboxes", "/skerry/v1/sandboxes"]

FOR_ADMINS = [
    ("GET", "/skerry/v1/status", None),
    ("GET", "/skerry/v1/tokens", None),
    ("POST", "/skerry/v1/tokens", {"name": "mine"}),
    ("DELETE", "/skerry/v1/tokens/tok_000000000000", None),
    ("GET", "/skerry/v1/sandboxes?all=1", None),
    ("PUT", "/skerry/v1/policies/of-admin", {"default": "public"}),
    ("PUT", "/skerry/v1/policies/of-alice?owner=alice", {"default": "public"}),
    ("GET", "/skerry/v1/policies/of-alice?owner=somebody-else", None),
    ("GET", "/skerry/v1/policies?all=1", None),
    ("DELETE", "/skerry/v1/policies/of-admin", None),
]

WITHOUT_OWNER = {
    ("GET", "/api/v3/sandboxes/create"),
    ("GET", "/skerry/v1/health"),
    ("POST", "/skerry/v1/policies/lint"),
    ("*", "/api/{rest}"),
    *(("*", f"/api/v2/{name}") for name in ("apps", "layers", "volumes", "snapshots", "revisions")),
    *(("*", f"/api/v2/{name}/{{rest}}") for name in ("apps", "layers", "volumes", "snapshots", "revisions")),
}

UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
}


@pytest.fixture(scope="module")
def api(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApi]:
    with running_api(fake(built), tmp_path_factory.mktemp("api")) as running:
        yield running


async def ask(
    api: RunningApi, token: str | None, method: str, path: str, body: object = None
) -> tuple[int, Any]:
    headers = dict(UPGRADE) if path.endswith("/connect") else {}
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, api.url + path, json=body, headers=headers) as response,
    ):
        text = await response.text()
        assert response.headers["x-deno-trace-id"]
        return response.status, json.loads(text) if text else None


def test_every_route_is_covered(api: RunningApi) -> None:
    covered = {
        (method, path.replace("{id}", "{sandbox_id}")) for method, path, _ in OF_A_SANDBOX + FOR_ADMINS
    }
    covered |= {("GET", path) for path in LISTS} | WITHOUT_OWNER
    covered = {
        (method, path.split("?")[0].replace("/expose/http", "/expose/{what}")) for method, path in covered
    }
    covered = {(method, re.sub("of-admin|of-alice|KEY", "{name}", path)) for method, path in covered}
    covered |= {("DELETE", "/skerry/v1/tokens/{token_id}")}
    routes = {
        (route.method, route.resource.canonical)
        for route in build_app(api.service).router.routes()
        if route.resource is not None and route.method != "HEAD"
    }
    assert routes - covered == set()


@pytest.mark.parametrize(("method", "path", "body"), OF_A_SANDBOX)
async def test_a_foreign_sandbox_looks_like_none(
    api: RunningApi, method: str, path: str, body: object
) -> None:
    async with rpc_client(api.url, api.alice) as alice:
        spawned = await alice.ok("spawn", command="sleep", args=["1000"], stdout="null", stderr="null")
        answers = [
            await ask(api, api.bob, method, path.format(id=id_, pid=spawned["pid"]), body)
            for id_ in (alice.sandbox_id, NOBODY)
        ]
        assert [status for status, _ in answers] == [404, 404]
        assert answers[0][1] == answers[1][1], "a foreign sandbox can be told from one that never was"
        waiting = await alice.ask("processWait", pid=spawned["pid"])
        await alice.ok("processKill", pid=spawned["pid"])
        assert (await alice.answer(waiting))["result"]["ok"]["signal"] == "SIGTERM"


@pytest.mark.parametrize("path", LISTS)
async def test_listings_show_only_one_s_own(api: RunningApi, path: str) -> None:
    async with rpc_client(api.url, api.alice, config={"labels": {"secret": "project"}}) as alice:
        for token in (api.bob, api.admin):
            status, listed = await ask(api, token, "GET", path)
            assert status == 200
            assert alice.sandbox_id not in json.dumps(listed)
            assert "project" not in json.dumps(listed)
        assert alice.sandbox_id in json.dumps(await ask(api, api.alice, "GET", path))


@pytest.mark.parametrize(("method", "path", "body"), FOR_ADMINS)
async def test_what_is_for_admins(api: RunningApi, method: str, path: str, body: object) -> None:
    for token in (api.alice, api.bob):
        status, answer = await ask(api, token, method, path, body)
        assert (status, answer["code"]) == (403, "FORBIDDEN")
    status, _ = await ask(api, api.admin, method, path, body)
    assert status in (200, 201, 204, 404)


async def test_a_policy_of_another_owner_looks_like_none(api: RunningApi) -> None:
    path, document = "/skerry/v1/policies/only-alices", {"allow": [{"host": "alice.example"}]}
    status, _ = await ask(api, api.admin, "PUT", f"{path}?owner=alice", document)
    assert status == 200
    status, found = await ask(api, api.alice, "GET", path)
    assert (status, found["owner"]) == (200, "alice")
    foreign = await ask(api, api.bob, "GET", path)
    assert foreign == await ask(api, api.bob, "GET", "/skerry/v1/policies/never-was")
    assert foreign[0] == 404
    for token in (api.bob, api.admin):
        _, listed = await ask(api, token, "GET", "/skerry/v1/policies")
        assert "only-alices" not in json.dumps(listed)
    assert "only-alices" in json.dumps(await ask(api, api.alice, "GET", "/skerry/v1/policies"))


async def test_without_a_token_there_is_nothing(api: RunningApi) -> None:
    everything = [*OF_A_SANDBOX, *FOR_ADMINS, *(("GET", path, None) for path in LISTS)]
    everything += [("GET", f"/api/v2/{name}", None) for name in ("apps", "volumes/x")]
    for method, path, body in everything:
        for token in (None, "ddo_wrong", "x" * 10_000):
            status, answer = await ask(api, token, method, path.format(id=NOBODY, pid=1), body)
            assert status == 401
            if path.startswith("/api/"):
                assert answer["code"] == "INVALID_TOKEN"


FOREIGN_CALLS: dict[str, dict[str, object]] = {
    "spawn": {"command": "sh", "args": ["-c", 'printf %s "$ALICE"'], "stdout": "piped", "stderr": "null"},
    "processWait": {"pid": "PID"},
    "processKill": {"pid": "PID", "signal": "SIGKILL"},
    "abort": {"abortId": 1},
    "envGet": {"key": "ALICE"},
    "envSet": {"key": "ALICE", "value": "bob"},
    "envDelete": {"key": "ALICE"},
    "envToObject": {},
    "readFile": {"path": "/nowhere/alice"},
    "readTextFile": {"path": "/nowhere/alice"},
    "writeFile": {"path": "/tmp/skerry-two-tokens", "contentStreamId": "STREAM", "abortId": 2},
    "writeTextFile": {"path": "/tmp/skerry-two-tokens", "content": "bob"},
    "readDir": {"path": "/nowhere"},
    "mkdir": {"path": "/nowhere/bob"},
    "remove": {"path": "/nowhere/alice"},
    "stat": {"path": "/nowhere/alice"},
    "lstat": {"path": "/nowhere/alice"},
}
"""Every method as Bob, in his own sandbox, with the numbers and names of Alice's. Files are apart by
isolation, which other tests check."""


def test_every_method_is_covered() -> None:
    assert set(FOREIGN_CALLS) == set(METHODS)


@pytest.mark.parametrize("method", sorted(FOREIGN_CALLS))
async def test_no_method_reaches_another_owner_s_sandbox(api: RunningApi, method: str) -> None:
    async with rpc_client(api.url, api.alice) as alice, rpc_client(api.url, api.bob) as bob:
        await alice.ok("envSet", key="ALICE", value="only mine")
        await alice.notify("$sandbox.stream.start", streamId=77)
        await alice.notify("$sandbox.stream.enqueue", streamId=77, data="c2VjcmV0")
        spawned = await alice.ok(
            "spawn", command="sh", args=["-c", "echo secret; exec sleep 1000"], stdout="piped", stderr="null"
        )
        numbers: dict[object, object] = {"PID": spawned["pid"], "STREAM": 77}
        params = {name: numbers.get(_hashable(value), value) for name, value in FOREIGN_CALLS[method].items()}
        await _as_bob(bob, method, params)
        assert await alice.ok("envGet", key="ALICE") == "only mine"
        waiting = await alice.ask("processWait", pid=spawned["pid"])
        await alice.some_output(spawned["stdoutStreamId"])
        await alice.ok("processKill", pid=spawned["pid"])
        assert (await alice.answer(waiting))["result"]["ok"]["signal"] == "SIGTERM"
        assert await alice.output(spawned["stdoutStreamId"]) == b"secret\n"


def _hashable(value: object) -> object:
    return value if isinstance(value, str) else None


async def _as_bob(bob: RpcClient, method: str, params: dict[str, Any]) -> None:
    id_ = await bob.ask(method, **params)
    if "contentStreamId" in params:
        await bob.notify("$sandbox.stream.end", streamId=params["contentStreamId"])
    answer = await bob.answer(id_)
    assert "only mine" not in json.dumps(answer)
    if method in ("processWait", "processKill"):
        assert answer["result"]["error"]["code"] == "ENOENT"
    elif method == "spawn":
        waiting = await bob.ask("processWait", pid=answer["result"]["ok"]["pid"])
        await bob.answer(waiting)
        assert await bob.output(answer["result"]["ok"]["stdoutStreamId"]) == b""
    elif method == "envGet":
        assert answer["result"]["ok"] is None
    elif method == "writeFile":
        read = await bob.ok("readTextFile", path=params["path"])
        await bob.ok("remove", path=params["path"])
        assert read == "", "another connection's stream was read"
    elif method == "writeTextFile":
        await bob.ok("remove", path=params["path"])


async def test_stream_numbers_of_two_connections_never_meet(api: RunningApi) -> None:
    async with rpc_client(api.url, api.alice) as alice, rpc_client(api.url, api.bob) as bob:
        seen: list[int] = []
        for client in (alice, bob) * 3:
            spawned = await client.ok("spawn", command="true", stdout="piped", stderr="piped")
            seen += [spawned["stdoutStreamId"], spawned["stderrStreamId"]]
        assert len(set(seen)) == len(seen)
        await alice.notify("$sandbox.stream.cancel", streamId=seen[2], reason=None)
        spawned = await bob.ok("spawn", command="echo", args=["x"], stdout="piped", stderr="null")
        await asyncio.gather(bob.ok("processWait", pid=spawned["pid"]))
        assert await bob.output(spawned["stdoutStreamId"]) == b"x\n"
