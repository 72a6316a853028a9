"""The client of egressd, and egressd's client of hostd, against the other side over real sockets."""

import asyncio
import os
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from skerry.control import egress_client
from skerry.control.clock import SystemClock
from skerry.control.egress_client import EgressdClient
from skerry.control.tasks import Tasks
from skerry.egress.broker.gateway import open_gateway
from skerry.egress.broker.server import MAX_CONNECTIONS, BrokerServer
from skerry.errors import HostUnusable, InvalidRequest, NotFound, RuntimeFailed, TimedOut
from skerry.policy.document import AllowRule
from skerry.protocol.egress_verbs import EgressDescribe
from skerry.protocol.host_verbs import Call, Failure, FrameReader, OpenGateway, Reply, frame
from tests.harness.egress_ground import HOST, ID, VALUE, Scene, grant, layer, secret
from tests.harness.waiting import until

NEW_VALUE = b"the-value-after-a-rotation-0123"


@pytest.fixture
def directory() -> Iterator[Path]:
    """One with a short path."""
    made = Path(tempfile.mkdtemp(prefix="skerry-"))
    yield made
    shutil.rmtree(made)


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    """Everything around a broker."""
    made = Scene(tmp_path, now_ms=lambda: 1_700_000_000_000)
    yield made
    made.close()


