"""Both ends of the agent channel: the real agent as an ordinary process, our link and client.

The agent is what the set-up built, or the binary that ``SKERRY_TEST_AGENT`` names.
"""

import asyncio
import contextlib
import getpass
import hashlib
import os
import random
import signal
import socket
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from skerry.control.agent import (
    AgentClient,
    AgentLink,
    Exit,
    FileWriter,
    Gap,
    OutputStream,
    PacedListener,
    Process,
    StreamReset,
)
from skerry.control.agent.connection import Connection
from skerry.errors import AgentError, GuestUnreachable
from tests.harness.waiting import until, until_awaited

MIB = 1 << 20
JOURNAL_BYTES = 1 * MIB
BREAKS = 5
"""So often at least the connection breaks in each test of broken connections."""


class Channel:
    """A listening socket, the agent that dials it, and the link that answers now."""

    def __init__(self, agent: str, directory: str, *, reattach_window_ms: int = 60_000) -> None:
        self._path = f"{directory}/agent.sock"
        self._agent = agent
        self._window_ms = reattach_window_ms
        self._connections: list[Connection] = []
        self._epoch = 0
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(self._path)
        sock.listen(8)
        self._listener = PacedListener(sock, self._accept)
        self._process: asyncio.subprocess.Process | None = None
        self._begin_epoch()

    def restart_host(self) -> None:
        """Forget everything, as after a restart of the process; the agent dials again."""
        self.link.close("the host restarts")
        self._begin_epoch()

    def _begin_epoch(self) -> None:
        self._epoch += 1
        self.link = AgentLink(sandbox_id="sbx_test", epoch=self._epoch, reattach_window_ms=self._window_ms)
        self.client = AgentClient(self.link)

    def cut(self) -> None:
        """Break the connection; what was on its way is lost."""
        if self._connections:
            self._connections[-1].close()

    async def start_agent(self) -> None:
        """Start the agent and wait for it."""
        self._process = await asyncio.create_subprocess_exec(
            self._agent, "--socket", self._path, "--user", getpass.getuser()
        )
        await self.link.wait_connected(10)

    async def stop_agent(self) -> None:
        """End it without a word."""
        assert self._process is not None
        self._process.kill()
        await self._process.wait()

    async def close(self) -> None:
        """End the agent and what it started."""
        try:
            async with asyncio.timeout(10):
                await self._kill_all()
        finally:
            self.link.close("test is over")
            self._listener.close()
            await self.stop_agent()

    async def _kill_all(self) -> None:
        for info in await self.client.processes():
            process = self.client.process(info.pid)
            if info.exit is None and process is not None:
                with contextlib.suppress(AgentError):  # it may end by itself meanwhile
                    await process.kill("SIGKILL", group=True)

    def _accept(self) -> asyncio.Protocol:
        connection = self.link.accept()
        assert isinstance(connection, Connection)
        self._connections.append(connection)
        return connection


@pytest.fixture(scope="session")
def agent(request: pytest.FixtureRequest) -> str:
    """The agent's binary."""
    named = os.environ.get("SKERRY_TEST_AGENT")
    return named or str(request.getfixturevalue("built").agent)


@pytest.fixture
async def channel(agent: str) -> AsyncIterator[Channel]:
    """An agent that is connected."""
    # Socket paths have at most 108 bytes, and pytest's directories are long.
    with tempfile.TemporaryDirectory() as directory:
        channel = Channel(agent, directory)
        await channel.start_agent()
        yield channel
        await channel.close()


async def _read_all(stream: OutputStream | None) -> bytes:
    assert stream is not None
    pieces = []
    while (piece := await stream.read()) is not None:
        assert isinstance(piece, bytes), piece
        pieces.append(piece)
    return b"".join(pieces)


async def _run(client: AgentClient, script: str) -> tuple[Exit, bytes, bytes]:
    process = await client.spawn(command="sh", args=["-c", script])
    out, err = await asyncio.gather(_read_all(process.stdout), _read_all(process.stderr))
    return await process.wait(), out, err


# --- processes -----------------------------------------------------------------------------------


