"""The client of hostd against a hostd that a test scripts: reconnects, deadlines, descriptors, events."""

import array
import asyncio
import contextlib
import shutil
import socket
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from skerry.control import host_client
from skerry.control.clock import SystemClock
from skerry.control.host_client import HostdClient
from skerry.control.tasks import Tasks
from skerry.errors import HostUnusable, NotFound, ResourceExhausted, RuntimeFailed, TimedOut
from skerry.protocol.host_verbs import (
    Call,
    Destroy,
    Event,
    Failure,
    FrameReader,
    Inspect,
    OpenListener,
    Reply,
    SandboxExited,
    Start,
    Stats,
    Verb,
    Watch,
    frame,
)
from skerry.spec.ids import SandboxId
from skerry.spec.sandbox import Ended, Isolation, Observed, Phase, StartSpec, Usage
from tests.harness.waiting import until

ID = SandboxId("sbx_ord_00000000000000000001")
SPEC = StartSpec(
    sandbox_id=ID, isolation=Isolation.FAKE, image="i", memory_mib=1, cpus=1, disk_mib=1, max_processes=1
)
ENDED = Ended(exit_code=3, oom=False)

Answer = Callable[[Call], bytes | None]


def reply(call: Call, value: object = None) -> bytes:
    return frame(Reply(id=call.id, value=msgspec.Raw(msgspec.msgpack.encode(value))))


def refuse(call: Call, family: str, code: str = "SOME_CODE") -> bytes:
    return frame(Reply(id=call.id, failure=Failure(family=family, code=code, message="no, because")))


