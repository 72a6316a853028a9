"""The unmodified Python SDK's asynchronous client: many things at once, broken connections, and ends that
come by themselves."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from deno_sandbox import AsyncDenoDeploy
from deno_sandbox.sandbox import AsyncSandbox
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.conftest import Built
from tests.harness.running_api import RunningApi, fake, gvisor, running_api

_GONE_S = 15.0


@pytest.fixture(scope="module", params=["fake", pytest.param("gvisor", marks=pytest.mark.needs_root)])
def api(
    request: pytest.FixtureRequest, built: Built, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningApi]:
    kind = {"fake": fake, "gvisor": gvisor}[request.param](built)
    with running_api(kind, tmp_path_factory.mktemp("api")) as running:
        yield running


@pytest.fixture
async def sdk(api: RunningApi, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[AsyncDenoDeploy]:
    for name, value in api.environment().items():
        monkeypatch.setenv(name, value)
    sdk = AsyncDenoDeploy()
    yield sdk
    await sdk.sandbox._client.close()


async def output_of(sandbox: AsyncSandbox, command: str, *args: str) -> bytes:
    process = await sandbox.spawn(command, args=list(args), stdout="piped", stderr="null")
    output = bytes(await process.stdout.read())
    assert (await process.wait())["success"]
    return output


def cut(sandbox: AsyncSandbox) -> None:
    """Drop the connection without a close frame."""
    connection = sandbox._rpc._transport._ws
    assert connection is not None
    connection.transport.abort()


async def test_a_pending_wait_delays_nothing(sdk: AsyncDenoDeploy) -> None:
    async with sdk.sandbox.create() as sandbox:
        sleeper = await sandbox.spawn("sleep", args=["1000"], stdout="null", stderr="null")
        path = "/tmp/skerry-async-many"
        await sandbox.fs.write_text_file(path, "same")
        texts = await asyncio.gather(*(sandbox.fs.read_text_file(path) for _ in range(100)))
        assert set(texts) == {"same"}
        await sandbox.fs.remove(path)
        await sleeper.kill()


async def test_many_processes_at_once_in_two_sandboxes(sdk: AsyncDenoDeploy) -> None:
    async with sdk.sandbox.create() as one, sdk.sandbox.create() as two:
        wanted = [
            (sandbox, f"{name} {number}")
            for number in range(30)
            for name, sandbox in (("1", one), ("2", two))
        ]
        outputs = await asyncio.gather(*(output_of(sandbox, "echo", text) for sandbox, text in wanted))
        assert outputs == [f"{text}\n".encode() for _, text in wanted]


async def test_an_asynchronous_source_is_written(sdk: AsyncDenoDeploy) -> None:
    async def source() -> AsyncIterator[bytes]:
        for number in range(100):
            await asyncio.sleep(0)
            yield bytes([number]) * 3000

    path = "/tmp/skerry-async-source"
    async with sdk.sandbox.create() as sandbox:
        await sandbox.fs.write_file(path, source())
        assert await sandbox.fs.read_file(path) == b"".join(bytes([number]) * 3000 for number in range(100))
        await sandbox.fs.remove(path)


async def test_200_streamed_writes_at_once(sdk: AsyncDenoDeploy) -> None:
    async with sdk.sandbox.create() as sandbox:
        place = "/tmp/skerry-async-writes"
        await sandbox.fs.mkdir(place)
        await asyncio.gather(*(sandbox.fs.write_file(f"{place}/{n}", b"x" * n) for n in range(200)))
        assert (await output_of(sandbox, "sh", "-c", f"cat {place}/* | wc -c")).strip() == b"19900"
        await sandbox.fs.remove(place, recursive=True)


async def test_at_its_end_a_pending_wait_is_answered(sdk: AsyncDenoDeploy) -> None:
    async with sdk.sandbox.create(timeout="2s") as sandbox:
        sleeper = await sandbox.spawn("sleep", args=["1000"], stdout="piped", stderr="null")
        async with asyncio.timeout(_GONE_S):
            assert await sleeper.stdout.read() == b""
            with pytest.raises(Exception, match="expired"):
                await sleeper.wait()


async def test_a_session_whose_connection_breaks_is_gone_after_its_grace(sdk: AsyncDenoDeploy) -> None:
    manager = sdk.sandbox.create()
    sandbox = await manager.__aenter__()
    cut(sandbox)
    await _until_gone(sdk, sandbox.id)
    listed: dict[str, Any] = {item["id"]: item for item in (await sdk.sandbox.list()).items}
    assert listed[sandbox.id]["end_reason"] == "disconnected"
    await manager.__aexit__(None, None, None)


async def _until_gone(sdk: AsyncDenoDeploy, sandbox_id: str) -> None:
    async with asyncio.timeout(_GONE_S):
        while True:
            listed = {item["id"]: item["status"] for item in (await sdk.sandbox.list()).items}
            if listed[sandbox_id] == "stopped":
                break
            await asyncio.sleep(0.05)
    with pytest.raises(InvalidStatus):
        async with sdk.sandbox.connect(sandbox_id):
            pytest.fail("it is still there")


async def test_a_duration_goes_on_when_its_connection_breaks(sdk: AsyncDenoDeploy) -> None:
    manager = sdk.sandbox.create(timeout="2m")
    sandbox = await manager.__aenter__()
    worker = await sandbox.spawn("sleep", args=["1000"], stdout="null", stderr="null")
    await sandbox.fs.write_text_file("/tmp/skerry-async-left", "left")
    cut(sandbox)
    async with sdk.sandbox.connect(sandbox.id) as again:
        assert await again.fs.read_text_file("/tmp/skerry-async-left") == "left"
        await again.fs.remove("/tmp/skerry-async-left")
        status: Any = asyncio.ensure_future(again._rpc.call("processWait", {"pid": worker.pid}))
        await again._rpc.call("processKill", {"pid": worker.pid})
        assert (await status)["signal"] == "SIGTERM"
        await again.kill()
    with pytest.raises(ConnectionClosed):
        await manager.__aexit__(None, None, None)  # the SDK kills its processes first


async def test_killing_from_another_connection_answers_everybody(sdk: AsyncDenoDeploy) -> None:
    async with sdk.sandbox.create() as first:
        sleeper = await first.spawn("sleep", args=["1000"], stdout="null", stderr="null")
        async with sdk.sandbox.connect(first.id) as second:
            await second.kill()
        async with asyncio.timeout(_GONE_S):
            with pytest.raises(Exception, match="killed"):
                await sleeper.wait()
