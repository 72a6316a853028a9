"""One connection to hostd: framing, calls that are not understood, answers, descriptors."""

import asyncio
import os
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import msgspec
import pytest

from skerry import errors
from skerry.hostd.background import Background
from skerry.hostd.connection import MAX_CALLS, Connection
from skerry.hostd.happenings import MAX_WAITING, Happenings
from skerry.hostd.network.gateway import GatewaySockets
from skerry.hostd.server import API_VERBS, EGRESS_VERBS
from skerry.hostd.service import HostService
from skerry.protocol.host_verbs import (
    MAX_FRAME_BYTES,
    Call,
    Destroy,
    Event,
    FrameReader,
    Inspect,
    MemoryPressure,
    OpenGateway,
    OpenListener,
    Pause,
    Reply,
    Stats,
    Verb,
    Watch,
    frame,
)
from skerry.serving import connection
from skerry.spec.ids import SandboxId
from skerry.spec.sandbox import Ended, Observed
from tests.harness.waiting import until

ID = SandboxId("sbx_ord_" + "a" * 20)
WAIT_S = 10.0


class StubService:
    """Answers without a host."""

    def __init__(self) -> None:
        self.begun = 0
        self.go_on = asyncio.Event()
        self.handed_out = socket.socket(socket.AF_UNIX)
        self.gateway_sockets = GatewaySockets(
            socket.socket(socket.AF_INET, socket.SOCK_STREAM),
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
        )

    async def inspect(self) -> list[Observed]:
        return []

    async def destroy(self, sandbox_id: SandboxId) -> Ended:
        return Ended(7, oom=True)

    async def stats(self, sandbox_id: SandboxId) -> None:
        raise errors.NotFound("no such sandbox", detail="a secret path")

    async def pause(self, sandbox_id: SandboxId) -> None:
        self.begun += 1
        await self.go_on.wait()

    def listener(self, sandbox_id: SandboxId) -> socket.socket:
        return self.handed_out

    async def gateway(self, sandbox_id: SandboxId) -> GatewaySockets:
        return self.gateway_sockets


class Peer:
    """The other end of a connection that is being served."""

    def __init__(self, sock: socket.socket, service: StubService, happenings: Happenings) -> None:
        self.sock = sock
        self.service = service
        self.happenings = happenings
        self._reader = FrameReader()
        self._bodies: list[bytes] = []

    async def send(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.sock, data)

    async def ask(self, verb: Verb, call_id: int = 1) -> None:
        await self.send(frame(Call(call_id, verb)))

    async def next(self) -> Reply | Event | None:
        """The next message; None when the connection was closed."""
        async with asyncio.timeout(WAIT_S):
            while not self._bodies:
                try:
                    data = await asyncio.get_running_loop().sock_recv(self.sock, 65_536)
                except ConnectionResetError:
                    return None
                if not data:
                    return None
                self._bodies += self._reader.feed(data)
        return msgspec.msgpack.decode(self._bodies.pop(0), type=Reply | Event)

    async def failure(self) -> Any:
        """The family and number of the next answer, which must be a refusal."""
        reply = await self.next()
        assert isinstance(reply, Reply)
        assert reply.failure is not None
        return reply.failure.family, reply.id


@asynccontextmanager
async def served(verbs: frozenset[type[Verb]] = API_VERBS) -> AsyncIterator[Peer]:
    ours, theirs = socket.socketpair()
    service, happenings = StubService(), Happenings()
    for sock in (ours, theirs):
        sock.setblocking(False)
    async with Background() as background:
        one = Connection(theirs, cast(HostService, service), happenings, background, verbs=verbs)
        background.start(one.serve(), name="connection")
        try:
            yield Peer(ours, service, happenings)
        finally:
            ours.close()
            service.handed_out.close()
            service.gateway_sockets.close()


async def test_an_answer_has_the_number_of_its_call_and_the_value() -> None:
    async with served() as peer:
        await peer.ask(Destroy(ID), call_id=42)
        reply = await peer.next()

    assert isinstance(reply, Reply)
    assert reply.id == 42
    assert msgspec.msgpack.decode(reply.value, type=Ended) == Ended(7, oom=True)


async def test_a_refusal_has_family_and_message_but_not_the_detail() -> None:
    async with served() as peer:
        await peer.ask(Stats(ID))
        reply = await peer.next()

    assert isinstance(reply, Reply)
    assert reply.failure is not None
    assert (reply.failure.family, reply.failure.message) == ("NotFound", "no such sandbox")
    assert b"secret" not in frame(reply)