async def test_output_and_exit_status(channel: Channel) -> None:
    assert await _run(channel.client, "echo out; echo err >&2; exit 3") == (
        Exit(3, None, False),
        b"out\n",
        b"err\n",
    )


async def test_signals_end_processes_and_their_groups(channel: Channel) -> None:
    process = await channel.client.spawn(
        command="sh", args=["-c", "sleep 1000 & echo $!; wait"], stderr=False
    )
    assert process.stdout is not None
    child = await process.stdout.read()
    assert isinstance(child, bytes)
    await process.kill("SIGTERM", group=True)
    assert await process.wait() == Exit(128 + signal.SIGTERM, "SIGTERM", False)
    assert await _read_all(process.stdout) == b""
    with pytest.raises(AgentError) as caught:
        await process.kill("SIGTERM")
    assert caught.value.code == "ESRCH"
    with pytest.raises(AgentError) as caught:
        await process.kill("SIGNONSENSE")
    assert caught.value.code == "BAD_SIGNAL"


async def test_stdin_reaches_the_process_whole(channel: Channel) -> None:
    data = random.Random(1).randbytes(5 * MIB)  # noqa: S311 - repeatable
    process = await channel.client.spawn(command="sha256sum", stdin=True, stderr=False)
    assert process.stdin is not None
    await process.stdin.write(data)
    process.stdin.end()
    assert (await _read_all(process.stdout)).split()[0].decode() == hashlib.sha256(data).hexdigest()
    assert (await process.wait()).code == 0


async def test_stdin_of_a_process_that_does_not_read(channel: Channel) -> None:
    process = await channel.client.spawn(command="true", stdin=True, stdout=False, stderr=False)
    assert process.stdin is not None
    await process.wait()
    with pytest.raises(StreamReset):
        await process.stdin.write(bytes(10 * MIB))


async def test_a_slow_reader_stalls_nobody_else(channel: Channel) -> None:
    slow = await channel.client.spawn(command="yes", stderr=False)
    fast = await channel.client.spawn(command="head", args=["-c", str(20 * MIB), "/dev/zero"], stderr=False)
    assert len(await _read_all(fast.stdout)) == 20 * MIB
    assert slow.exit is None
    assert slow.stdout is not None
    assert await slow.stdout.read(4) == b"y\ny\n"
    await slow.kill("SIGKILL")
    await slow.wait()


async def test_environment_and_directory(channel: Channel, tmp_path: Path) -> None:
    await channel.client.env_update({"SHARED": "1", "OTHER": "ü"})
    await channel.client.env_update(unset=["OTHER"])
    told = await channel.client.env_all()
    assert (told["SHARED"], "OTHER" in told, "PATH" in told) == ("1", False, True)
    process = await channel.client.spawn(
        command="sh", args=["-c", "echo $SHARED-$OTHER-$OWN-$PWD"], env={"OWN": "2"}, cwd=str(tmp_path)
    )
    assert await _read_all(process.stdout) == f"1--2-{tmp_path}\n".encode()
    process = await channel.client.spawn(command="env", env={"OWN": "2"}, clear_env=True, stderr=False)
    assert await _read_all(process.stdout) == b"OWN=2\n"


async def test_command_that_is_not_there(channel: Channel) -> None:
    with pytest.raises(AgentError) as caught:
        await channel.client.spawn(command="no-such-command")
    assert caught.value.code == "ENOENT"
    assert channel.link.streams.output_pool.used_bytes == 0


async def test_many_at_once(channel: Channel) -> None:
    results = await asyncio.gather(*[_run(channel.client, f"echo {n}; exit {n}") for n in range(100)])
    assert [(result[0].code, result[1]) for result in results] == [(n, b"%d\n" % n) for n in range(100)]


async def test_cancelled_start_leaves_no_process(channel: Channel) -> None:
    for _ in range(20):
        task = asyncio.get_running_loop().create_task(channel.client.spawn(command="sleep", args=["1000"]))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await until_awaited(lambda: _nothing_runs(channel.client))
    assert channel.link.streams.output_pool.used_bytes == 0


