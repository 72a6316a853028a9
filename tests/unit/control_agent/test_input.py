"""Input streams: credit, sending again, ends."""

import asyncio

import pytest

from skerry.control.agent import AgentClient, AgentLink, InputStream, StreamReset
from skerry.control.agent.input import PIECE_BYTES, WINDOW_BYTES
from skerry.control.agent.streams import FLOOR_BYTES, INPUT_POOL_BYTES
from skerry.errors import SandboxEnded
from skerry.protocol import frames
from skerry.protocol.frames import Data, End, Reset
from skerry.protocol.messages import INPUT_LIMIT_BYTES
from tests.harness.agent_peer import Peer, exited, response
from tests.unit.control_agent.spawning import STDIN, handled, spawned


@pytest.fixture
async def stdin(client: AgentClient, peer: Peer) -> InputStream:
    """The input of a process without output."""
    process = await spawned(client, peer, stdin=True, stdout=False)
    assert process.stdin is not None
    return process.stdin


def _writing(stream: InputStream, data: bytes) -> "asyncio.Task[None]":
    return asyncio.get_running_loop().create_task(stream.write(data))


async def _received(peer: Peer, amount: int) -> bytes:
    got = b""
    while len(got) < amount:
        frame = await peer.receive()
        assert isinstance(frame, Data)
        assert frame.offset == len(got)
        got += frame.data
    return got


async def test_bytes_then_end(stdin: InputStream, peer: Peer) -> None:
    await stdin.write(b"abc")
    await stdin.write(bytearray(b"def"))
    stdin.end()
    stdin.end()
    assert await handled(peer) == [Data(STDIN, 0, b"abc"), Data(STDIN, 3, b"def"), End(STDIN, 6)]
    assert stdin.offset == 6
    with pytest.raises(ValueError, match="after end"):
        await stdin.write(b"x")


async def test_end_under_a_waiting_writer(stdin: InputStream, peer: Peer) -> None:
    writing = _writing(stdin, bytes(2 * INPUT_LIMIT_BYTES))
    await _received(peer, INPUT_LIMIT_BYTES)
    stdin.end()
    with pytest.raises(ValueError, match="after end"):
        await writing


async def test_writer_waits_for_credit(stdin: InputStream, peer: Peer) -> None:
    data = bytes(range(256)) * 2048
    writing = _writing(stdin, data)
    assert await _received(peer, INPUT_LIMIT_BYTES) == data[:INPUT_LIMIT_BYTES]
    assert await handled(peer) == []
    assert not writing.done()
    await peer.send(frames.credit(STDIN, INPUT_LIMIT_BYTES, len(data)))
    first = await peer.receive()
    assert isinstance(first, Data)
    assert first.offset == INPUT_LIMIT_BYTES
    assert len(first.data) == PIECE_BYTES
    await writing


async def test_unacknowledged_bytes_are_bounded_whatever_the_agent_allows(
    stdin: InputStream, peer: Peer
) -> None:
    await peer.send(frames.credit(STDIN, 0, 2**64 - 1))
    writing = _writing(stdin, bytes(4 * WINDOW_BYTES))
    await _received(peer, WINDOW_BYTES)
    assert await handled(peer) == []
    assert not writing.done()
    writing.cancel()


async def test_drain_waits_until_more_may_be_written(stdin: InputStream, peer: Peer) -> None:
    await stdin.drain()
    await stdin.write(bytes(INPUT_LIMIT_BYTES))
    draining = asyncio.get_running_loop().create_task(stdin.drain())
    await _received(peer, INPUT_LIMIT_BYTES)
    await handled(peer)
    assert not draining.done()
    await peer.send(frames.credit(STDIN, 0, INPUT_LIMIT_BYTES + 1))
    await draining


async def test_re_dial_sends_again_what_did_not_arrive(
    stdin: InputStream, link: AgentLink, peer: Peer
) -> None:
    await stdin.write(b"abcdef")
    await stdin.write(b"ghi")
    stdin.end()
    await peer.send(frames.credit(STDIN, 2, INPUT_LIMIT_BYTES))
    await handled(peer)
    peer.close()
    again = await Peer.connect(link)
    id_, _ = await again.receive_request("process.list")
    await again.send(frames.attach(STDIN, 4, INPUT_LIMIT_BYTES), response(id_, {"processes": []}))
    assert await handled(again) == [Data(STDIN, 4, b"ef"), Data(STDIN, 6, b"ghi"), End(STDIN, 9)]


