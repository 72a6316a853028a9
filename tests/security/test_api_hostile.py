"""Hostile clients: each loses at most its own connection; the server goes on, keeps its bounds and its
secrets."""

import asyncio
import base64
import json
import socket
from collections.abc import AsyncIterator, Iterator
from urllib.parse import urlsplit

import aiohttp
import pytest

from skerry.api.deno import session, websocket
from skerry.protocol.deno_config import MAX_HEADER_BYTES
from tests.conftest import Built
from tests.harness.rpc_client import CREATE, PYTHON_AGENT, RpcClient, rpc_client
from tests.harness.running_api import RunningApi, fake, running_api


@pytest.fixture(scope="module")
def api(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApi]:
    with running_api(fake(built), tmp_path_factory.mktemp("api")) as running:
        yield running


@pytest.fixture
async def neighbour(api: RunningApi) -> AsyncIterator[RpcClient]:
    """Somebody else's connection, which must not notice."""
    async with rpc_client(api.url, api.bob) as client:
        yield client
        assert await client.ok("envGet", key="X") is None


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"[" * 100_000,
        b'{"a":' * 5000,
        b'{"jsonrpc":"2.0","id":null,"method":"stat"}',
        b'{"jsonrpc":"2.0","id":{},"method":"stat"}',
        b'{"jsonrpc":"2.0","id":"' + b"x" * 1000 + b'","method":"stat"}',
        b'{"jsonrpc":"2.0","method":7}',
        b'{"jsonrpc":"2.0","id":1,"result":{"ok":1}} trailing',
        b'{"jsonrpc":"2.0","method":"$sandbox.stream.enqueue"}',
        b'{"jsonrpc":"2.0","method":"$sandbox.stream.enqueue","params":{"streamId":-1,"data":"AA=="}}',
        b'{"jsonrpc":"2.0","method":"$sandbox.stream.enqueue","params":{"streamId":1e300,"data":"AA=="}}',
        b'{"jsonrpc":"2.0","method":"$sandbox.stream.enqueue","params":{"streamId":1,"data":7}}',
        b'{"jsonrpc":"2.0","method":"$sandbox.stream.error","params":{"streamId":1,"error":[1]}}',
        b'{"jsonrpc":"2.0","method":"no.such.notification","params":[]}',
        b"\xff\xfe\x00",
    ],
)
async def test_what_is_not_understood_loses_nothing(
    api: RunningApi, neighbour: RpcClient, message: bytes
) -> None:
    async with rpc_client(api.url, api.alice) as client:
        spawned = await client.ok("spawn", command="cat", stdinStreamId=9, stdout="piped", stderr="null")
        await client.socket.send_bytes(message)
        await client.notify("$sandbox.stream.enqueue", streamId=9, data="eA==")
        await client.notify("$sandbox.stream.end", streamId=9)
        assert (await client.ok("processWait", pid=spawned["pid"]))["code"] == 0
        assert await client.output(spawned["stdoutStreamId"]) == b"x"


async def test_who_sends_only_garbage_is_closed_with_4000(api: RunningApi, neighbour: RpcClient) -> None:
    async with rpc_client(api.url, api.alice) as client:
        for _ in range(session.MAX_GARBAGE + 1):
            await client.socket.send_str("{")
        assert await client.close_code() == 4000


async def test_a_message_without_a_method_is_an_invalid_request(api: RunningApi) -> None:
    async with rpc_client(api.url, api.alice) as client:
        await client.socket.send_str('{"jsonrpc":"2.0","id":5}')
        assert (await client.answer(5))["error"]["code"] == -32600


@pytest.mark.parametrize("text", ['"\\ud800"', "7", "null", '"a\\u0000b"', "[]", '"' + "x" * 100_000 + '"'])
async def test_any_path_gets_an_answer(api: RunningApi, text: str) -> None:
    async with rpc_client(api.url, api.alice) as client:
        for number, method in enumerate(("readFile", "stat", "readDir", "lstat"), start=50):
            await client.socket.send_str(
                f'{{"jsonrpc":"2.0","id":{number},"method":"{method}","params":{{"path":{text}}}}}'
            )
            answer = await client.answer(number)
            assert "error" in answer or "error" in answer["result"]
        assert await client.ok("envGet", key="X") is None


