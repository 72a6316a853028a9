"""Output streams: order, credit, gaps, ends, attaching again."""

import asyncio

import pytest

from skerry.control.agent import AgentClient, AgentLink, Gap, OutputStream, StreamReset
from skerry.control.agent.streams import FLOOR_BYTES, OUTPUT_POOL_BYTES, WINDOW_BYTES
from skerry.errors import GuestUnreachable, SandboxEnded
from skerry.protocol import frames
from skerry.protocol.frames import Attach, Credit, Detach, Reset
from tests.harness.agent_peer import Peer, gap, response, until
from tests.unit.control_agent.spawning import STDOUT, handled, spawned


@pytest.fixture
async def stdout(client: AgentClient, peer: Peer) -> OutputStream:
    """The attached output of a process."""
    process = await spawned(client, peer)
    assert process.stdout is not None
    return process.stdout


async def test_bytes_arrive_in_order_then_the_end(stdout: OutputStream, peer: Peer) -> None:
    await peer.send(frames.data(STDOUT, 0, b"abc"), frames.data(STDOUT, 3, b"def"), frames.end(STDOUT, 6))
    assert await stdout.read(4) == b"abcd"
    assert stdout.offset == 4
    assert await stdout.read() == b"ef"
    assert await stdout.read() is None
    assert await stdout.read() is None
    assert stdout.ended


async def test_read_waits_for_data_and_read_nowait_does_not(stdout: OutputStream, peer: Peer) -> None:
    assert stdout.read_nowait() == b""
    reading = asyncio.get_running_loop().create_task(stdout.read())
    await asyncio.sleep(0)
    await peer.send(frames.data(STDOUT, 0, b"x"))
    assert await reading == b"x"


async def test_only_one_reader(stdout: OutputStream) -> None:
    reading = asyncio.get_running_loop().create_task(stdout.read())
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError):
        await stdout.read()
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert stdout.read_nowait() == b""


async def test_data_in_the_same_read_as_the_answer_is_not_lost(client: AgentClient, peer: Peer) -> None:
    task = asyncio.get_running_loop().create_task(client.spawn(command="x", stderr=False))
    id_, _ = await peer.receive_request("process.spawn")
    answer = response(id_, {"pid": 1, "stdout": 9})
    await peer.send(answer, frames.data(9, 0, b"quick"), frames.end(9, 5))
    process = await task
    assert process.stdout is not None
    assert await process.stdout.read() == b"quick"
    assert await process.stdout.read() is None


async def test_pieces_of_every_size_come_out_whole(stdout: OutputStream, peer: Peer) -> None:
    sizes = [1, 2, 5000, 3, 4096, 70, 65_536, 1, 1]
    sent = b"".join(bytes([n]) * size for n, size in enumerate(sizes))
    at = 0
    for size in sizes:
        await peer.send(frames.data(STDOUT, at, sent[at : at + size]))
        at += size
    await peer.send(frames.end(STDOUT, at))
    got = b""
    while (piece := await stdout.read(3000)) is not None:
        assert isinstance(piece, bytes)
        assert 1 <= len(piece) <= 3000
        got += piece
    assert got == sent


async def test_credit_comes_back_when_half_the_window_was_read(stdout: OutputStream, peer: Peer) -> None:
    half = WINDOW_BYTES // 2
    await peer.send(frames.data(STDOUT, 0, bytes(half)), frames.data(STDOUT, half, bytes(half)))
    await handled(peer)
    assert len(await _read_exactly(stdout, half - 1)) == half - 1
    assert await handled(peer) == []
    assert await stdout.read(1) == b"\x00"
    assert await handled(peer) == [Credit(STDOUT, half, half + WINDOW_BYTES)]


async def test_end_is_confirmed_when_all_was_read(stdout: OutputStream, peer: Peer) -> None:
    await peer.send(frames.data(STDOUT, 0, b"abc"), frames.end(STDOUT, 3))
    assert await handled(peer) == []
    assert await stdout.read() == b"abc"
    await stdout.read()
    assert await handled(peer) == [Credit(STDOUT, 3, WINDOW_BYTES)]