async def test_re_dial_holds_writers_until_the_agent_says_where_it_is(
    stdin: InputStream, link: AgentLink, peer: Peer
) -> None:
    await stdin.write(b"abc")
    peer.close()
    again = await Peer.connect(link)
    await again.receive_request("process.list")
    writing = _writing(stdin, b"def")
    assert await handled(again) == []
    assert not writing.done()
    await again.send(frames.attach(STDIN, 3, INPUT_LIMIT_BYTES))
    await writing
    assert await handled(again) == [Data(STDIN, 3, b"def")]


async def test_stream_that_the_agent_does_not_ask_for_is_gone(
    stdin: InputStream, link: AgentLink, peer: Peer
) -> None:
    await stdin.write(b"abc")
    peer.close()
    again = await Peer.connect(link)
    id_, _ = await again.receive_request("process.list")
    await again.send(response(id_, {"processes": []}))
    with pytest.raises(StreamReset) as caught:
        await stdin.write(b"def")
    assert caught.value.code == "EPIPE"
    assert link.streams.input_pool.used_bytes == 0


async def test_ended_stream_that_the_agent_does_not_ask_for_has_arrived(
    stdin: InputStream, link: AgentLink, peer: Peer
) -> None:
    await stdin.write(b"abc")
    stdin.end()
    await handled(peer)
    peer.close()
    again = await Peer.connect(link)
    id_, _ = await again.receive_request("process.list")
    await again.send(response(id_, {"processes": []}))
    await handled(again)
    assert not stdin.failed
    assert link.streams.input_pool.used_bytes == 0


async def test_answer_after_a_re_dial_whose_stream_asks_first(
    client: AgentClient, link: AgentLink, peer: Peer
) -> None:
    task = asyncio.get_running_loop().create_task(
        client.spawn(command="cat", stdin=True, stdout=False, stderr=False)
    )
    await peer.receive_request("process.spawn")
    peer.close()
    again = await Peer.connect(link)
    # What the agent has comes before its answers; stream 9 belongs to nobody here.
    await again.send(frames.attach(4, 0, INPUT_LIMIT_BYTES), frames.attach(9, 0, INPUT_LIMIT_BYTES))
    id_, _ = await again.receive_request("process.spawn")
    assert await handled(again) == []
    await again.send(response(id_, {"pid": 1, "stdin": 4}))
    process = await task
    assert process.stdin is not None
    await again.receive_request("process.list")
    frame = await again.receive()
    assert isinstance(frame, Reset)
    assert frame.stream == 9
    await process.stdin.write(b"abc")
    assert await again.receive() == Data(4, 0, b"abc")


async def test_unknown_stream_that_asks_is_reset(link: AgentLink, peer: Peer) -> None:
    await peer.send(frames.attach(4, 0, INPUT_LIMIT_BYTES))
    (frame,) = await handled(peer)
    assert isinstance(frame, Reset)
    assert frame.stream == 4


@pytest.mark.parametrize(
    "bad",
    [
        frames.credit(STDIN, 0, INPUT_LIMIT_BYTES - 1),
        frames.credit(STDIN, 4, INPUT_LIMIT_BYTES),
        frames.attach(STDIN, 0, INPUT_LIMIT_BYTES),
    ],
    ids=["credit shrinks", "consumed too much", "attached already"],
)
async def test_broken_rules_close_the_connection(
    bad: bytes, stdin: InputStream, link: AgentLink, peer: Peer
) -> None:
    await stdin.write(b"abc")
    await peer.send(bad)
    await peer.closed()
    assert link.stats.protocol_errors == 1


@pytest.mark.parametrize(
    ("start", "limit"), [(4, INPUT_LIMIT_BYTES), (1, INPUT_LIMIT_BYTES), (3, INPUT_LIMIT_BYTES - 1)]
)
async def test_bad_attach_after_a_re_dial(
    start: int, limit: int, stdin: InputStream, link: AgentLink, peer: Peer
) -> None:
    await stdin.write(b"abc")
    await peer.send(frames.credit(STDIN, 2, INPUT_LIMIT_BYTES))
    await handled(peer)
    peer.close()
    again = await Peer.connect(link)
    await again.send(frames.attach(STDIN, start, limit))
    await again.closed()
    assert link.stats.protocol_errors == 1