async def test_base64_that_is_none_is_refused(api: RunningApi) -> None:
    async with rpc_client(api.url, api.alice) as client:
        answer = await client.call("writeFile", path="/tmp/skerry-hostile", content="***")
        assert answer["result"]["error"]["constructorName"] == "TypeError"


async def test_10000_open_calls_are_served_and_more_than_the_bound_refused(
    api: RunningApi, neighbour: RpcClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "MAX_OPEN_CALLS", 10_000)
    async with rpc_client(api.url, api.alice) as client:
        spawned = await client.ok("spawn", command="sleep", args=["1000"], stdout="null", stderr="null")
        waits = [await client.ask("processWait", pid=spawned["pid"]) for _ in range(10_000)]
        refused = await client.call("envGet", key="X")
        assert refused["error"]["code"] == -32000
        assert "10000 calls" in refused["error"]["message"]
        assert await neighbour.ok("envGet", key="X") is None
        monkeypatch.setattr(session, "MAX_OPEN_CALLS", 20_000)
        await client.ok("processKill", pid=spawned["pid"])
        answers = [await client.answer(id_) for id_ in waits]
        assert {answer["result"]["ok"]["signal"] for answer in answers} == {"SIGTERM"}


async def test_5000_calls_at_once_to_the_agent_all_answer(api: RunningApi, neighbour: RpcClient) -> None:
    async with rpc_client(api.url, api.alice) as client:
        ids = [await client.ask("envGet", key="X") for _ in range(5000)]
        assert [(await client.answer(id_))["result"] for id_ in ids] == [{"ok": None}] * 5000