async def test_pool_is_given_back(stdout: OutputStream, link: AgentLink, peer: Peer) -> None:
    assert link.streams.output_pool.used_bytes == WINDOW_BYTES
    await peer.send(frames.data(STDOUT, 0, b"abc"), frames.end(STDOUT, 3))
    await handled(peer)
    assert link.streams.output_pool.used_bytes == 3
    await stdout.read(2)
    assert link.streams.output_pool.used_bytes == 1
    stdout.detach()
    assert link.streams.output_pool.used_bytes == 0


async def test_pool_bounds_all_streams_together(client: AgentClient, link: AgentLink, peer: Peer) -> None:
    granted = []
    for n in range(200):
        task = asyncio.get_running_loop().create_task(client.spawn(command="x"))
        id_, params = await peer.receive_request("process.spawn")
        granted.append(params["credit"])
        await peer.send(response(id_, {"pid": 100 + n, "stdout": 2 * n + 1, "stderr": 2 * n + 2}))
        await task
    assert granted[0] == WINDOW_BYTES
    assert granted[-1] == FLOOR_BYTES
    assert link.streams.output_pool.used_bytes <= OUTPUT_POOL_BYTES + 400 * FLOOR_BYTES


async def test_starved_stream_grows_again(client: AgentClient, link: AgentLink, peer: Peer) -> None:
    link.streams.output_pool.take(OUTPUT_POOL_BYTES)
    process = await spawned(client, peer)
    assert process.stdout is not None
    await peer.send(frames.data(STDOUT, 0, bytes(FLOOR_BYTES)))
    assert len(await _read_exactly(process.stdout, FLOOR_BYTES)) == FLOOR_BYTES
    credit = (await handled(peer))[-1]
    assert isinstance(credit, Credit)
    assert FLOOR_BYTES < credit.limit <= 2 * FLOOR_BYTES
    link.streams.output_pool.give_back(OUTPUT_POOL_BYTES)
    await peer.send(frames.data(STDOUT, FLOOR_BYTES, bytes(credit.limit - FLOOR_BYTES)))
    await _read_exactly(process.stdout, credit.limit - FLOOR_BYTES)
    last = (await handled(peer))[-1]
    assert isinstance(last, Credit)
    assert last.limit - last.consumed > WINDOW_BYTES // 2


@pytest.mark.parametrize(
    "bad",
    [
        frames.data(STDOUT, 1, b"x"),
        frames.data(STDOUT, 0, bytes(WINDOW_BYTES - 300))
        + frames.data(STDOUT, WINDOW_BYTES - 300, bytes(301)),
        frames.end(STDOUT, 1),
        frames.end(STDOUT, 0) + frames.end(STDOUT, 0) + frames.data(99, 0, b"x"),
        gap(STDOUT, 0, 5),
        frames.data(77, 0, b"x"),
        frames.end(77, 0),
        gap(77, 0, 1),
    ],
    ids=["hole", "beyond limit", "early end", "never named after end", "gap", "data", "end", "gap of none"],
)
async def test_broken_rules_close_the_connection(
    bad: bytes, stdout: OutputStream, link: AgentLink, peer: Peer
) -> None:
    await peer.send(bad)
    await peer.closed()
    assert link.stats.protocol_errors == 1


async def test_reset_lets_the_rest_be_read_first(stdout: OutputStream, peer: Peer) -> None:
    await peer.send(frames.data(STDOUT, 0, b"abc"), frames.reset(STDOUT, "EIO", "broken"))
    assert await stdout.read() == b"abc"
    for _ in range(2):
        with pytest.raises(StreamReset) as caught:
            await stdout.read()
        assert (caught.value.code, caught.value.message) == ("EIO", "broken")


async def test_end_of_the_sandbox_ends_reads(stdout: OutputStream, link: AgentLink) -> None:
    reading = asyncio.get_running_loop().create_task(stdout.read())
    await asyncio.sleep(0)
    link.close("killed")
    with pytest.raises(SandboxEnded):
        await reading
    stdout.attach(0)
    with pytest.raises(SandboxEnded):
        await stdout.read()