async def test_reset_by_the_agent_fails_writers(stdin: InputStream, link: AgentLink, peer: Peer) -> None:
    writing = _writing(stdin, bytes(2 * INPUT_LIMIT_BYTES))
    await _received(peer, INPUT_LIMIT_BYTES)
    await peer.send(frames.reset(STDIN, "EPIPE", "nobody reads"))
    with pytest.raises(StreamReset) as caught:
        await writing
    assert (caught.value.code, caught.value.message) == ("EPIPE", "nobody reads")
    with pytest.raises(StreamReset):
        await stdin.drain()
    stdin.end()
    assert await handled(peer) == []
    assert link.streams.input_pool.used_bytes == 0


async def test_reset_by_the_host(stdin: InputStream, peer: Peer) -> None:
    stdin.reset("RESET", "no more")
    stdin.reset("RESET", "no more")
    assert await handled(peer) == [Reset(STDIN, "RESET", "no more")]
    with pytest.raises(StreamReset):
        await stdin.write(b"x")
    # The agent's last words about it were on their way.
    await peer.send(frames.credit(STDIN, 0, INPUT_LIMIT_BYTES), frames.reset(STDIN, "EPIPE", ""))
    assert await handled(peer) == []


async def test_end_of_the_process_fails_its_input(stdin: InputStream, peer: Peer) -> None:
    writing = _writing(stdin, bytes(2 * INPUT_LIMIT_BYTES))
    await _received(peer, INPUT_LIMIT_BYTES)
    await peer.send(exited(42, 0))
    with pytest.raises(StreamReset) as caught:
        await writing
    assert caught.value.code == "EPIPE"
    (frame,) = await handled(peer)
    assert isinstance(frame, Reset)


async def test_end_of_the_sandbox_fails_writers(stdin: InputStream, link: AgentLink, peer: Peer) -> None:
    writing = _writing(stdin, bytes(2 * INPUT_LIMIT_BYTES))
    await _received(peer, INPUT_LIMIT_BYTES)
    link.close("killed")
    with pytest.raises(SandboxEnded):
        await writing


async def test_pool_bounds_all_streams_and_hands_room_on(
    client: AgentClient, link: AgentLink, peer: Peer
) -> None:
    streams: list[InputStream] = []
    for n in range(4):
        task = asyncio.get_running_loop().create_task(
            client.spawn(command="x", stdin=True, stdout=False, stderr=False)
        )
        id_, _ = await peer.receive_request("process.spawn")
        await peer.send(response(id_, {"pid": 10 + n, "stdin": 10 + n}))
        process = await task
        assert process.stdin is not None
        streams.append(process.stdin)
    pool = link.streams.input_pool
    pool.take(INPUT_POOL_BYTES)
    writing = [_writing(stream, bytes(PIECE_BYTES)) for stream in streams]
    got = await handled(peer)
    # Nobody starves, even so.
    assert [len(frame.data) for frame in got if isinstance(frame, Data)] == [FLOOR_BYTES] * 4
    pool.give_back(INPUT_POOL_BYTES)
    link.streams.room_freed()
    await asyncio.gather(*writing)
    assert pool.used_bytes == 4 * PIECE_BYTES


async def test_slow_connection_holds_writers(stdin: InputStream, link: AgentLink, peer: Peer) -> None:
    await peer.send(frames.credit(STDIN, 0, 1 << 40))
    await handled(peer)
    asked = []

    async def fill() -> None:
        # Nobody reads at the other end: requests fill the transport's buffer.
        while not link.congested:
            asked.append(_writing_file(link))
            await asyncio.sleep(0)

    await fill()
    writing = _writing(stdin, b"late")
    await asyncio.sleep(0)
    assert stdin.offset == 0
    while not isinstance(await peer.receive(), Data):
        pass
    await writing
    for task in asked:
        task.cancel()


def _writing_file(link: AgentLink) -> "asyncio.Task[None]":
    client = AgentClient(link)
    return asyncio.get_running_loop().create_task(client.write_file("/x", bytes(200_000)))
