"""Files: in the answer, as streams, failures."""

import asyncio
from typing import Any

import pytest

from skerry.control.agent import AgentClient, AgentLink, FileWriter, StreamReset
from skerry.control.agent.files import INLINE_BYTES
from skerry.errors import AgentError
from skerry.protocol import frames
from skerry.protocol.frames import Credit, Data, End, Reset
from skerry.protocol.messages import DirEntry
from tests.harness.agent_peer import Peer, failure, response
from tests.unit.control_agent.spawning import handled


def _task(coroutine: Any) -> "asyncio.Task[Any]":
    return asyncio.get_running_loop().create_task(coroutine)


async def _opened(client: AgentClient, peer: Peer) -> FileWriter:
    task = _task(client.open_write("/f", append=True, mode=0o600))
    id_, params = await peer.receive_request("fs.write_open")
    assert params == {"path": "/f", "append": True, "mode": 0o600}
    await peer.send(response(id_, {"stream": 3}))
    writer: FileWriter = await task
    return writer


async def test_small_file_comes_in_the_answer(client: AgentClient, link: AgentLink, peer: Peer) -> None:
    task = _task(client.read_file("/f", max_bytes=100))
    id_, params = await peer.receive_request("fs.read")
    assert params["inline_max"] == 100
    await peer.send(response(id_, {"data": b"Hello"}))
    assert await task == b"Hello"
    assert await handled(peer) == []
    assert link.streams.output_pool.used_bytes == 0


async def test_large_file_comes_as_a_stream(client: AgentClient, peer: Peer) -> None:
    task = _task(client.read_file("/f", max_bytes=1 << 20))
    id_, params = await peer.receive_request("fs.read")
    assert params["inline_max"] == INLINE_BYTES
    await peer.send(response(id_, {"stream": 3, "size": 6}))
    await peer.send(frames.data(3, 0, b"abc"), frames.data(3, 3, b"def"), frames.end(3, 6))
    assert await task == b"abcdef"
    sent = await handled(peer)
    assert [frame for frame in sent if isinstance(frame, Credit)] == [Credit(3, 6, params["credit"])]
    assert not [frame for frame in sent if isinstance(frame, Reset)]


@pytest.mark.parametrize("size", [11, 5, None], ids=["known before", "grown", "unknown"])
async def test_file_that_is_too_large_is_not_read_on(
    size: int | None, client: AgentClient, link: AgentLink, peer: Peer
) -> None:
    task = _task(client.read_file("/f", max_bytes=10))
    id_, _ = await peer.receive_request("fs.read")
    await peer.send(response(id_, {"stream": 3, "size": size}), frames.data(3, 0, bytes(11)))
    with pytest.raises(AgentError) as caught:
        await task
    assert caught.value.code == "TOO_LARGE"
    (frame,) = await handled(peer)
    assert isinstance(frame, Reset)
    assert link.streams.output_pool.used_bytes == 0


async def test_cancelled_read_closes_the_file(client: AgentClient, link: AgentLink, peer: Peer) -> None:
    task = _task(client.read_file("/f", max_bytes=10))
    id_, _ = await peer.receive_request("fs.read")
    await peer.send(response(id_, {"stream": 3, "size": 8}))
    await handled(peer)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    (frame,) = await handled(peer)
    assert isinstance(frame, Reset)


async def test_cancelled_open_closes_the_file_when_it_is_open(client: AgentClient, peer: Peer) -> None:
    reading, writing = _task(client.open_read("/f")), _task(client.open_write("/g"))
    read_id, _ = await peer.receive_request("fs.read")
    write_id, _ = await peer.receive_request("fs.write_open")
    for task in (reading, writing):
        task.cancel()
    await asyncio.gather(reading, writing, return_exceptions=True)
    await peer.send(response(read_id, {"stream": 1, "size": 8}), response(write_id, {"stream": 2}))
    sent = await handled(peer)
    assert [frame.stream for frame in sent if isinstance(frame, Reset)] == [1, 2]