async def test_new_agent_ends_reads(stdout: OutputStream, link: AgentLink, peer: Peer) -> None:
    peer.close()
    await Peer.connect(link, boot=b"another boot 16B")
    with pytest.raises(GuestUnreachable):
        await stdout.read()
    # Its ID may be another stream's at the new agent.
    stdout.attach(0)
    with pytest.raises(StreamReset) as caught:
        await stdout.read()
    assert caught.value.code == "UNKNOWN_STREAM"


async def test_detach_drops_what_comes_and_says_so_once(stdout: OutputStream, peer: Peer) -> None:
    await peer.send(frames.data(STDOUT, 0, b"abc"))
    await handled(peer)
    stdout.detach()
    stdout.detach()
    assert await handled(peer) == [Detach(STDOUT)]
    await peer.send(frames.data(STDOUT, 3, b"on its way"), frames.end(STDOUT, 13))
    assert await handled(peer) == []
    with pytest.raises(StreamReset) as caught:
        await stdout.read()
    assert caught.value.code == "DETACHED"


async def test_attach_again_skips_what_was_on_its_way(stdout: OutputStream, peer: Peer) -> None:
    await peer.send(frames.data(STDOUT, 0, b"abcdef"))
    assert await stdout.read() == b"abcdef"
    stdout.detach()
    stdout.attach(2)
    assert await handled(peer) == [Detach(STDOUT), Attach(STDOUT, 2, 2 + WINDOW_BYTES)]
    # The first was sent before the agent knew; the others are for the new attachment.
    await peer.send(frames.data(STDOUT, 6, b"stale"), frames.data(STDOUT, 2, b"cdef"), frames.end(STDOUT, 6))
    assert await stdout.read() == b"cdef"
    assert await stdout.read() is None


async def test_attach_where_the_old_attachment_was_reads_nothing_twice(
    stdout: OutputStream, peer: Peer
) -> None:
    stdout.detach()
    stdout.attach(0)
    await peer.send(
        frames.data(STDOUT, 0, b"abc"),  # before the agent knew
        frames.data(STDOUT, 3, b"de"),
        frames.data(STDOUT, 0, b"abcd"),  # from the new attachment
        frames.data(STDOUT, 4, b"ef"),
        frames.end(STDOUT, 6),
    )
    got = b""
    while isinstance(piece := await stdout.read(), bytes):
        got += piece
    assert got == b"abcdef"


async def test_gap_at_the_start_of_an_attachment(stdout: OutputStream, peer: Peer) -> None:
    stdout.attach(10)
    assert await handled(peer) == [Attach(STDOUT, 10, 10 + WINDOW_BYTES)]
    big = 1 << 40
    await peer.send(gap(STDOUT, 10, big), frames.data(STDOUT, big, b"rest"), frames.end(STDOUT, big + 4))
    assert await stdout.read() == Gap(10, big)
    assert stdout.offset == big
    assert await stdout.read() == b"rest"
    assert await stdout.read() is None
    sent = await handled(peer)
    assert sent[0] == Credit(STDOUT, 10, big + WINDOW_BYTES)


@pytest.mark.parametrize(("start", "end"), [(10, 10), (10, 9), (11, 20), (10, 2**63)])
async def test_bad_gaps(start: int, end: int, client: AgentClient, link: AgentLink, peer: Peer) -> None:
    # A stream that was never attached on this connection: nothing can be on its way.
    stream = link.streams.known_output(5)
    stream.attach(10)
    await peer.send(gap(5, start, end))
    await peer.closed()
    assert link.stats.protocol_errors == 1


async def test_second_gap_is_refused(link: AgentLink, peer: Peer) -> None:
    stream = link.streams.known_output(5)
    stream.attach(0)
    await peer.send(gap(5, 0, 10), gap(5, 10, 20))
    await peer.closed()
    assert await stream.read() == Gap(0, 10)


async def test_re_dial_attaches_where_it_was(stdout: OutputStream, link: AgentLink, peer: Peer) -> None:
    await peer.send(frames.data(STDOUT, 0, b"abc"))
    await handled(peer)
    peer.close()
    again = await Peer.connect(link)
    assert await again.receive() == Attach(STDOUT, 3, WINDOW_BYTES)
    await again.receive_request("process.list")
    await again.send(frames.data(STDOUT, 3, b"def"), frames.end(STDOUT, 6))
    await handled(again)
    assert await stdout.read() == b"abcdef"


