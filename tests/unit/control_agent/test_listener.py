"""Accepting no faster than an honest agent dials."""

import asyncio
import socket
from pathlib import Path
from typing import cast

import pytest

from skerry.control.agent import PacedListener
from skerry.control.agent.listener import BURST
from skerry.control.agent.pace import TokenBucket
from tests.harness.agent_peer import until


class _Counting(asyncio.Protocol):
    made = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        type(self).made += 1
        # uvloop's transports do not inherit from asyncio's.
        stream = cast(asyncio.Transport, transport)
        stream.write(b"welcome")
        stream.close()


@pytest.fixture
def listening(tmp_path: Path) -> socket.socket:
    _Counting.made = 0
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(tmp_path / "agent.sock"))
    sock.listen(64)
    return sock


async def _welcomed(client: socket.socket) -> bool:
    async with asyncio.timeout(10):
        return await asyncio.get_running_loop().sock_recv(client, 100) == b"welcome"


async def _dial(sock: socket.socket) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.setblocking(False)
    await asyncio.get_running_loop().sock_connect(client, sock.getsockname())
    return client


async def test_connections_get_a_protocol(listening: socket.socket) -> None:
    listener = PacedListener(listening, _Counting)
    with await _dial(listening) as client:
        assert await _welcomed(client)
    listener.close()
    listener.close()


async def test_a_flood_waits_in_the_backlog(
    listening: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("skerry.control.agent.listener.PER_S", 0.001)
    listener = PacedListener(listening, _Counting)
    clients = [await _dial(listening) for _ in range(2 * BURST)]
    await until(lambda: _Counting.made == BURST)
    for client in clients[:BURST]:
        assert await _welcomed(client)
    assert _Counting.made == BURST
    listener.close()
    for client in clients:
        client.close()


async def test_waiting_connections_are_accepted_later(listening: socket.socket) -> None:
    listener = PacedListener(listening, _Counting)
    clients = [await _dial(listening) for _ in range(BURST + 2)]
    for client in clients:
        assert await _welcomed(client)
        client.close()
    listener.close()


def test_bucket() -> None:
    bucket = TokenBucket(capacity=2, per_s=4, now_s=10.0)
    assert [bucket.try_take(10.0) for _ in range(3)] == [True, True, False]
    assert bucket.wait_s(10.0) == 0.25
    assert bucket.wait_s(10.25) == 0
    assert not bucket.try_take(10.25, 2)
    assert bucket.try_take(10.25)
    # A clock that jumps back gives nothing, a long time no more than the capacity.
    assert not bucket.try_take(5.0)
    assert [bucket.try_take(1000.0) for _ in range(3)] == [True, True, False]
