"""One connection to egressd: framing, calls that are not understood, answers, and nothing that quotes a
secret.
"""

import asyncio
import os
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import msgspec
import pytest

from skerry.egress.broker.background import Background
from skerry.egress.broker.connection import MAX_CALLS, Connection
from skerry.egress.broker.service import Broker
from skerry.errors import NotFound
from skerry.protocol.egress_verbs import (
    AuditLines,
    EgressCall,
    EgressDescribe,
    EgressDescription,
    EgressVerb,
    ListSecrets,
    ReadAudit,
    Release,
    RevokeSecret,
    RotateSecret,
)
from skerry.protocol.host_verbs import MAX_FRAME_BYTES, FrameReader, Reply, frame
from skerry.serving import connection
from tests.harness.egress_ground import ID, VALUE, grant, secret
from tests.harness.waiting import until

WAIT_S = 10.0


class StubBroker:
    """Answers without any sandbox."""

    def __init__(self) -> None:
        self.begun = 0
        self.go_on = asyncio.Event()
        self.rotated: list[bytes] = []

    def describe(self) -> EgressDescription:
        return EgressDescription(version="1", pid=7, sandboxes=())

    async def release(self, sandbox_id: str) -> None:
        raise NotFound("no such sandbox", detail="a secret path")

    async def rotate(self, sandbox_id: str, name: str, value: bytes) -> None:
        self.rotated.append(value)
        raise ValueError(f"cannot use {value!r}")

    async def revoke(self, sandbox_id: str, name: str) -> None:
        self.begun += 1
        await self.go_on.wait()

    async def read_audit(self, verb: ReadAudit) -> AuditLines:
        return AuditLines(["x" * 2_000_000], 1, ended=False)

    def secrets(self, sandbox_id: str) -> list[Any]:
        return []


class Peer:
    """The other end of a connection that is being served."""

    def __init__(self, sock: socket.socket, broker: StubBroker) -> None:
        self.sock = sock
        self.broker = broker
        self._reader = FrameReader()
        self._bodies: list[bytes] = []

    async def send(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.sock, data)

    async def ask(self, verb: EgressVerb, call_id: int = 1) -> None:
        await self.send(frame(EgressCall(call_id, verb)))

    async def next(self) -> Reply | None:
        """The next answer; None when the connection was closed."""
        async with asyncio.timeout(WAIT_S):
            while not self._bodies:
                try:
                    data = await asyncio.get_running_loop().sock_recv(self.sock, 65_536)
                except ConnectionResetError:
                    return None
                if not data:
                    return None
                self._bodies += self._reader.feed(data)
        return msgspec.msgpack.decode(self._bodies.pop(0), type=Reply)

    async def failure(self) -> Any:
        """Family, message and number of the next answer, which must be a refusal."""
        reply = await self.next()
        assert reply is not None
        assert reply.failure is not None
        return reply.failure.family, reply.failure.message, reply.id


@asynccontextmanager
async def served() -> AsyncIterator[Peer]:
    ours, theirs = socket.socketpair()
    broker = StubBroker()
    for sock in (ours, theirs):
        sock.setblocking(False)
    async with Background() as background:
        background.start(Connection(theirs, cast(Broker, broker), background).serve(), name="connection")
        try:
            yield Peer(ours, broker)
        finally:
            ours.close()


async def test_an_answer_has_the_number_of_its_call_and_the_value() -> None:
    async with served() as peer:
        await peer.ask(EgressDescribe(), call_id=42)
        reply = await peer.next()
    assert reply is not None
    assert reply.id == 42
    assert msgspec.msgpack.decode(reply.value, type=EgressDescription).pid == 7


async def test_a_refusal_has_family_and_message_but_not_the_detail() -> None:
    async with served() as peer:
        await peer.ask(Release(ID))
        reply = await peer.next()
    assert reply is not None
    assert reply.failure is not None
    assert (reply.failure.family, reply.failure.message) == ("NotFound", "no such sandbox")
    assert b"a secret path" not in frame(reply)


async def test_a_defect_quotes_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    async with served() as peer:
        await peer.ask(RotateSecret(ID, "KEY", VALUE))
        family, message, _ = await peer.failure()
    assert peer.broker.rotated == [VALUE]
    assert family == "RuntimeFailed"
    printed = capfd.readouterr()
    assert "ValueError" in printed.out + printed.err
    assert VALUE.decode() not in printed.out + printed.err + message