async def _nothing_runs(client: AgentClient) -> bool:
    return all(info.exit is not None for info in await client.processes())


# --- files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 100_000, 240 << 10, (240 << 10) + 1, 3 * MIB + 7])
async def test_files_of_every_size_come_back(size: int, channel: Channel, tmp_path: Path) -> None:
    data = random.Random(size).randbytes(size)  # noqa: S311 - repeatable
    path = tmp_path / "file"
    await channel.client.write_file(str(path), data)
    assert path.read_bytes() == data
    assert await channel.client.read_file(str(path), max_bytes=10 * MIB) == data
    found = await channel.client.stat(str(path))
    assert (found.kind, found.size) == ("file", size)
    await channel.client.write_file(str(path), b"more", append=True)
    assert (await channel.client.stat(str(path))).size == size + 4


async def test_file_errors_have_errno_names(channel: Channel, tmp_path: Path) -> None:
    client, path = channel.client, str(tmp_path / "file")
    await client.write_file(path, bytes(500_000))
    calls = [
        (client.read_file(f"{path}.not", max_bytes=1), "ENOENT"),
        (client.read_file(path, max_bytes=499_999), "TOO_LARGE"),
        (client.read_file(str(tmp_path), max_bytes=10), "EISDIR"),
        (client.write_file(path, b"", create_new=True), "EEXIST"),
        (client.write_file(f"{path}/below", bytes(300_000)), "ENOTDIR"),
        (client.write_file(f"{path}.not", bytes(300_000), create=False), "ENOENT"),
        (client.mkdir(path), "EEXIST"),
        (client.remove(str(tmp_path)), "ENOTEMPTY"),
        (client.read_dir(path), "ENOTDIR"),
        (client.stat(f"{path}.not"), "ENOENT"),
    ]
    for call, code in calls:
        with pytest.raises(AgentError) as caught:
            await call
        assert caught.value.code == code


async def test_full_disk_is_reported(channel: Channel) -> None:
    writer = await channel.client.open_write("/dev/full")
    with pytest.raises(AgentError) as caught:
        await _write_and_close(writer)
    assert caught.value.code == "ENOSPC"
    assert channel.link.streams.input_pool.used_bytes == 0


async def _write_and_close(writer: FileWriter) -> None:
    await writer.write(bytes(2 * MIB))
    await writer.close()


async def test_directories(channel: Channel, tmp_path: Path) -> None:
    client, root = channel.client, str(tmp_path / "a")
    await client.mkdir(f"{root}/b/c", recursive=True, mode=0o700)
    await client.write_file(f"{root}/file", b"x", mode=0o600)
    os.symlink("file", f"{root}/link")
    os.mkfifo(os.fsencode(root) + b"/\xff")
    entries = {entry.name: entry.kind for entry in await client.read_dir(root)}
    assert entries == {"b": "dir", "file": "file", "link": "symlink", b"\xff": "other"}
    assert (await client.stat(f"{root}/link")).kind == "file"
    assert (await client.stat(f"{root}/link", follow=False)).kind == "symlink"
    assert (await client.stat(f"{root}/file")).mode & 0o777 == 0o600
    await client.remove(f"{root}/link")
    assert (await client.stat(f"{root}/file")).size == 1
    await client.remove(root, recursive=True)
    assert os.listdir(tmp_path) == []


async def test_large_directory(channel: Channel, tmp_path: Path) -> None:
    for n in range(20_000):
        (tmp_path / f"a-name-that-is-not-short-{n}").touch()
    assert len(await channel.client.read_dir(str(tmp_path))) == 20_000


async def test_abandoned_reads_do_not_use_the_agent_up(channel: Channel, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(2 * MIB))
    for _ in range(200):
        _, stream = await channel.client.open_read(str(path))
        stream.cancel()
    for _ in range(200):
        writer = await channel.client.open_write(str(tmp_path / "other"))
        writer.abort()
    assert len(await channel.client.read_file(str(path), max_bytes=2 * MIB)) == 2 * MIB


# --- broken connections --------------------------------------------------------------------------


