"""One WebSocket over a socket pair: frames, bounds, and how it ends."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from skerry.api.deno import websocket
from skerry.api.deno.budget import MemoryBudget
from tests.harness.socket_client import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, SocketClient, frame
from tests.harness.waiting import until


@pytest.fixture
async def client() -> AsyncIterator[SocketClient]:
    opened = await SocketClient.open()
    yield opened
    opened.vanish()
    await asyncio.wait_for(opened.server.closed, 5)


async def test_messages_of_every_kind_arrive_whole(client: SocketClient) -> None:
    large = bytes(300_000)
    await client.send(frame(b"text") + frame(b"binary", BINARY))
    await client.send(frame(b"in ", fin=False) + frame(b"", PING) + frame(b"parts", CONTINUATION))
    await client.send(frame(large))
    await until(lambda: len(client.listener.messages) == 4)
    assert client.listener.messages == [b"text", b"binary", b"in parts", large]


async def test_a_message_byte_by_byte(client: SocketClient) -> None:
    for byte in frame(b"slowly"):
        await client.send(bytes([byte]))
        await asyncio.sleep(0)
    await until(lambda: client.listener.messages == [b"slowly"])


@pytest.mark.parametrize("size", [0, 125, 126, 65_535, 65_536, 200_000])
async def test_every_length_is_sent(client: SocketClient, size: int) -> None:
    client.server.send(b"x" * size)
    assert await client.receive() == (TEXT, b"x" * size)


async def test_a_ping_is_answered_with_its_own_bytes(client: SocketClient) -> None:
    await client.send(frame(b"12", PING))
    assert await client.receive() == (PONG, b"12")


@pytest.mark.parametrize("payload", [b"", b"\x03\xe8bye"])
async def test_a_close_frame_is_answered_and_counts_as_clean(client: SocketClient, payload: bytes) -> None:
    await client.send(frame(payload, CLOSE))
    assert await client.close_code() == 1000
    await asyncio.wait_for(client.server.closed, 5)
    assert client.listener.closed == [True]


async def test_a_connection_that_vanishes_is_not_clean() -> None:
    client = await SocketClient.open()
    client.vanish()
    await asyncio.wait_for(client.server.closed, 5)
    assert client.listener.closed == [False]


async def test_our_close_waits_for_the_client_s(client: SocketClient) -> None:
    client.server.close(1001, "x" * 500)
    client.server.close(1000, "only the first counts")
    opcode, payload = await client.receive()
    assert (opcode, payload[:2], len(payload)) == (CLOSE, b"\x03\xe9", 125)
    client.server.send(b"too late")
    assert client.listener.closed == []
    await client.send(frame(b"ignored") + frame(payload, CLOSE))
    await asyncio.wait_for(client.server.closed, 5)
    assert client.listener.closed == [True]
    assert client.listener.messages == []


async def test_a_client_that_never_answers_our_close_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket, "CLOSE_WAIT_S", 0.01)
    client = await SocketClient.open()
    client.server.close(1001, "")
    await asyncio.wait_for(client.server.closed, 5)
    assert client.listener.closed == [False]
    client.vanish()


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xff\xff\xff",  # reserved bits
        frame(b"x", 3),  # an opcode that is none
        frame(b"x", CONTINUATION),  # of nothing
        frame(b"x", fin=False) + frame(b"y", TEXT),
        frame(b"x" * 126, PING),
        frame(b"\x00\x01", CLOSE),
        b"\xc1\x81\0\0\0\0x",  # compressed, though that was declined
    ],
)
async def test_what_breaks_the_rules_is_closed_with_1002(client: SocketClient, data: bytes) -> None:
    await client.send(data)
    assert await client.close_code() == 1002


async def test_a_message_that_is_too_long_is_refused_by_its_header(client: SocketClient) -> None:
    await client.send(b"\x81\xff" + (websocket.MAX_MESSAGE_BYTES + 1).to_bytes(8, "big") + b"\0\0\0\0")
    assert await client.close_code() == 1009


async def test_unfinished_messages_count_and_are_forgotten() -> None:
    budget = MemoryBudget(10_000_000)
    client = await SocketClient.open(budget)
    whole = frame(bytes(3_000_000))
    await client.send(whole[:2_000_000])
    await until(lambda: budget.used_bytes > 1_900_000)
    await client.send(whole[2_000_000:] + frame(b"next"))
    await until(lambda: len(client.listener.messages) == 2)
    assert budget.used_bytes == 0
    await client.send(whole[:2_000_000])
    await until(lambda: budget.used_bytes > 1_900_000)
    client.vanish()
    await asyncio.wait_for(client.server.closed, 5)
    assert budget.used_bytes == 0


async def test_parts_between_pings_count_as_well() -> None:
    budget = MemoryBudget(10_000_000)
    client = await SocketClient.open(budget)
    await client.send(frame(bytes(100_000), fin=False))
    for _ in range(20):
        await client.send(frame(b"x" * 100, PING) + frame(bytes(100_000), CONTINUATION, fin=False))
    await until(lambda: budget.used_bytes > 1_900_000)
    client.vanish()


async def test_over_the_budget_the_connection_is_closed_with_1013() -> None:
    client = await SocketClient.open(MemoryBudget(1_000_000))
    sending = asyncio.ensure_future(client.send(frame(bytes(5_000_000))))
    assert await client.close_code() == 1013
    await sending
    client.vanish()


async def test_a_slow_reader_holds_senders_and_itself(client: SocketClient) -> None:
    message = b"x" * 100_000
    sent = 0
    while not client.server.is_congested:
        client.server.send(message)
        sent += 1
        await asyncio.sleep(0)
    waiting = asyncio.ensure_future(client.server.writable())
    await client.send(frame(b"not yet"))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    assert client.listener.messages == []
    for _ in range(sent):
        assert await client.receive() == (TEXT, message)
    await asyncio.wait_for(waiting, 5)
    await until(lambda: client.listener.messages == [b"not yet"])


async def test_a_client_that_reads_nothing_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket, "STALL_S", 0.05)
    client = await SocketClient.open()
    while not client.server.is_congested:
        client.server.send(b"x" * 100_000)
        await asyncio.sleep(0)
    await asyncio.wait_for(client.server.closed, 5)
    await asyncio.wait_for(client.server.writable(), 5)
    assert client.listener.closed == [False]
    client.vanish()


async def test_a_fault_in_the_receiver_closes_with_1011(client: SocketClient) -> None:
    seen: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: seen.append(context["exception"]))

    def fail(message: bytes) -> None:
        raise ZeroDivisionError

    client.listener.on_message = fail  # type: ignore[method-assign]
    await client.send(frame(b"x"))
    assert await client.close_code() == 1011
    assert isinstance(seen[0], ZeroDivisionError)
