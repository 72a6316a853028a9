"""Limits of a real sandbox, as the unmodified Python SDK sees them."""

from collections.abc import AsyncIterator, Iterator

import pytest
from deno_sandbox import AsyncDenoDeploy
from deno_sandbox.sandbox import AsyncSandbox

from tests.conftest import Built
from tests.harness.running_api import RunningApi, gvisor, running_api

pytestmark = pytest.mark.needs_root

_HOG = "x = bytearray(); [x.extend(bytes(16 << 20)) for _ in range(1000)]"


@pytest.fixture(scope="module")
def api(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApi]:
    with running_api(gvisor(built), tmp_path_factory.mktemp("api")) as running:
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


async def test_exceeding_memory_is_137_and_the_neighbour_does_not_notice(sdk: AsyncDenoDeploy) -> None:
    async with sdk.sandbox.create() as neighbour:
        async with sdk.sandbox.create(memory_mb=768) as sandbox:
            hog = await sandbox.spawn("python3", args=["-c", _HOG], stdout="piped", stderr="null")
            assert await hog.stdout.read() == b""
            status = await hog._wait_task
            assert (status["code"], status["signal"]) == (137, "SIGKILL")
            assert status["oom"] in ("high-confidence", "low-confidence")
        assert await output_of(neighbour, "echo", "alive") == b"alive\n"


async def test_memory_that_was_asked_for_is_what_the_guest_sees(sdk: AsyncDenoDeploy) -> None:
    for memory_mib in (768, 2048):
        async with sdk.sandbox.create(memory_mb=memory_mib) as sandbox:
            seen = await output_of(sandbox, "awk", "/MemTotal/ {print $2}", "/proc/meminfo")
            assert memory_mib * 0.9 <= int(seen) / 1024 <= memory_mib * 1.5


async def test_files_belong_to_the_user_and_sudo_asks_for_nothing(sdk: AsyncDenoDeploy) -> None:
    async with sdk.sandbox.create() as sandbox:
        assert await output_of(sandbox, "id", "-un") == b"app\n"
        assert await output_of(sandbox, "pwd") == b"/home/app\n"
        await sandbox.fs.write_text_file("mine", "x")
        assert await output_of(sandbox, "stat", "-c", "%U %n", "/home/app/mine") == b"app /home/app/mine\n"
        with pytest.raises(Exception, match="PermissionDenied"):
            await sandbox.fs.read_text_file("/etc/shadow")
        assert await output_of(sandbox, "sudo", "-n", "id", "-u") == b"0\n"
