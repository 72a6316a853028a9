"""Streams from clients: nothing that arrives early is lost, nothing grows without a bound."""

import asyncio
import json
import struct

import pytest

from skerry.api.deno import inbound
from skerry.api.deno.budget import MemoryBudget
from skerry.api.deno.inbound import ClientStreams
from skerry.errors import AgentError
from tests.harness.socket_client import CLOSE, SocketClient, frame
from tests.harness.waiting import until


async def opened(budget: MemoryBudget | None = None) -> tuple[SocketClient, ClientStreams]:
    client = await SocketClient.open()
    streams = ClientStreams(client.server, budget or MemoryBudget(), asyncio.get_running_loop())
    return client, streams


async def test_chunks_before_the_consumer_are_kept_and_the_end_is_seen() -> None:
    client, streams = await opened()
    streams.on_enqueue(7, b"one")
    streams.on_enqueue(7, b"")
    streams.on_enqueue(7, b"two")
    streams.on_end(7)
    stream = streams.get(7)
    assert [await stream.read(), await stream.read(), await stream.read()] == [b"one", b"two", None]
    client.vanish()


async def test_a_reader_waits_for_what_comes() -> None:
    client, streams = await opened()
    stream = streams.get(1)
    reading = asyncio.ensure_future(stream.read())
    await asyncio.sleep(0)
    streams.on_enqueue(1, b"x")
    assert await asyncio.wait_for(reading, 5) == b"x"
    client.vanish()


async def test_a_client_s_error_comes_after_its_chunks() -> None:
    client, streams = await opened()
    streams.on_enqueue(1, b"x")
    streams.on_error(1, "the disk is gone")
    stream = streams.get(1)
    assert await stream.read() == b"x"
    with pytest.raises(AgentError, match="the disk is gone"):
        await stream.read()
    client.vanish()


async def test_a_cancelled_stream_tells_the_client_once_and_swallows_the_rest() -> None:
    budget = MemoryBudget()
    client, streams = await opened(budget)
    streams.on_enqueue(5, b"waiting")
    streams.cancel(streams.get(5), None)
    streams.on_enqueue(5, b"late")
    streams.cancel(streams.get(5), None)
    assert budget.used_bytes == 0
    assert json.loads((await client.receive())[1])["params"] == {"streamId": 5, "reason": None}
    streams.on_end(5)
    streams.on_enqueue(5, b"the number is free again")
    assert await streams.get(5).read() == b"the number is free again"
    client.vanish()


async def test_too_much_input_holds_reading_until_it_drains(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbound, "MAX_BUFFERED_BYTES", 1000)
    client, streams = await opened()
    stream = streams.get(1)
    for _ in range(11):
        streams.on_enqueue(1, bytes(100))
    await client.send(frame(b"held"))
    await asyncio.sleep(0.05)
    assert client.listener.messages == []
    for _ in range(7):
        await stream.read()
    await until(lambda: client.listener.messages == [b"held"])
    client.vanish()


async def test_input_that_nobody_reads_ends_in_a_close_with_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbound, "MAX_BUFFERED_BYTES", 1000)
    monkeypatch.setattr(inbound, "STUCK_S", 0.05)
    client, streams = await opened()
    streams.on_enqueue(1, bytes(2000))
    opcode, payload = await client.receive()
    assert opcode == CLOSE
    assert struct.unpack(">H", payload[:2]) == (1008,)
    assert b"input" in payload
    client.vanish()


async def test_the_memory_of_all_is_respected_and_given_back() -> None:
    budget = MemoryBudget(1000)
    client, streams = await opened(budget)
    streams.on_enqueue(1, bytes(600))
    streams.on_enqueue(2, bytes(600))
    assert await client.close_code() == 1013
    streams.close()
    assert budget.used_bytes == 0
    client.vanish()


async def test_when_the_connection_goes_readers_do_not_wait_for_ever() -> None:
    client, streams = await opened()
    reading = asyncio.ensure_future(streams.get(1).read())
    await asyncio.sleep(0)
    streams.close()
    with pytest.raises(AgentError, match="connection"):
        await asyncio.wait_for(reading, 5)
    client.vanish()


async def test_the_number_of_streams_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbound, "MAX_STREAMS", 10)
    client, streams = await opened()
    for number in range(11):
        streams.on_start(number)
    assert await client.close_code() == 1008
    client.vanish()
