"""The zygote forks workers that have only what they were given, and nothing survives its master."""

import asyncio
import os
import resource
import signal
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from skerry.egress import zygote
from skerry.egress.broker.zygote_client import ZygoteClient
from skerry.errors import RuntimeFailed
from tests.harness.waiting import until

WAIT_S = 10.0


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    except (FileNotFoundError, ProcessLookupError):
        return False


def answering(control: int, tcp: int, udp: int) -> int:
    """A worker that does what it is told in one word; it ends with its last descriptor."""
    while word := os.read(control, 64):
        match word.split():
            case [b"fds"]:
                found = sorted(map(int, os.listdir("/proc/self/fd")))
                os.write(control, repr(found).encode())
            case [b"facts"]:
                facts = (
                    os.getppid(),
                    resource.getrlimit(resource.RLIMIT_CORE),
                    resource.getrlimit(resource.RLIMIT_NOFILE),
                    Path("/proc/self/comm").read_text().strip(),
                )
                os.write(control, repr(facts).encode())
            case [b"send", data]:
                socket.socket(fileno=os.dup(udp)).send(data)
            case [b"fail"]:
                raise ValueError("quotes a secret")
            case [b"grow"]:
                bytearray(600 << 20)
            case [b"exit", status]:
                return int(status)
    return 0


class Line:
    """A zygote, and the control sockets of its workers."""

    def __init__(self, client: ZygoteClient, pid: int) -> None:
        self.client = client
        self.pid = pid
        self.ended: dict[int, int] = {}
        self.lost = False

    async def worker(self) -> tuple[int, socket.socket]:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        tcp, udp = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        with theirs, tcp, udp:
            try:
                pid = await self.client.fork(
                    [theirs.fileno(), tcp.fileno(), udp.fileno()],
                    lambda status: self.ended.update({pid: status}),
                )
            except RuntimeFailed:
                ours.close()
                raise
        return pid, ours


async def ask(control: socket.socket, word: str) -> str:
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(WAIT_S):
        await loop.sock_sendall(control, word.encode())
        return (await loop.sock_recv(control, 4096)).decode()


@asynccontextmanager
async def running(memory_bytes: int = 256 << 20) -> AsyncIterator[Line]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    broker = os.getpid()
    pid = os.fork()
    if pid == 0:
        ours.close()
        zygote.run(theirs, answering, broker=broker, memory_bytes=memory_bytes)
    theirs.close()
    line: Line | None = None

    def lost() -> None:
        assert line is not None
        line.lost = True

    line = Line(ZygoteClient(ours, lost), pid)
    try:
        yield line
    finally:
        line.client.close()
        await asyncio.to_thread(os.waitpid, pid, 0)


async def test_a_worker_has_its_three_descriptors_and_nothing_else() -> None:
    async with running() as line:
        first, first_control = await line.worker()
        second, control = await line.worker()
        # 0 to 2 are this process's own; the last is the directory that is being listed.
        assert await ask(control, "fds") == "[0, 1, 2, 3, 4, 5, 6]"
        facts = await ask(control, "facts")
        assert facts == repr((line.pid, (0, 0), (4096, 4096), "skerry-worker"))
        assert first != second
        first_control.close()
        control.close()
        await until(lambda: line.ended == {first: 0, second: 0})


async def test_how_a_worker_ended_is_told(capfd: pytest.CaptureFixture[str]) -> None:
    async with running() as line:
        for word, status in (("exit 7", 7), ("fail", zygote.FAILED_STATUS), ("exit 0", 0)):
            pid, control = await line.worker()
            await asyncio.get_running_loop().sock_sendall(control, word.encode())
            await until(partial(line.ended.__contains__, pid))
            assert line.ended[pid] == status
            control.close()
        pid, control = await line.worker()
        line.client.kill(pid)
        await until(lambda: line.ended.get(pid) == -signal.SIGKILL)
        line.client.kill(pid)
        control.close()
    printed = capfd.readouterr().err
    assert "worker failed: ValueError at" in printed
    assert "quotes a secret" not in printed


async def test_a_worker_has_only_so_much_memory(capfd: pytest.CaptureFixture[str]) -> None:
    async with running(memory_bytes=64 << 20) as line:
        pid, control = await line.worker()
        await asyncio.get_running_loop().sock_sendall(control, b"grow")
        await until(lambda: pid in line.ended)
        assert line.ended[pid] == zygote.FAILED_STATUS
        control.close()
    assert "MemoryError" in capfd.readouterr().err


async def test_when_the_broker_hangs_up_all_end() -> None:
    async with running() as line:
        pid, control = await line.worker()
        line.client.close()
        await until(lambda: not alive(pid))
        control.close()


async def test_when_the_zygote_is_killed_its_workers_end_and_none_can_be_started() -> None:
    async with running() as line:
        pid, control = await line.worker()
        os.kill(line.pid, signal.SIGKILL)
        await until(lambda: line.lost and not alive(pid))
        assert line.ended == {pid: -signal.SIGKILL}
        with pytest.raises(RuntimeFailed):
            await line.worker()
        control.close()


@pytest.mark.parametrize("descriptors", [0, 1, 2])
async def test_a_worker_without_all_its_descriptors_is_not_started(descriptors: int) -> None:
    async with running() as line:
        ends = socket.socketpair()
        with ends[0], ends[1]:
            some: Sequence[int] = [ends[0].fileno()] * descriptors
            with pytest.raises(RuntimeFailed):
                await line.client.fork(some, lambda _: None)
        pid, control = await line.worker()
        assert alive(pid)
        control.close()
