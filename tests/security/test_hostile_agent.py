"""Root in a sandbox can speak on the channel as it likes. It harms only its own sandbox.

Each attack costs the attacker's link: its connection is closed, or the frames are ignored up to a bound. A
neighbour's link in the same event loop keeps answering, and what the attacker makes this process hold stays
below a bound that the test names.
"""

import array
import asyncio
import os
import random
import socket
import threading
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from skerry.control.agent import AgentClient, AgentLink, PacedListener
from skerry.control.agent.connection import FRAMES_PER_TURN
from skerry.control.agent.link import ERRORS_BEFORE_PAUSE
from skerry.control.agent.streams import WINDOW_BYTES
from skerry.protocol import frames, messages
from skerry.protocol.frames import MAX_PAYLOAD_BYTES, MORE, FrameType
from skerry.protocol.messages import Nothing, Spawned
from tests.harness.agent_peer import Peer, exited, gap, hello, ping, response, until

MIB = 1 << 20


class Neighbour:
    """Another sandbox on the same event loop; its agent answers every request."""

    def __init__(self, link: AgentLink, peer: Peer) -> None:
        self._link = link
        self._peer = peer

    async def serve(self) -> None:
        """Be the agent."""
        while True:
            frame = await self._peer.receive()
            assert isinstance(frame, messages.Request)
            await self._peer.send(response(frame.id, {"pid": 1}))

    async def ask(self) -> None:
        """Be its client."""
        assert (await self._link.request("test", Nothing(), Spawned, timeout_s=10)).pid == 1


@pytest.fixture
async def link() -> AsyncIterator[AgentLink]:
    """The attacker's link."""
    link = AgentLink(sandbox_id="sbx_attacker", epoch=1, reattach_window_ms=60_000)
    yield link
    link.close("test is over")
    Peer.close_all()
    await asyncio.sleep(0)


@pytest.fixture
async def client(link: AgentLink) -> AgentClient:
    """What the attacker's owner uses."""
    return AgentClient(link)


@pytest.fixture
async def neighbour() -> AsyncIterator[Neighbour]:
    """Answers during and after every attack."""
    link = AgentLink(sandbox_id="sbx_neighbour", epoch=1, reattach_window_ms=60_000)
    neighbour = Neighbour(link, await Peer.connect(link))
    serving = asyncio.get_running_loop().create_task(neighbour.serve())
    yield neighbour
    await neighbour.ask()
    assert link.stats.protocol_errors == 0
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)
    link.close("test is over")


class _Memory:
    """Most that was allocated by Python since it was made."""

    def __init__(self) -> None:
        tracemalloc.start()
        self._before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()

    def peak_bytes(self) -> int:
        return tracemalloc.get_traced_memory()[1] - self._before


@pytest.fixture
def memory() -> Iterator[_Memory]:
    yield _Memory()
    tracemalloc.stop()


class _Flood(threading.Thread):
    """Sends the same bytes again and again, and never reads, until the other side closes."""

    def __init__(self, sock: socket.socket, data: bytes) -> None:
        super().__init__(daemon=True)
        self._sock = sock
        self._data = data

    def run(self) -> None:
        self._sock.setblocking(True)
        try:
            while True:
                self._sock.sendall(self._data)
        except OSError:
            return


async def _spawned(client: AgentClient, peer: Peer) -> None:
    """A process 42 with input stream 1 and output stream 2."""
    task = asyncio.get_running_loop().create_task(client.spawn(command="x", stdin=True, stderr=False))
    id_, _ = await peer.receive_request("process.spawn")
    await peer.send(response(id_, {"pid": 42, "stdin": 1, "stdout": 2}))
    await task


FLOODS = {
    "pings": ping() * 1000,
    "pongs": frames.pong(b"12345678") * 1000,
    "exits": exited(7, 0) * 1000,
    "answers again": response(1, None) * 1000,
    "resets": frames.reset(9, "X", "") * 1000,
    "credits": frames.credit(9, 0, 1) * 1000,
    "attaches": frames.attach(9, 0, 1 << 20) * 1000,
    "stray data": frames.data(2, 0, b"x") * 1000,
}


@pytest.mark.parametrize("flood", FLOODS.values(), ids=FLOODS.keys())
async def test_floods_end_and_do_not_hold_others_up(
    flood: bytes, link: AgentLink, client: AgentClient, neighbour: Neighbour
) -> None:
    peer = await Peer.connect(link)
    await _spawned(client, peer)
    process = client.process(42)
    assert process is not None
    assert process.stdout is not None
    process.stdout.detach()
    attack = _Flood(peer.sock, flood)
    attack.start()
    most_frames_per_answer = 0
    while link.connected:
        before = link.stats.frames_in
        await neighbour.ask()
        most_frames_per_answer = max(most_frames_per_answer, link.stats.frames_in - before)
    # A neighbour's answer takes a few turns of the loop; the flood gets its share of each, and no more.
    assert most_frames_per_answer <= 16 * FRAMES_PER_TURN
    assert link.stats.protocol_errors == 1
    assert link.stats.bytes_out < 2 * MIB
    await asyncio.to_thread(attack.join)