@pytest.mark.parametrize(
    ("body", "call_id"),
    [
        (b"", 0),
        (b"\xc1", 0),
        (b"\x91" * 100_000, 0),
        (msgspec.msgpack.encode({"id": 9, "verb": {"type": "Reboot"}}), 9),
        (msgspec.msgpack.encode({"id": 9, "verb": {"type": "Destroy"}}), 9),
        (msgspec.msgpack.encode({"id": 9, "verb": {"type": "Destroy", "sandbox_id": 7}}), 9),
        (msgspec.msgpack.encode({"id": 9, "verb": {"type": "Destroy", "sandbox_id": ID, "path": "/"}}), 9),
        (msgspec.msgpack.encode({"id": 9, "verb": {"type": "Inspect"}, "extra": 1}), 9),
        (msgspec.msgpack.encode({"id": "x", "verb": {"type": "Inspect"}}), 0),
    ],
)
async def test_what_is_not_understood_is_refused_and_the_connection_goes_on(
    body: bytes, call_id: int
) -> None:
    async with served() as peer:
        await peer.send(struct.pack(">I", len(body)) + body)
        refused = await peer.failure()
        await peer.ask(Inspect(), call_id=10)
        answered = await peer.next()

    assert refused == ("InvalidRequest", call_id)
    assert isinstance(answered, Reply)
    assert (answered.id, answered.failure) == (10, None)


async def test_a_frame_that_is_too_long_ends_the_connection() -> None:
    async with served() as peer:
        await peer.send(struct.pack(">I", MAX_FRAME_BYTES + 1))
        assert await peer.next() is None


async def test_a_frame_that_is_never_completed_ends_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "FRAME_S", 0.05)
    async with served() as peer:
        await peer.ask(Inspect())
        assert await peer.next() is not None
        await peer.send(b"\x00\x00\x00\x05abc")
        assert await peer.next() is None


async def test_only_so_many_calls_are_under_way_and_the_rest_waits() -> None:
    async with served() as peer:
        await peer.send(b"".join(frame(Call(number, Pause(ID))) for number in range(MAX_CALLS + 50)))
        await until(lambda: peer.service.begun == MAX_CALLS, what="all calls")
        for _ in range(100):
            await asyncio.sleep(0)
        begun = peer.service.begun
        peer.service.go_on.set()
        answers = {(await peer.next()).id for _ in range(MAX_CALLS + 50)}  # type: ignore[union-attr]

    assert begun == MAX_CALLS
    assert answers == set(range(MAX_CALLS + 50))


async def test_the_answer_to_open_listener_carries_the_descriptor() -> None:
    async with served() as peer:
        await peer.ask(OpenListener(ID))
        async with asyncio.timeout(WAIT_S):
            while True:
                try:
                    data, descriptors, _, _ = socket.recv_fds(peer.sock, 65_536, 4)
                    break
                except BlockingIOError:
                    await asyncio.sleep(0.001)
        (received,) = descriptors
        same = os.fstat(received) == os.fstat(peer.service.handed_out.fileno())
        os.close(received)

    assert same
    (body,) = FrameReader().feed(data)
    assert msgspec.msgpack.decode(body, type=Reply) == Reply(1)


async def test_descriptors_that_the_peer_sends_are_dropped() -> None:
    async with served() as peer:
        reading, writing = os.pipe()
        for number in range(20):
            socket.send_fds(peer.sock, [frame(Call(number, Inspect()))], [writing])
            assert await peer.next() is not None
        os.close(writing)
        # End of file comes only when no copy of the writing end is open anywhere.
        ended = os.read(reading, 1)
        os.close(reading)

    assert ended == b""


async def test_who_watches_gets_what_happens() -> None:
    async with served() as peer:
        peer.happenings.publish(MemoryPressure(ID, 1))
        await peer.ask(Watch())
        assert isinstance(await peer.next(), Reply)
        peer.happenings.publish(MemoryPressure(ID, 2))
        event = await peer.next()

    assert event == Event(MemoryPressure(ID, 2))


async def test_a_watcher_that_does_not_read_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "WRITE_S", 0.05)
    async with served() as peer:
        await peer.ask(Watch())
        assert isinstance(await peer.next(), Reply)
        for _ in range(MAX_WAITING + 10):
            peer.happenings.publish(MemoryPressure(ID, 2))
        last: Reply | Event | None = Event(MemoryPressure(ID, 0))
        while last is not None:
            last = await peer.next()

    assert last is None


async def test_egressd_gets_both_sockets_of_a_sandbox_and_nothing_else() -> None:
    async with served(EGRESS_VERBS) as peer:
        await peer.ask(OpenGateway(ID), call_id=5)
        descriptors: list[int] = []

        def have_come() -> bool:
            try:
                _, found, _, _ = socket.recv_fds(peer.sock, 65_536, 8)
            except BlockingIOError:
                return False
            descriptors.extend(found)
            return True

        await until(have_come)
        received = [socket.socket(fileno=descriptor) for descriptor in descriptors]
        kinds = [one.type for one in received]
        for one in received:
            one.close()

        refused: list[Verb] = [Inspect(), Destroy(ID), OpenListener(ID), Watch(), Stats(ID), Pause(ID)]
        failures = []
        for verb in refused:
            await peer.ask(verb, call_id=6)
            failures.append(await peer.failure())

    assert kinds == [socket.SOCK_STREAM, socket.SOCK_DGRAM]
    assert failures == [("Forbidden", 6)] * len(refused)


async def test_api_cannot_open_a_gateway() -> None:
    async with served() as peer:
        await peer.ask(OpenGateway(ID), call_id=5)
        assert await peer.failure() == ("Forbidden", 5)