def encoded(**verb: Any) -> bytes:
    return msgspec.msgpack.encode({"id": 9, "verb": verb})


@pytest.mark.parametrize(
    ("body", "call_id"),
    [
        (b"", 0),
        (b"\xc1", 0),
        (b"\x91" * 100_000, 0),
        (encoded(type="Reboot"), 9),
        (encoded(type="Release"), 9),
        (encoded(type="Release", sandbox_id=7), 9),
        (encoded(type="Release", sandbox_id=ID, path="/"), 9),
        (encoded(type="RotateSecret", sandbox_id=ID, name="KEY", value={VALUE: VALUE}), 9),
        (encoded(type="RotateSecret", sandbox_id=ID, name="KEY", value=b"", **{VALUE.decode(): 1}), 9),
        (encoded(type="Grant", sandbox_id=ID, owner="o", layers=[{"name": VALUE}]), 9),
        (encoded(type="Grant", sandbox_id=ID, owner="o", layers=[], secrets=[{"value": VALUE}]), 9),
        (msgspec.msgpack.encode({"id": 9, "verb": {"type": "EgressDescribe"}, "extra": 1}), 9),
        (msgspec.msgpack.encode({"id": "x", "verb": {"type": "EgressDescribe"}}), 0),
    ],
)
async def test_what_is_not_understood_is_refused_without_quoting_it_and_the_connection_goes_on(
    body: bytes, call_id: int
) -> None:
    async with served() as peer:
        await peer.send(struct.pack(">I", len(body)) + body)
        family, message, number = await peer.failure()
        await peer.ask(ListSecrets(ID), call_id=10)
        answered = await peer.next()
    assert (family, number) == ("InvalidRequest", call_id)
    assert VALUE.decode() not in message
    assert answered is not None
    assert (answered.id, answered.failure) == (10, None)


async def test_a_frame_that_is_too_long_ends_the_connection() -> None:
    async with served() as peer:
        await peer.send(struct.pack(">I", MAX_FRAME_BYTES + 1))
        assert await peer.next() is None


async def test_a_frame_that_is_never_completed_ends_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "FRAME_S", 0.05)
    async with served() as peer:
        await peer.ask(EgressDescribe())
        assert await peer.next() is not None
        await peer.send(b"\x00\x00\x00\x05abc")
        assert await peer.next() is None


async def test_an_answer_that_does_not_fit_is_said() -> None:
    async with served() as peer:
        await peer.ask(ReadAudit(ID))
        assert (await peer.failure())[0] == "ResourceExhausted"


async def test_only_so_many_calls_are_under_way_and_the_rest_waits() -> None:
    total = MAX_CALLS + 50
    async with served() as peer:
        calls = b"".join(frame(EgressCall(n, RevokeSecret(ID, "KEY"))) for n in range(total))
        async with asyncio.TaskGroup() as group:
            group.create_task(peer.send(calls))
            await until(lambda: peer.broker.begun == MAX_CALLS, what="all calls")
            for _ in range(100):
                await asyncio.sleep(0)
            begun = peer.broker.begun
            peer.broker.go_on.set()
            answers = {(await peer.next()).id for _ in range(total)}  # type: ignore[union-attr]
    assert begun == MAX_CALLS
    assert answers == set(range(total))


async def test_descriptors_that_the_peer_sends_are_dropped() -> None:
    async with served() as peer:
        reading, writing = os.pipe()
        for number in range(20):
            socket.send_fds(peer.sock, [frame(EgressCall(number, EgressDescribe()))], [writing])
            assert await peer.next() is not None
        os.close(writing)
        # End of file comes only when no copy of the writing end is open anywhere.
        ended = os.read(reading, 1)
        os.close(reading)
    assert ended == b""


async def test_a_peer_that_does_not_read_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "WRITE_S", 0.05)
    async with served() as peer:
        monkeypatch.setattr(
            peer.broker, "describe", lambda: EgressDescription(version="x" * 500_000, pid=7, sandboxes=())
        )
        for _ in range(10):
            await peer.ask(EgressDescribe())
        last: Reply | None = Reply(0)
        while last is not None:
            await asyncio.sleep(0.2)
            last = await peer.next()
    assert last is None


def test_calls_do_not_show_values() -> None:
    asked = EgressCall(1, grant(secret()))
    shown = repr(asked) + repr(asked.verb) + repr(RotateSecret(ID, "KEY", VALUE))
    assert VALUE.decode() not in shown