async def _cutting(channel: Channel, dice: random.Random) -> None:
    """Break the connection again and again."""
    while True:
        await asyncio.sleep(dice.uniform(0.0, 0.05))
        channel.cut()
        await channel.link.wait_connected(10)


@pytest.fixture
async def unsteady(channel: Channel) -> AsyncIterator[Channel]:
    """A channel whose connection breaks every few milliseconds."""
    cutting = asyncio.get_running_loop().create_task(_cutting(channel, random.Random(3)))  # noqa: S311
    yield channel
    assert not cutting.done()
    cutting.cancel()
    await asyncio.gather(cutting, return_exceptions=True)
    await channel.link.wait_connected(10)
    assert channel.link.stats.protocol_errors == 0
    assert channel.link.stats.reconnects >= BREAKS


async def test_output_is_whole_over_broken_connections(unsteady: Channel) -> None:
    script = "i=0; while [ $i -lt 60 ]; do seq 1 20000; i=$((i+1)); sleep 0.01; done"
    expected = "".join(f"{n}\n" for n in range(1, 20001)).encode() * 60
    exit_, out, err = await _run(unsteady.client, script)
    assert exit_.code == 0
    assert err == b""
    assert hashlib.sha256(out).digest() == hashlib.sha256(expected).digest()


async def test_input_is_whole_over_broken_connections(unsteady: Channel) -> None:
    data = random.Random(2).randbytes(MIB)  # noqa: S311 - repeatable
    process = await unsteady.client.spawn(command="sha256sum", stdin=True, stderr=False)
    assert process.stdin is not None
    digest = hashlib.sha256()
    for n in range(30):
        await process.stdin.write(data[n:])
        digest.update(data[n:])
        await asyncio.sleep(0.01)
    process.stdin.end()
    assert (await _read_all(process.stdout)).split()[0].decode() == digest.hexdigest()
    assert (await process.wait()).code == 0


async def test_files_are_whole_over_broken_connections(unsteady: Channel, tmp_path: Path) -> None:
    data = random.Random(2).randbytes(4 * MIB)  # noqa: S311 - repeatable
    done = 0
    while done < 10 or unsteady.link.stats.reconnects < BREAKS:
        path = str(tmp_path / f"file{done}")
        await unsteady.client.write_file(path, data)
        assert await unsteady.client.read_file(path, max_bytes=8 * MIB) == data
        done += 1


async def test_requests_run_once_over_broken_connections(unsteady: Channel, tmp_path: Path) -> None:
    path = str(tmp_path / "lines")
    await unsteady.client.write_file(path, b"")
    done = 0
    while done < 200 or unsteady.link.stats.reconnects < BREAKS:
        await unsteady.client.write_file(path, b"%d\n" % done, append=True)
        done += 1
    assert (tmp_path / "lines").read_text().split() == [str(n) for n in range(done)]


async def test_processes_start_once_and_end_over_broken_connections(
    unsteady: Channel, tmp_path: Path
) -> None:
    path = tmp_path / "lines"
    done = 0
    while done < 100 or unsteady.link.stats.reconnects < BREAKS:
        numbers = range(done, done + 50)
        scripts = [f"sleep 0.0{n % 10}; echo {n} >> {path}; echo {n}; exit 7" for n in numbers]
        results = await asyncio.gather(*[_run(unsteady.client, script) for script in scripts])
        assert [result[1] for result in results] == [b"%d\n" % n for n in numbers]
        assert {result[0].code for result in results} == {7}
        done += 50
    assert sorted(map(int, path.read_text().split())) == list(range(done))


# --- the host restarts, the agent restarts -------------------------------------------------------


async def _adopted(channel: Channel, pid: int) -> Process:
    channel.restart_host()
    await channel.link.wait_connected(10)
    await channel.client.adopt()
    process = channel.client.process(pid)
    assert process is not None
    return process