async def test_a_process_that_floods_its_output_gets_its_share_only(
    link: AgentLink, client: AgentClient, neighbour: Neighbour
) -> None:
    peer = await Peer.connect(link)
    await _spawned(client, peer)
    process = client.process(42)
    assert process is not None
    assert process.stdout is not None
    stdout = process.stdout
    # One byte per frame, all of it allowed: the worst that rules permit.
    sending = asyncio.get_running_loop().create_task(
        peer.send(b"".join(frames.data(2, n, b"x") for n in range(100_000)))
    )
    most_frames_per_answer = 0
    while stdout.offset < 100_000:
        before = link.stats.frames_in
        await neighbour.ask()
        most_frames_per_answer = max(most_frames_per_answer, link.stats.frames_in - before)
        stdout.read_nowait()
    await sending
    assert most_frames_per_answer <= 16 * FRAMES_PER_TURN


AFTER_HELLO = {
    "garbage": random.Random(1).randbytes(4096),  # noqa: S311 - repeatable
    "too long": frames.frame(FrameType.DATA, b"", stream=1)[:3] + b"\xff" + bytes(8),
    "zeros": bytes(4096),
    "hello again": hello(),
    "host's frames": frames.welcome(messages.Welcome(1, 1, 1)),
    "request": frames.request(1, 0, "env.all", Nothing()),
    "detach": frames.detach(2),
    "answer to 0": response(0, None),
    "answer to what was never sent": response(1 << 40, None),
    "part of an answer that nobody asked for": frames.frame(
        FrameType.RESPONSE, bytes(MAX_PAYLOAD_BYTES), stream=5, flags=MORE
    ),
    "data at a wrong offset": frames.data(2, 1, b"x"),
    "data beyond the limit": b"".join(frames.data(2, n * 65536, bytes(65536)) for n in range(5)),
    "data of a stream that never was": frames.data(99, 0, b"x"),
    "data of an input stream": frames.data(1, 0, b"x"),
    "gap in a stream": gap(2, 0, 5),
    "gap of everything": gap(2, 0, 2**64 - 1),
    "end at a wrong place": frames.end(2, 2**64 - 1),
    "credit shrinks": frames.credit(1, 0, 1),
    "more consumed than sent": frames.credit(1, 2**64 - 1, 2**64 - 1),
    "attached twice": frames.attach(1, 0, 1 << 20),
    "exit of everybody": frames.frame(FrameType.EXIT, messages.encode({"pid": -1, "code": 0})),
    "deep nesting": frames.frame(FrameType.EXIT, b"\x81\xa1x" + b"\x91" * 4000),
}


@pytest.mark.parametrize("attack", AFTER_HELLO.values(), ids=AFTER_HELLO.keys())
async def test_broken_rules_cost_the_connection_and_no_more(
    attack: bytes, link: AgentLink, client: AgentClient, neighbour: Neighbour
) -> None:
    peer = await Peer.connect(link)
    await _spawned(client, peer)
    await peer.send(attack)
    await peer.closed()
    assert link.stats.protocol_errors == 1
    # An honest agent that dials now finds everything as it was.
    again = await Peer.connect(link)
    await again.send(exited(42, 3))
    process = client.process(42)
    assert process is not None
    assert (await process.wait()).code == 3


@pytest.mark.parametrize("seed", range(20))
async def test_garbage_instead_of_hello(seed: int, link: AgentLink, neighbour: Neighbour) -> None:
    peer = await Peer.dial(link)
    await peer.send(random.Random(seed).randbytes(5000))  # noqa: S311 - repeatable
    await peer.closed()
    assert not link.connected