async def test_a_client_that_reads_nothing_is_bounded_and_cut(
    api: RunningApi, neighbour: RpcClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(websocket, "STALL_S", 0.5)
    async with rpc_client(api.url, api.alice, config={"timeout": "60s"}) as client:
        spawned = await client.ok("spawn", command="yes", stdout="piped", stderr="null")
        transport = client.transport
        transport.pause_reading()
        await client.ask("processWait", pid=spawned["pid"])
        async with rpc_client(
            api.url, api.alice, path=f"/api/v3/sandbox/{client.sandbox_id}/connect"
        ) as other:
            await _until_the_stream_is_left(other, spawned["pid"], api)
            await other.ok("processKill", pid=spawned["pid"])
        transport.abort()


async def _until_the_stream_is_left(client: RpcClient, pid: int, api: RunningApi) -> None:
    """While a client reads a stream, nobody else can: so wait until the server has cut that client off."""
    path = f"/skerry/v1/sandboxes/{client.sandbox_id}/processes/{pid}/output"
    async with asyncio.timeout(30), aiohttp.ClientSession() as http:
        while True:
            async with http.get(api.url + path, headers={"Authorization": f"Bearer {api.alice}"}) as response:
                if response.status == 200:
                    return
                assert response.status == 409, await response.text()
            await asyncio.sleep(0.05)


async def test_a_message_beyond_the_limit_is_1009(api: RunningApi, neighbour: RpcClient) -> None:
    async with rpc_client(api.url, api.alice) as client:
        writer = client.socket._writer
        assert writer is not None
        head = b"\x81\xff" + (websocket.MAX_MESSAGE_BYTES + 1).to_bytes(8, "big") + b"\0\0\0\0"
        writer.transport.write(head)
        assert await client.close_code() == 1009


async def test_deflate_is_declined(api: RunningApi) -> None:
    headers = {"Authorization": f"Bearer {api.alice}"}
    async with (
        aiohttp.ClientSession(headers=headers) as http,
        http.ws_connect(api.url + CREATE, compress=15) as opened,
    ):
        assert "Sec-WebSocket-Extensions" not in opened._response.headers
        await opened.send_str("ping")
        assert (await opened.receive()).data == "pong"


async def test_python_gets_no_pong(api: RunningApi) -> None:
    async with rpc_client(api.url, api.alice, agent=PYTHON_AGENT) as client:
        await client.socket.send_str("ping")
        assert await client.ok("envGet", key="X") is None  # any other text in between would have failed


@pytest.mark.parametrize(
    ("headers", "status", "part"),
    [
        ({}, 400, "upgrade"),
        ({"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "8"}, 400, "13"),
        (
            {
                "Connection": "Upgrade",
                "Upgrade": "websocket",
                "Sec-WebSocket-Version": "13",
                "Sec-WebSocket-Key": "short",
            },
            400,
            "Sec-WebSocket-Key",
        ),
    ],
)
async def test_what_is_no_upgrade_makes_no_sandbox(
    api: RunningApi, headers: dict[str, str], status: int, part: str
) -> None:
    headers["Authorization"] = f"Bearer {api.admin}"
    async with aiohttp.ClientSession(headers=headers) as http:
        async with http.get(api.url + CREATE) as response:
            body = await response.json()
            assert (response.status, part in body["message"]) == (status, True), body
        async with http.get(api.url + "/api/v2/sandboxes") as response:
            assert await response.json() == []


@pytest.mark.parametrize("path", [CREATE, "/api/v2/sandboxes", "/skerry/v1/health"])
async def test_names_that_strangers_point_at_this_machine_are_refused(api: RunningApi, path: str) -> None:
    headers = {"Authorization": f"Bearer {api.alice}", "Host": "rebound.example:80"}
    async with aiohttp.ClientSession() as http, http.get(api.url + path, headers=headers) as response:
        assert response.status == 403
        assert (await response.json())["code"] == "UNKNOWN_HOST"


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:1", "file://", "x"])
@pytest.mark.parametrize("path", [CREATE, "/api/v2/sandboxes", "/skerry/v1/health"])
async def test_web_pages_of_other_sites_are_refused(api: RunningApi, origin: str, path: str) -> None:
    headers = {"Authorization": f"Bearer {api.alice}", "Origin": origin}
    async with aiohttp.ClientSession() as http, http.get(api.url + path, headers=headers) as response:
        assert response.status == 403
        assert (await response.json())["code"] == "FOREIGN_ORIGIN"
        assert "Access-Control-Allow-Origin" not in response.headers


@pytest.mark.parametrize("header", ["Authorization : Bearer {}", "Authorization: Bearer {}\x01", "{} x: y"])
async def test_headers_that_cannot_be_parsed_are_not_logged(
    api: RunningApi, neighbour: RpcClient, caplog: pytest.LogCaptureFixture, header: str
) -> None:
    address = urlsplit(api.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    request = f"GET /api/v2/sandboxes HTTP/1.1\r\nHost: localhost\r\n{header.format(api.alice)}\r\n\r\n"
    writer.write(request.encode())
    async with asyncio.timeout(10):
        answer = await reader.read(64)
    writer.close()
    assert answer.split()[1] == b"400"
    assert api.alice not in caplog.text


async def test_cookies_carry_no_authority(api: RunningApi) -> None:
    cookies = {"token": api.alice, "Authorization": f"Bearer {api.alice}"}
    async with (
        aiohttp.ClientSession(cookies=cookies) as http,
        http.get(api.url + "/api/v2/sandboxes") as response,
    ):
        assert response.status == 401
        assert "Set-Cookie" not in response.headers


async def test_a_large_environment_is_taken_and_a_larger_header_refused(api: RunningApi) -> None:
    environment = {f"V{number}": "x" * 100 for number in range(1200)}
    async with rpc_client(api.url, api.alice, config={"env": environment}) as client:
        assert await client.ok("envGet", key="V1199") == "x" * 100
    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
        async with rpc_client(api.url, api.alice, config={"env": {"A": "x" * MAX_HEADER_BYTES}}):
            pytest.fail("it was accepted")
    assert caught.value.status == 400


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'{"stop_at_ms":"soon"}', b'{"stop_at_ms":1}', b"x" * 100_000, b"[" * 60_000]
)
async def test_bodies_that_are_none(api: RunningApi, body: bytes) -> None:
    async with rpc_client(api.url, api.alice) as client, aiohttp.ClientSession() as http:
        path = f"{api.url}/api/v3/sandbox/{client.sandbox_id}"
        async with http.patch(path, data=body, headers={"Authorization": f"Bearer {api.alice}"}) as response:
            answer = await response.json()
            assert response.status == 400
            assert answer["code"]
            assert answer["error"] == {"code": answer["code"], "message": answer["message"]}


@pytest.mark.parametrize(
    "path",
    [
        "/", "/api", "/api/v3/nothing", "/api/v3/sandboxes/create/x", "/skerry/v1/nothing",
        "/%2e%2e/etc/passwd",
        "/api/v3/sandbox/%2e%2e%2f/connect", "/api/v3/sandboxes?limit=0", "/api/v3/sandboxes?cursor=x",
        "/api/v2/sandboxes?labels=__import__('os')", "/skerry/v1/sandboxes/x/processes/-1/output",
    ],
)  # fmt: skip
async def test_other_paths_are_answered_in_json(api: RunningApi, path: str) -> None:
    headers = {"Authorization": f"Bearer {api.alice}"}
    async with aiohttp.ClientSession() as http, http.get(api.url + path, headers=headers) as response:
        answer = json.loads(await response.text())
        assert response.status in (400, 404)
        assert set(answer) == {"code", "message", "error"}
        assert response.headers["x-deno-trace-id"]


@pytest.mark.parametrize(
    "data",
    [
        b"\0" * 1000,
        b"GET / HTTP/9\r\n\r\n",
        b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00",
    ],
)
async def test_what_is_no_http_is_refused(api: RunningApi, neighbour: RpcClient, data: bytes) -> None:
    answer = await asyncio.to_thread(_raw, api.url, data)
    assert answer.startswith(b"HTTP/1.") or answer == b""


def _raw(url: str, data: bytes) -> bytes:
    address = urlsplit(url)
    assert address.port is not None
    with socket.create_connection((address.hostname or "", address.port), timeout=10) as end:
        end.sendall(data)
        end.shutdown(socket.SHUT_WR)
        return end.recv(65_536)


def upgrade(token: str) -> str:
    """A request that creates a sandbox, as text."""
    lines = [
        f"GET {CREATE} HTTP/1.1",
        "Host: localhost",
        f"Authorization: Bearer {token}",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
    ]
    return "\r\n".join(lines) + "\r\n\r\n"


async def test_a_client_that_leaves_during_create_leaves_nothing(api: RunningApi) -> None:
    request = upgrade(api.admin)
    address = urlsplit(api.url)
    assert address.port is not None
    with socket.create_connection((address.hostname or "", address.port), timeout=10) as end:
        end.sendall(request.encode())
    async with asyncio.timeout(30), aiohttp.ClientSession() as http:
        while True:
            async with http.get(
                api.url + "/api/v2/sandboxes", headers={"Authorization": f"Bearer {api.admin}"}
            ) as response:
                listed = await response.json()
            if listed and all(one["status"] == "stopped" for one in listed):
                return
            await asyncio.sleep(0.05)


async def test_frames_sent_before_the_answer_do_no_harm(api: RunningApi, neighbour: RpcClient) -> None:
    request = upgrade(api.alice)
    answer = await asyncio.to_thread(_raw, api.url, request.encode() + b"\x81\x84\0\0\0\0ping")
    assert answer.startswith(b"HTTP/1.1 101") or answer == b""


async def test_nothing_secret_is_logged(
    api: RunningApi, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    secret = "hunter2-in-the-header"
    async with rpc_client(api.url, api.alice, config={"env": {"KEY": secret}}) as client:
        await client.call("writeTextFile", path="/tmp/skerry-secret", content=secret)
        await client.call("remove", path="/tmp/skerry-secret")
        await client.call("envSet", key="A", value=secret)
        await client.call("spawn", command=secret, args=[secret], stdout="null", stderr="null")
        await client.socket.send_str('{"jsonrpc":"2.0","id":1,"method":"stat","params":{"path":["' + secret)
    for config in (
        {"secrets": {"A": {"hosts": ["x"], "value": secret}}},
        {"memory_mb": 1, "env": {"K": secret}},
    ):
        with pytest.raises(aiohttp.WSServerHandshakeError):
            async with rpc_client(api.url, api.alice, config=config):
                pytest.fail("it was accepted")
    logged = "".join(capfd.readouterr()) + caplog.text
    assert "connected" in logged
    for text in (secret, api.alice, base64.b64encode(secret.encode()).decode()[:16]):
        assert text not in logged