class Hostd:
    """Listens at a path and answers as told; None: not at all."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.calls: list[Verb] = []
        self.answers: dict[type[Verb], Answer] = {}
        self.connections: list[asyncio.StreamWriter] = []
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_unix_server(self._serve, self.path)

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        self.drop()
        self.path.unlink(missing_ok=True)

    def drop(self) -> None:
        for connection in self.connections:
            connection.transport.abort()
        self.connections.clear()

    def say(self, data: bytes) -> None:
        for connection in self.connections:
            connection.write(data)

    def count(self, kind: type[Verb]) -> int:
        return sum(isinstance(one, kind) for one in self.calls)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections.append(writer)
        frames = FrameReader()
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                for body in frames.feed(data):
                    call = msgspec.msgpack.decode(body, type=Call)
                    self.calls.append(call.verb)
                    answer = self.answers.get(type(call.verb), reply)(call)
                    if answer is not None:
                        writer.write(answer)
        writer.close()


@pytest.fixture
async def hostd() -> AsyncIterator[Hostd]:
    directory = Path(tempfile.mkdtemp(prefix="skerry-"))
    made = Hostd(directory / "hostd.sock")
    await made.start()
    yield made
    await made.stop()
    shutil.rmtree(directory)


@pytest.fixture
async def client(hostd: Hostd) -> AsyncIterator[HostdClient]:
    async with Tasks() as tasks:
        yield HostdClient(hostd.path, tasks=tasks, clock=SystemClock())


@pytest.fixture
def short_deadlines(monkeypatch: pytest.MonkeyPatch) -> None:
    for verb in host_client.DEADLINES_S:
        monkeypatch.setitem(host_client.DEADLINES_S, verb, 0.3)


async def test_verbs_and_their_answers(hostd: Hostd, client: HostdClient) -> None:
    observed = [Observed(sandbox_id=ID, isolation=Isolation.FAKE, phase=Phase.ENDED, ended=ENDED)]
    usage = Usage(memory_bytes=1, cpu_us=2, processes=3, disk_bytes=4)
    hostd.answers = {
        Inspect: lambda call: reply(call, observed),
        Destroy: lambda call: reply(call, ENDED),
        Stats: lambda call: reply(call, usage),
    }
    await client.start(SPEC)
    await client.pause(ID)
    await client.resume(ID)
    assert await client.inspect() == observed
    assert await client.destroy(ID) == ENDED
    assert await client.stats(ID) == usage
    assert hostd.calls[1] == Start(SPEC)


async def test_answers_may_come_in_any_order(hostd: Hostd, client: HostdClient) -> None:
    held: list[Call] = []
    hostd.answers[Destroy] = lambda call: held.append(call)
    first, second = (asyncio.create_task(client.destroy(ID)) for _ in range(2))
    await until(lambda: len(held) == 2)
    hostd.say(reply(held[1], Ended(exit_code=2, oom=True)) + reply(held[0], Ended(exit_code=1, oom=False)))
    assert (await first).exit_code == 1
    assert (await second).exit_code == 2


@pytest.mark.parametrize(
    ("family", "kind"),
    [
        ("NotFound", NotFound),
        ("ResourceExhausted", ResourceExhausted),
        ("RuntimeFailed", RuntimeFailed),
        ("TimedOut", RuntimeFailed),
        ("SandboxEnded", RuntimeFailed),
        ("KeyboardInterrupt", RuntimeFailed),
    ],
)
async def test_refusals_keep_family_code_and_words(
    hostd: Hostd, client: HostdClient, family: str, kind: type[Exception]
) -> None:
    hostd.answers[Start] = lambda call: refuse(call, family)
    with pytest.raises(kind, match="no, because") as error:
        await client.start(SPEC)
    assert getattr(error.value, "code", None) == "SOME_CODE"


async def test_a_start_whose_answer_is_lost_is_not_repeated(hostd: Hostd, client: HostdClient) -> None:
    hostd.answers[Start] = lambda call: hostd.drop()
    with pytest.raises(HostUnusable, match="connection to hostd broke"):
        await client.start(SPEC)
    assert hostd.count(Start) == 1


async def test_a_repeatable_verb_is_asked_again_after_a_reconnect(hostd: Hostd, client: HostdClient) -> None:
    def first_drop(call: Call) -> bytes | None:
        hostd.answers[Destroy] = lambda again: reply(again, ENDED)
        hostd.drop()
        return None

    hostd.answers[Destroy] = first_drop
    assert await client.destroy(ID) == ENDED
    assert hostd.count(Destroy) == 2


async def test_a_verb_waits_for_a_hostd_that_starts_meanwhile(hostd: Hostd, client: HostdClient) -> None:
    await client.pause(ID)
    await hostd.stop()
    waiting = asyncio.create_task(client.pause(ID))
    await asyncio.sleep(0)
    await hostd.start()
    await asyncio.wait_for(waiting, 10)


@pytest.mark.usefixtures("short_deadlines")
async def test_a_hostd_that_is_away_is_said_to_be(hostd: Hostd, client: HostdClient) -> None:
    await hostd.stop()
    with pytest.raises(HostUnusable, match="hostd cannot be reached") as error:
        await client.inspect()
    assert error.value.code == "HOSTD_UNREACHABLE"
    with pytest.raises(HostUnusable):
        await client.listen(ID, asyncio.Protocol)


@pytest.mark.usefixtures("short_deadlines")
async def test_a_hostd_that_does_not_answer_costs_the_deadline(hostd: Hostd, client: HostdClient) -> None:
    hostd.answers[Destroy] = hostd.answers[OpenListener] = lambda call: None
    with pytest.raises(TimedOut):
        await client.destroy(ID)
    with pytest.raises(TimedOut):
        await client.listen(ID, asyncio.Protocol)
    hostd.answers[Destroy] = lambda call: reply(call, ENDED)
    assert await client.destroy(ID) == ENDED


@pytest.mark.parametrize("rubbish", [b"\xff\xff\xff\xff", b"\0\0\0\1\xc1", b"\0\0\0\2\x93\x01"])
async def test_rubbish_ends_the_connection_and_not_the_client(
    hostd: Hostd, client: HostdClient, rubbish: bytes
) -> None:
    await client.pause(ID)
    hostd.say(rubbish)
    await until(lambda: hostd.count(Watch) == 2)
    await client.pause(ID)


async def test_an_answer_of_the_wrong_kind_is_an_error_in_words(hostd: Hostd, client: HostdClient) -> None:
    hostd.answers[Inspect] = lambda call: reply(call, "what?")
    with pytest.raises(RuntimeFailed, match="not understood"):
        await client.inspect()


async def test_events_come_in_order_and_say_when_some_may_be_missing(
    hostd: Hostd, client: HostdClient
) -> None:
    happened = SandboxExited(ID, ENDED)
    events = client.events()
    assert await anext(events) is None
    await client.pause(ID)
    assert await anext(events) is None
    hostd.say(frame(Event(happened)))
    assert await anext(events) == happened
    hostd.drop()
    assert await asyncio.wait_for(anext(events), 10) is None
    await client.pause(ID)
    hostd.say(frame(Event(happened)))
    assert await anext(events) == happened


async def test_events_that_nobody_reads_are_dropped_and_said_to_be_missing(
    hostd: Hostd, client: HostdClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_client, "MAX_EVENTS", 3)
    events = client.events()
    assert await anext(events) is None
    await client.pause(ID)
    for number in range(10):
        hostd.say(frame(Event(SandboxExited(ID, Ended(exit_code=number, oom=False)))))
    await client.pause(ID)
    read = [await anext(events) for _ in range(2)]
    assert read[0] is None
    assert isinstance(read[1], SandboxExited)


class _Accepted(asyncio.Protocol):
    made: "list[asyncio.BaseTransport]"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()
        self.made.append(transport)


async def test_the_listener_arrives_and_is_served(client: HostdClient, hostd: Hostd) -> None:
    agent_path = hostd.path.with_name("agent.sock")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(agent_path))
    listener.listen()
    await hostd.stop()
    _Accepted.made = []
    with _answering_with(hostd.path, [listener]):
        listening = await client.listen(ID, _Accepted)
    listener.close()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as agent:
        agent.connect(str(agent_path))
        await until(lambda: _Accepted.made)
    listening.close()
    listening.close()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as agent, pytest.raises(ConnectionRefusedError):
        agent.connect(str(agent_path))


@pytest.mark.parametrize("count", [0, 2])
async def test_another_number_of_descriptors_is_refused_and_nothing_is_kept_open(
    client: HostdClient, hostd: Hostd, count: int
) -> None:
    await hostd.stop()
    pairs = [socket.socketpair() for _ in range(count)]
    with (
        _answering_with(hostd.path, [one for one, _ in pairs]),
        pytest.raises(RuntimeFailed, match="no listener"),
    ):
        await client.listen(ID, _Accepted)
    for one, other in pairs:
        one.close()
        other.settimeout(5)
        assert other.recv(1) == b"", "a descriptor is still open"
        other.close()


async def test_a_refused_listener_is_its_refusal(client: HostdClient, hostd: Hostd) -> None:
    hostd.answers[OpenListener] = lambda call: refuse(call, "NotFound")
    with pytest.raises(NotFound, match="no, because"):
        await client.listen(ID, _Accepted)


@contextlib.contextmanager
def _answering_with(path: Path, sockets: list[socket.socket]) -> Iterator[None]:
    """A hostd in a thread, which answers one `OpenListener` with descriptors."""
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    server.bind(str(path))
    server.listen()
    server.settimeout(10)

    opened: list[socket.socket] = []

    def serve() -> None:
        while True:
            connection, _ = server.accept()
            opened.append(connection)
            connection.settimeout(10)
            (body,) = FrameReader().feed(connection.recv(65536))
            call = msgspec.msgpack.decode(body, type=Call)
            if isinstance(call.verb, OpenListener):
                rights = array.array("i", [one.fileno() for one in sockets])
                control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)] if sockets else []
                connection.sendmsg([reply(call)], control)
                return
            connection.sendall(reply(call))

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        thread.join()
        for connection in (*opened, server):
            connection.close()
        path.unlink()
