"""Passing bytes: unchanged, both ways, with ends, breaks, slow takers and silence."""

import asyncio
import hashlib
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
import uvloop

from skerry.egress.worker import pump as pump_module
from skerry.egress.worker.denial import reset
from skerry.egress.worker.pump import Pump, Watch
from skerry.egress.worker.readiness import send_all
from tests.harness.waiting import until
from tests.unit.egress.worker.test_denial import connected


@dataclass
class Counters:
    sent_bytes: int = 0
    received_bytes: int = 0


@dataclass
class Ends:
    """The outer ends of a pump between two connections."""

    client: socket.socket
    origin: socket.socket
    counters: Counters
    task: "asyncio.Task[None]"


@asynccontextmanager
async def pumping(idle_s: float = 60, watch: Watch | None = None) -> AsyncIterator[Ends]:
    client, inner_client = connected()
    origin, inner_origin = connected()
    counters = Counters()
    pump = Pump(inner_client, inner_origin, counters, idle_s=idle_s, watch=watch)
    with client, origin, inner_client, inner_origin:
        task = asyncio.get_running_loop().create_task(pump.run())
        try:
            yield Ends(client, origin, counters, task)
        finally:
            task.cancel()
            await asyncio.wait([task])


async def read(sock: socket.socket) -> bytes:
    async with asyncio.timeout(10):
        return await asyncio.get_running_loop().sock_recv(sock, 1 << 20)


async def test_both_ways_and_both_ends() -> None:
    async with pumping() as ends:
        await send_all(ends.client, b"question")
        assert await read(ends.origin) == b"question"
        ends.client.shutdown(socket.SHUT_WR)
        assert await read(ends.origin) == b""
        await send_all(ends.origin, b"an answer")
        assert await read(ends.client) == b"an answer"
        assert not ends.task.done(), "one end goes on alone"
        ends.origin.shutdown(socket.SHUT_WR)
        assert await read(ends.client) == b""
        await ends.task
        assert ends.counters == Counters(8, 9)


async def test_a_watch_sees_what_the_client_says_first_and_may_end_it() -> None:
    seen: list[bytes] = []

    def watch(data: bytes) -> bool:
        seen.append(data)
        if data == b"bad":
            raise ConnectionAbortedError
        return data == b"enough"

    async with pumping(watch=watch) as ends:
        for data in (b"first", b"enough", b"bad"):
            await send_all(ends.client, data)
            assert await read(ends.origin) == data
        assert seen == [b"first", b"enough"]
    async with pumping(watch=watch) as ends:
        await send_all(ends.origin, b"not looked at")
        assert await read(ends.client) == b"not looked at"
        await send_all(ends.client, b"bad")
        with pytest.raises(ConnectionAbortedError):
            await ends.task
        assert ends.counters.sent_bytes == 3


async def test_much_data_and_a_slow_taker() -> None:
    # More than the buffers of the kernel hold.
    data = os.urandom(1 << 20) * 48
    async with pumping() as ends:
        async with asyncio.TaskGroup() as group:
            sending = group.create_task(send_all(ends.client, data))
            await asyncio.sleep(0.05)
            assert not sending.done(), "the sender is made to wait"
            digest, size = hashlib.sha256(), 0
            while size < len(data):
                piece = await read(ends.origin)
                digest.update(piece)
                size += len(piece)
        assert digest.digest() == hashlib.sha256(data).digest()


async def test_both_ways_at_once_through_one_buffer(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = os.urandom(1 << 20) * 4, os.urandom(1 << 20) * 4
    async with pumping() as ends:

        async def take(sock: socket.socket, size: int) -> bytes:
            got = bytearray()
            while len(got) < size:
                got += await read(sock)
            return bytes(got)

        async with asyncio.TaskGroup() as group:
            group.create_task(send_all(ends.client, one))
            group.create_task(send_all(ends.origin, other))
            up = group.create_task(take(ends.origin, len(one)))
            down = group.create_task(take(ends.client, len(other)))
        assert up.result() == one
        assert down.result() == other


async def test_a_broken_side_ends_it() -> None:
    async with pumping() as ends:
        await send_all(ends.client, b"x")
        assert await read(ends.origin) == b"x"
        ends.origin.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        ends.origin.close()
        with pytest.raises(ConnectionResetError):
            await ends.task


async def test_silence_ends_it() -> None:
    async with pumping(idle_s=0.05) as ends:
        with pytest.raises(TimeoutError):
            await ends.task


async def test_a_byte_now_and_then_keeps_it() -> None:
    async with pumping(idle_s=0.4) as ends:
        for _ in range(12):
            await send_all(ends.client, b"x")
            assert await read(ends.origin) == b"x"
            await asyncio.sleep(0.05)
        assert not ends.task.done()


async def test_cancelling_leaves_the_loop_clean() -> None:
    async with pumping() as ends:
        await send_all(ends.client, b"x")
        await until(lambda: ends.task.done() or True)
        ends.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await ends.task
    assert len(pump_module._buffer) == pump_module.PIECE_BYTES


def test_a_reset_that_comes_with_the_last_bytes_ends_it() -> None:
    """On the loop that workers have: it tells of a reset once, together with what came before."""

    async def last_words() -> None:
        async with pumping() as ends:
            ends.client.send(b"last words")
            reset(ends.client)
            async with asyncio.timeout(10):
                with pytest.raises(OSError, match="reset"):
                    await ends.task
            assert await read(ends.origin) == b"last words"

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(last_words())