def listening(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen(16)
    listener.setblocking(False)
    return listener


@asynccontextmanager
async def served(scene: Scene, path: Path, *, allowed_uid: int | None = None) -> AsyncIterator[None]:
    """A broker that serves a socket."""
    uid = os.getuid() if allowed_uid is None else allowed_uid
    async with scene.broker(restored=scene.keeper.kept()) as broker, asyncio.TaskGroup() as group:
        serving = group.create_task(BrokerServer(listening(path), broker=broker, allowed_uid=uid).serve())
        yield
        serving.cancel()
        os.unlink(path)


@asynccontextmanager
async def client_at(path: Path) -> AsyncIterator[EgressdClient]:
    async with Tasks() as tasks:
        yield EgressdClient(path, tasks=tasks, clock=SystemClock())


async def test_every_verb_over_the_wire(scene: Scene, directory: Path) -> None:
    path = directory / "egressd.sock"
    async with served(scene, path), client_at(path) as egress:
        made = await egress.grant(grant(secret("ONE"), secret("TWO")))
        assert made.placeholders.keys() == {"ONE", "TWO"}
        assert (await egress.describe()).sandboxes[0].version == 1
        assert (await egress.allow_host(ID, AllowRule(host="more.example.com"))).version == 2
        assert (await egress.set_layers(ID, [layer(HOST)])).version == 3
        assert (await egress.explain(ID, f"https://{HOST}/", "POST")).allowed
        await egress.rotate(ID, "ONE", NEW_VALUE)
        await egress.revoke(ID, "TWO")
        assert [(one.name, one.state) for one in await egress.secrets(ID)] == [
            ("ONE", "active"),
            ("TWO", "revoked"),
        ]
        assert (await egress.read_audit(ID, wait_ms=1)).lines == []
        await egress.forget_audit([ID])
        await egress.release(ID)
        assert (await egress.describe()).sandboxes == ()
        with pytest.raises(NotFound):
            await egress.secrets(ID)


async def test_a_grant_that_is_too_large_is_refused_here(scene: Scene, directory: Path) -> None:
    path = directory / "egressd.sock"
    secrets = [secret(f"KEY{n}", VALUE + b"x" * 16_000) for n in range(80)]
    async with served(scene, path), client_at(path) as egress:
        with pytest.raises(InvalidRequest, match="too large"):
            await egress.grant(grant(*secrets))
        assert (await egress.describe()).sandboxes == ()


async def test_it_waits_for_egressd_and_connects_again(scene: Scene, directory: Path) -> None:
    path, times = directory / "egressd.sock", 0

    async def count(egress: EgressdClient) -> None:
        nonlocal times
        async for _ in egress.reconnected():
            times += 1

    async with client_at(path) as egress, asyncio.TaskGroup() as group:
        counting = group.create_task(count(egress))
        early = group.create_task(egress.grant(grant(secret())))
        await until(lambda: times == 1)
        async with served(scene, path):
            assert (await early).version == 1
            await until(lambda: times == 2)
        async with served(scene, path):
            assert [one.name for one in await egress.secrets(ID)] == ["KEY"]
            await until(lambda: times == 3)
        counting.cancel()


async def test_who_is_not_allowed_is_not_served(
    scene: Scene, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(egress_client.DEADLINES_S, EgressDescribe, 0.3)
    path = directory / "egressd.sock"
    async with served(scene, path, allowed_uid=os.getuid() + 1), client_at(path) as egress:
        with pytest.raises(HostUnusable) as refused:
            await egress.describe()
    assert (refused.value.code, refused.value.retryable) == ("EGRESSD_UNREACHABLE", False)


async def test_only_so_many_connections_are_served(scene: Scene, directory: Path) -> None:
    path, loop = directory / "egressd.sock", asyncio.get_running_loop()
    async with served(scene, path):
        held = [socket.socket(socket.AF_UNIX) for _ in range(MAX_CONNECTIONS + 1)]
        for sock in held:
            sock.setblocking(False)
            await loop.sock_connect(sock, str(path))
            await asyncio.sleep(0.001)  # the queue of those that wait to be accepted is short
        async with asyncio.timeout(10):
            assert await loop.sock_recv(held[-1], 1) == b""
        for sock in held:
            sock.close()
        async with client_at(path) as egress:
            await egress.describe()


class Hostd:
    """Answers one connection as told."""

    def __init__(self, path: Path, answer: bytes, descriptors: Sequence[int]) -> None:
        self.asked: list[Call] = []
        self._path, self._answer, self._descriptors = path, answer, descriptors

    async def serve(self) -> None:
        loop = asyncio.get_running_loop()
        with listening(self._path) as listener:
            sock, _ = await loop.sock_accept(listener)
            with sock:
                (body,) = FrameReader().feed(await loop.sock_recv(sock, 4096))
                self.asked.append(msgspec.msgpack.decode(body, type=Call))
                if self._descriptors:
                    socket.send_fds(sock, [self._answer], self._descriptors)
                elif self._answer:
                    sock.send(self._answer)


@asynccontextmanager
async def hostd_answering(
    directory: Path, answer: bytes, descriptors: Sequence[int] = ()
) -> AsyncIterator[Path]:
    path = directory / "hostd.sock"
    hostd = Hostd(path, answer, descriptors)
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        group.create_task(hostd.serve())
        await until(path.exists)
        yield path
    assert hostd.asked == [Call(1, OpenGateway(ID))]


async def test_a_gateway_comes_as_two_descriptors(directory: Path) -> None:
    tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with tcp, udp:
        tcp.bind(("127.0.0.1", 0))
        udp.bind(("127.0.0.1", 0))
        async with hostd_answering(directory, frame(Reply(1)), [tcp.fileno(), udp.fileno()]) as path:
            gateway = await open_gateway(path, ID)
        assert gateway.tcp.getsockname() == tcp.getsockname()
        assert gateway.udp.getsockname() == udp.getsockname()
        assert not gateway.tcp.getblocking()
        gateway.close()


@pytest.mark.parametrize(("family", "error"), [("NotFound", NotFound), ("Conflict", RuntimeFailed)])
async def test_a_refusal_is_said(directory: Path, family: str, error: type[Exception]) -> None:
    answer = frame(Reply(1, failure=Failure(family, "CODE", "because")))
    async with hostd_answering(directory, answer) as path:
        with pytest.raises(error, match="because"):
            await open_gateway(path, ID)


@pytest.mark.parametrize(
    ("answer", "count"),
    [(b"", 0), (frame(Reply(1)), 0), (frame(Reply(1)), 1), (frame(Reply(1)), 2), (frame(Reply(1)), 9)],
)
async def test_answers_that_make_no_sense_leave_no_descriptor_open(
    directory: Path, answer: bytes, count: int
) -> None:
    pipe = os.pipe()
    before = set(os.listdir("/proc/self/fd"))
    descriptors = ([pipe[0]] * count) if count != 2 else []
    pair = socket.socketpair()
    if count == 2:
        descriptors = [pair[0].fileno(), pair[1].fileno()]  # two streams
    async with hostd_answering(directory, answer, descriptors) as path:
        with pytest.raises((RuntimeFailed, HostUnusable)):
            await open_gateway(path, ID)
    for sock in pair:
        sock.close()
    assert set(os.listdir("/proc/self/fd")) == before
    for end in pipe:
        os.close(end)


async def test_a_hostd_that_is_not_there_or_silent(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = directory / "hostd.sock"
    with pytest.raises(HostUnusable):
        await open_gateway(path, ID)
    monkeypatch.setattr("skerry.egress.broker.gateway.ASK_S", 0.05)
    with listening(path), pytest.raises(TimedOut):
        await open_gateway(path, ID)