async def test_processes_go_on_while_the_host_restarts(channel: Channel) -> None:
    script = "i=0; while [ $i -lt 100 ]; do echo line $i; i=$((i+1)); sleep 0.005; done; exit 5"
    process = await channel.client.spawn(command="sh", args=["-c", script], stderr=False)
    assert process.stdout is not None
    before = await process.stdout.read()
    assert isinstance(before, bytes)
    offset = process.stdout.offset
    process = await _adopted(channel, process.pid)
    assert process.stdout is not None
    process.stdout.attach(offset)
    rest = await _read_all(process.stdout)
    assert before + rest == b"".join(b"line %d\n" % n for n in range(100))
    assert (await process.wait()).code == 5
    # It has ended; its output can be read again, from anywhere.
    process.stdout.attach(5)
    assert await _read_all(process.stdout) == (before + rest)[5:]
    process = await _adopted(channel, process.pid)
    assert process.exit == Exit(5, None, False)


async def test_output_that_nobody_reads_blocks_and_is_not_lost(channel: Channel) -> None:
    size = 3 * MIB
    process = await channel.client.spawn(command="head", args=["-c", str(size), "/dev/zero"], stderr=False)
    process = await _adopted(channel, process.pid)
    assert process.exit is None
    assert process.stdout is not None
    process.stdout.attach(0)
    assert len(await _read_all(process.stdout)) == size
    assert (await process.wait()).code == 0


async def test_detached_output_goes_on_and_leaves_a_gap(channel: Channel) -> None:
    size = 5 * MIB
    process = await channel.client.spawn(command="head", args=["-c", str(size), "/dev/zero"], stderr=False)
    assert process.stdout is not None
    process.stdout.detach()
    assert (await process.wait()).code == 0
    process.stdout.attach(0)
    gap = await process.stdout.read()
    assert isinstance(gap, Gap)
    assert gap.start == 0
    assert size - JOURNAL_BYTES <= gap.end < size
    assert len(await _read_all(process.stdout)) == size - gap.end


async def test_output_after_the_window_leaves_a_gap(agent: str) -> None:
    with tempfile.TemporaryDirectory() as directory:
        channel = Channel(agent, directory, reattach_window_ms=50)
        await channel.start_agent()
        size = 5 * MIB
        process = await channel.client.spawn(
            command="head", args=["-c", str(size), "/dev/zero"], stderr=False
        )
        process = await _adopted(channel, process.pid)
        # Nobody attaches; once the window is over the process is not held up any longer.
        assert (await process.wait()).code == 0
        assert process.stdout is not None
        process.stdout.attach(0)
        gap = await process.stdout.read()
        assert isinstance(gap, Gap)
        assert len(await _read_all(process.stdout)) == size - gap.end
        await channel.close()


async def test_input_ends_with_the_host(channel: Channel) -> None:
    process = await channel.client.spawn(command="cat", stdin=True, stderr=False)
    assert process.stdin is not None
    await process.stdin.write(b"before")
    assert process.stdout is not None
    assert await process.stdout.read() == b"before"
    process = await _adopted(channel, process.pid)
    assert (await process.wait()).code == 0


async def test_another_agent_is_noticed(channel: Channel) -> None:
    process = await channel.client.spawn(command="sleep", args=["1000"], stderr=False)
    pid = process.pid
    await channel.stop_agent()
    await until(lambda: not channel.link.connected)
    await channel.start_agent()
    with pytest.raises(GuestUnreachable):
        await process.wait()
    with pytest.raises(GuestUnreachable):
        await _read_all(process.stdout)
    assert (await _run(channel.client, "echo again"))[1] == b"again\n"
    os.kill(pid, signal.SIGKILL)


async def test_reclaim_ends_the_largest_group(channel: Channel) -> None:
    small = await channel.client.spawn(command="sleep", args=["1000"], stdout=False, stderr=False)
    script = "x = b'x' * (80 << 20); print(1, flush=True); import time; time.sleep(1000)"
    large = await channel.client.spawn(command="python3", args=["-c", script], stderr=False)
    assert large.stdout is not None
    assert await large.stdout.read() == b"1\n"
    reclaimed = await channel.client.reclaim()
    assert reclaimed.pid == large.pid
    assert reclaimed.rss_bytes > 80 * MIB
    assert await large.wait() == Exit(137, "SIGKILL", True)
    assert small.exit is None