async def test_re_dial_repeats_detach(stdout: OutputStream, link: AgentLink, peer: Peer) -> None:
    stdout.detach()
    peer.close()
    again = await Peer.connect(link)
    assert await again.receive() == Detach(STDOUT)


async def test_attach_and_detach_while_there_is_no_connection(
    stdout: OutputStream, link: AgentLink, peer: Peer
) -> None:
    peer.close()
    await until(lambda: not link.connected)
    stdout.detach()
    stdout.attach(7)
    again = await Peer.connect(link)
    assert await again.receive() == Attach(STDOUT, 7, 7 + WINDOW_BYTES)


async def test_answer_after_a_re_dial_attaches_from_0(
    client: AgentClient, link: AgentLink, peer: Peer
) -> None:
    task = asyncio.get_running_loop().create_task(client.spawn(command="x", stderr=False))
    await peer.receive_request("process.spawn")
    # The agent ran it; answer and first output are lost with the connection.
    peer.close()
    again = await Peer.connect(link)
    id_, params = await again.receive_request("process.spawn")
    await again.send(response(id_, {"pid": 1, "stdout": 4}))
    process = await task
    assert await again.receive() == Attach(4, 0, params["credit"])
    await again.receive_request("process.list")
    await again.send(frames.data(4, 0, b"first"), frames.end(4, 5))
    assert process.stdout is not None
    assert await process.stdout.read() == b"first"
    assert await process.stdout.read() is None


async def test_attach_offset_is_checked(stdout: OutputStream) -> None:
    for offset in (-1, 2**62):
        with pytest.raises(ValueError, match="out of range"):
            stdout.attach(offset)


async def test_too_many_stray_frames_close_the_connection(
    stdout: OutputStream, link: AgentLink, peer: Peer
) -> None:
    stdout.detach()
    stray = frames.data(STDOUT, 0, b"x")
    # A whole socket buffer of them is still what an honest agent may have sent.
    await peer.send(stray * 10_000)
    await handled(peer)
    sending = asyncio.get_running_loop().create_task(_send_for_ever(peer, stray * 1_000))
    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        await sending
    assert link.stats.protocol_errors == 1


async def _send_for_ever(peer: Peer, data: bytes) -> None:
    while True:
        await peer.send(data)
        await handled(peer)


async def test_cancelled_file_tells_the_agent_now_and_after_a_re_dial(
    client: AgentClient, link: AgentLink, peer: Peer
) -> None:
    task = asyncio.get_running_loop().create_task(client.open_read("/big"))
    id_, _ = await peer.receive_request("fs.read")
    await peer.send(response(id_, {"stream": 8, "size": 1 << 30}))
    size, stream = await task
    assert size == 1 << 30
    stream.cancel()
    (frame,) = await handled(peer)
    assert isinstance(frame, Reset)
    assert link.streams.output_pool.used_bytes == 0
    peer.close()
    again = await Peer.connect(link)
    frame = await again.receive()
    assert isinstance(frame, Reset)
    assert frame.stream == 8


async def test_file_whose_end_was_lost_is_whole(client: AgentClient, link: AgentLink, peer: Peer) -> None:
    task = asyncio.get_running_loop().create_task(client.open_read("/f"))
    id_, _ = await peer.receive_request("fs.read")
    await peer.send(response(id_, {"stream": 8, "size": 3}), frames.data(8, 0, b"abc"))
    _, stream = await task
    await handled(peer)
    peer.close()
    again = await Peer.connect(link)
    assert await again.receive() == Attach(8, 3, WINDOW_BYTES)
    await again.send(frames.reset(8, "UNKNOWN_STREAM", ""))
    assert await stream.read() == b"abc"
    assert await stream.read() is None


async def _read_exactly(stream: OutputStream, amount: int) -> bytes:
    got = b""
    while len(got) < amount:
        piece = await stream.read(amount - len(got))
        assert isinstance(piece, bytes)
        got += piece
    return got