async def test_open_read_of_a_small_file(client: AgentClient, peer: Peer) -> None:
    task = _task(client.open_read("/f"))
    id_, _ = await peer.receive_request("fs.read")
    await peer.send(response(id_, {"data": b"Hello"}))
    size, stream = await task
    assert size == 5
    assert await stream.read(3) == b"Hel"
    assert await stream.read() == b"lo"
    assert await stream.read() is None
    stream.cancel()
    assert await handled(peer) == []


async def test_small_file_is_written_in_one_request(client: AgentClient, peer: Peer) -> None:
    task = _task(client.write_file("/f", b"data", create=False))
    id_, params = await peer.receive_request("fs.write")
    assert params == {"path": "/f", "data": b"data", "create": False}
    await peer.send(response(id_, None))
    await task


async def test_large_file_is_written_as_a_stream(client: AgentClient, peer: Peer) -> None:
    data = bytes(range(256)) * (INLINE_BYTES // 256 + 1)
    task = _task(client.write_file("/f", data, create_new=True))
    id_, params = await peer.receive_request("fs.write_open")
    assert params == {"path": "/f", "create_new": True}
    await peer.send(response(id_, {"stream": 3}))
    got = b""
    while not isinstance(frame := await peer.receive(), End):
        assert isinstance(frame, Data)
        got += frame.data
    assert got == data
    id_, params = await peer.receive_request("fs.write_close")
    assert params == {"stream": 3}
    await peer.send(frames.credit(3, len(data), 1 << 30), response(id_, {"size": len(data)}))
    await task
    assert await handled(peer) == []


async def test_close_says_how_much_was_written(client: AgentClient, link: AgentLink, peer: Peer) -> None:
    writer = await _opened(client, peer)
    await writer.write(b"abc")
    task = _task(writer.close())
    assert isinstance(await peer.receive(), Data)
    assert isinstance(await peer.receive(), End)
    id_, _ = await peer.receive_request("fs.write_close")
    await peer.send(response(id_, {"size": 3}))
    assert await task == 3
    assert link.streams.input_pool.used_bytes == 0
    assert not link.streams.has_inputs


async def test_close_reports_what_the_file_system_says(
    client: AgentClient, link: AgentLink, peer: Peer
) -> None:
    writer = await _opened(client, peer)
    await writer.write(b"abc")
    task = _task(writer.close())
    await peer.receive()
    await peer.receive()
    id_, _ = await peer.receive_request("fs.write_close")
    await peer.send(failure(id_, "ENOSPC", "disk full"))
    with pytest.raises(AgentError) as caught:
        await task
    assert caught.value.code == "ENOSPC"
    assert not link.streams.has_inputs


async def test_failure_while_writing(client: AgentClient, peer: Peer) -> None:
    writer = await _opened(client, peer)
    await peer.send(frames.reset(3, "ENOSPC", "disk full"))
    await handled(peer)
    for attempt in (writer.write(b"x"), writer.close()):
        with pytest.raises(StreamReset) as caught:
            await attempt
        assert caught.value.code == "ENOSPC"
    assert await handled(peer) == []


async def test_abort(client: AgentClient, peer: Peer) -> None:
    writer = await _opened(client, peer)
    await writer.write(b"abc")
    writer.abort()
    writer.abort()
    assert await handled(peer) == [Data(3, 0, b"abc"), Reset(3, "RESET", "aborted")]
    with pytest.raises(StreamReset):
        await writer.close()


async def test_directories(client: AgentClient, peer: Peer) -> None:
    task = _task(client.read_dir("/d"))
    id_, params = await peer.receive_request("fs.read_dir")
    assert params == {"path": "/d"}
    entries = [{"name": "a", "kind": "file"}, {"name": b"\xff", "kind": "dir"}]
    await peer.send(response(id_, {"entries": entries}))
    assert await task == [DirEntry("a", "file"), DirEntry(b"\xff", "dir")]
    for call, method, expected in (
        (
            client.mkdir("/d", recursive=True, mode=0o700),
            "fs.mkdir",
            {"path": "/d", "recursive": True, "mode": 0o700},
        ),
        (client.remove("/d"), "fs.remove", {"path": "/d"}),
    ):
        task = _task(call)
        id_, params = await peer.receive_request(method)
        assert params == expected
        await peer.send(response(id_, None))
        await task