async def test_nobody_is_accepted_for_a_while_after_several_errors(
    link: AgentLink, neighbour: Neighbour, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("skerry.control.agent.link.PAUSE_S", 0.2)
    for _ in range(ERRORS_BEFORE_PAUSE):
        peer = await Peer.dial(link)
        await peer.send(bytes(12))
        await peer.closed()
    assert link.stats.protocol_errors == ERRORS_BEFORE_PAUSE
    assert not await _is_welcome(link)
    assert link.stats.refused_connections == 1
    async with asyncio.timeout(10):
        while not await _is_welcome(link):
            await neighbour.ask()
    assert link.connected


async def test_many_connections_without_hello(link: AgentLink, neighbour: Neighbour) -> None:
    first = await Peer.dial(link)
    others = [await Peer.dial(link) for _ in range(50)]
    for peer in others:
        assert await peer.closed() == []
    assert link.stats.refused_connections == 50
    await first.hello()
    assert isinstance(await first.receive(), messages.Welcome)


async def test_replayed_hello_cannot_go_on_for_ever(link: AgentLink, neighbour: Neighbour) -> None:
    accepted = 0
    while await _is_welcome(link):
        accepted += 1
        await neighbour.ask()
    assert 1 <= accepted < 200
    # The honest agent dials until it is let in again.
    async with asyncio.timeout(10):
        while not await _is_welcome(link):
            await neighbour.ask()
    assert link.connected


async def _is_welcome(link: AgentLink) -> bool:
    """Dial with the right key; whether the host answers."""
    peer = await Peer.dial(link)
    try:
        await peer.hello()
        return isinstance(await peer.receive(), messages.Welcome)
    except OSError:
        return False


async def test_flood_of_connections_waits_outside(
    link: AgentLink, neighbour: Neighbour, tmp_path: Path
) -> None:
    path = str(tmp_path / "agent.sock")
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(path)
    sock.listen(8)
    listener = PacedListener(sock, link.accept)
    stop = threading.Event()

    def dial() -> None:
        while not stop.is_set():
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(0.05)
                try:
                    client.connect(path)
                except OSError:
                    stop.wait(0.001)

    attack = threading.Thread(target=dial, daemon=True)
    attack.start()
    for _ in range(500):
        await neighbour.ask()
    stop.set()
    await asyncio.to_thread(attack.join)
    accepted = link.stats.refused_connections + link.stats.protocol_errors
    assert accepted <= 200
    listener.close()


async def test_slow_hello(link: AgentLink, neighbour: Neighbour, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skerry.control.agent.connection.HELLO_DEADLINE_S", 0.2)
    peer = await Peer.dial(link)
    for byte in hello()[:-1]:
        await peer.send(bytes([byte]))
        await neighbour.ask()
    assert await peer.closed() == []
    assert link.stats.protocol_errors == 1


async def test_descriptors_are_not_taken(link: AgentLink, neighbour: Neighbour) -> None:
    peer = await Peer.connect(link)
    before = os.listdir("/proc/self/fd")
    rights = array.array("i", [peer.sock.fileno()] * 100)
    for _ in range(10):
        peer.sock.sendmsg([ping()], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
        assert isinstance(await peer.receive(), frames.Pong)
    assert os.listdir("/proc/self/fd") == before


async def test_tiny_frames_of_an_unread_stream(
    link: AgentLink, client: AgentClient, neighbour: Neighbour, memory: _Memory
) -> None:
    peer = await Peer.connect(link)
    await _spawned(client, peer)
    for start in range(0, WINDOW_BYTES, 8192):
        await peer.send(b"".join(frames.data(2, n, b"xy") for n in range(start, start + 8192, 2)))
        await neighbour.ask()
    await until(lambda: link.stats.frames_in >= WINDOW_BYTES // 2)
    # The window, once more while buffers grow, and what this test itself holds.
    assert memory.peak_bytes() < 4 * MIB


async def test_parts_of_answers(
    link: AgentLink, client: AgentClient, neighbour: Neighbour, memory: _Memory
) -> None:
    """Unfinished answers hold no more than what was asked for: here 8 MiB for one directory."""
    peer = await Peer.connect(link)
    asking = asyncio.get_running_loop().create_task(client.read_dir("/"))
    await peer.receive_request("fs.read_dir")
    part = frames.frame(FrameType.RESPONSE, bytes(MAX_PAYLOAD_BYTES), stream=1, flags=MORE)
    flood = b"".join(part[:8] + (n % 3).to_bytes(4, "big") + part[12:] for n in range(6))
    attack = _Flood(peer.sock, flood)
    attack.start()
    while link.connected:
        await neighbour.ask()
    await asyncio.to_thread(attack.join)
    assert memory.peak_bytes() < 24 * MIB
    assert link.stats.protocol_errors == 1
    asking.cancel()


async def test_answers_that_would_take_long_to_decode(
    link: AgentLink, client: AgentClient, neighbour: Neighbour
) -> None:
    peer = await Peer.connect(link)
    asking = asyncio.get_running_loop().create_task(client.env_all())
    id_, _ = await peer.receive_request("env.all")
    bomb = b"\x93" + messages.encode(id_) + b"\xc3" + b"\x91" * (7 * MIB) + b"\xc0"
    await peer.send(frames.split_message(FrameType.RESPONSE, bomb, 1))
    await peer.closed()
    assert link.stats.protocol_errors == 1
    # The answer could not even be told from others, so the question stands, for an honest agent.
    again = await Peer.connect(link)
    id_, _ = await again.receive_request("env.all")
    await again.send(response(id_, {"env": {}}))
    assert await asking == {}


async def test_peer_that_does_not_read_holds_nothing_but_its_own_requests(
    link: AgentLink, client: AgentClient, neighbour: Neighbour, memory: _Memory
) -> None:
    peer = await Peer.connect(link)
    data = bytes(200_000)
    writing = [asyncio.get_running_loop().create_task(client.write_file("/x", data)) for _ in range(300)]
    for _ in range(50):
        await neighbour.ask()
    # 16 MiB of requests that wait for answers, each held once.
    assert memory.peak_bytes() < 20 * MIB
    assert link.unanswered < 100
    for task in writing:
        task.cancel()
    await asyncio.gather(*writing, return_exceptions=True)
    peer.close()
