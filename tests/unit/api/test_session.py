"""How a session ends, and who may wait for what: over a real socket pair, with an agent of a few lines."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest

from skerry.api.deno import session as session_module
from skerry.api.deno.budget import MemoryBudget
from skerry.api.deno.session import Session
from skerry.control.agent import Exit, Process
from skerry.errors import AgentError, SandboxEnded
from skerry.protocol.deno_flavour import Flavour
from skerry.protocol.jsonrpc import stream_ids
from skerry.service.attachment import Attachment
from skerry.spec.sandbox import EndReason
from tests.harness.socket_client import CLOSE, TEXT, SocketClient, frame
from tests.harness.waiting import until


class Output:
    """Output of a process, which the test writes."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.detached = False

    async def read(self, max_bytes: int) -> bytes | None:
        return await self.queue.get()

    def read_nowait(self, max_bytes: int) -> bytes | None:
        return self.queue.get_nowait() if self.queue.qsize() else b""

    def detach(self) -> None:
        self.detached = True


class Agent:
    """An agent whose one process the test ends."""

    def __init__(self) -> None:
        self.stdout = Output()
        self.exit: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        self.kills: list[tuple[str, bool]] = []

    async def spawn(self, **given: object) -> Process:
        return cast(
            Process, SimpleNamespace(pid=7, stdin=None, stdout=self.stdout, stderr=None, wait=self._wait)
        )

    async def _wait(self) -> Exit:
        return await asyncio.shield(self.exit)

    def process(self, pid: int) -> Any:
        return SimpleNamespace(wait=self._wait, kill=self._kill) if pid == 7 else None

    async def _kill(self, signal: str, *, group: bool) -> None:
        if self.exit.done():
            raise AgentError("ESRCH", "it has ended")
        self.kills.append((signal, group))

    async def env_all(self) -> dict[str, str]:
        await asyncio.sleep(3600)
        return {}


class Opened:
    """A session that runs, and its client."""

    def __init__(self, client: SocketClient, session: Session, agent: Agent, attachment: Any) -> None:
        self.client = client
        self.session = session
        self.agent = agent
        self.attachment = attachment

    async def ask(self, id_: int, method: str, **params: object) -> None:
        message = {"jsonrpc": "2.0", "id": id_, "method": method, "params": params}
        await self.client.send(frame(json.dumps(message).encode()))

    async def next(self) -> Any:
        """The next message; the code of a close frame."""
        opcode, payload = await asyncio.wait_for(self.client.receive(), 10)
        if opcode == CLOSE:
            return int.from_bytes(payload[:2], "big")
        assert opcode == TEXT
        return json.loads(payload)

    async def spawn(self) -> int:
        await self.ask(1, "spawn", command="x", stdout="piped", stderr="null")
        stream = (await self.next())["result"]["ok"]["stdoutStreamId"]
        assert isinstance(stream, int)
        return stream


@asynccontextmanager
async def opened(flavour: Flavour = Flavour.JAVASCRIPT, *, stopping: bool = False) -> AsyncIterator[Opened]:
    client = await SocketClient.open()
    agent = Agent()
    detached: list[bool] = []

    async def detach(*, clean: bool) -> None:
        detached.append(clean)

    ended: asyncio.Future[EndReason] = asyncio.get_running_loop().create_future()
    attachment = SimpleNamespace(agent=agent, sandbox_id="sbx", ended=ended, detach=detach, detached=detached)
    session = Session(
        cast(Attachment, attachment),
        client.server,
        flavour,
        budget=MemoryBudget(),
        stream_ids=stream_ids(lambda _: 1000),
    )
    client.server._receiver = session

    async def answered() -> None:
        pass

    running = asyncio.ensure_future(session.run(answered(), stopping=lambda: stopping))
    await asyncio.sleep(0)
    try:
        yield Opened(client, session, agent, attachment)
    finally:
        client.vanish()
        await asyncio.wait_for(running, 10)


def _method(message: Any) -> str:
    return str(message["method"]).removeprefix("$sandbox.stream.")


async def test_output_waits_for_process_wait() -> None:
    async with opened() as one:
        stream = await one.spawn()
        one.agent.stdout.queue.put_nowait(b"early")
        await one.ask(2, "processWait", pid=7)
        start, chunk = await one.next(), await one.next()
        assert (_method(start), start["params"]["streamId"]) == ("start", stream)
        assert base64.b64decode(chunk["params"]["data"]) == b"early"
        one.agent.exit.set_result(Exit(0, None, False))
        assert (await one.next())["result"]["ok"] == {"success": True, "code": 0, "signal": None, "oom": None}
        one.agent.stdout.queue.put_nowait(None)
        assert _method(await one.next()) == "end"


async def test_a_client_that_is_neither_sdk_need_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "UNASKED_RELEASE_S", 0.01)
    async with opened(Flavour.OTHER) as one:
        await one.spawn()
        one.agent.stdout.queue.put_nowait(b"x")
        assert [_method(await one.next()) for _ in range(2)] == ["start", "enqueue"]
    async with opened(Flavour.PYTHON) as one:
        await one.spawn()
        one.agent.stdout.queue.put_nowait(b"x")
        await asyncio.sleep(0.05)
        await one.ask(2, "processKill", pid=7)
        assert (await one.next())["id"] == 2


@pytest.mark.parametrize(
    ("exit_", "oom"),
    [
        (Exit(137, "SIGKILL", True), "high-confidence"),
        (Exit(137, "SIGKILL", False), None),
        (Exit(143, "SIGTERM", True), None),
    ],
)
async def test_oom_stands_only_beside_137(exit_: Exit, oom: str | None) -> None:
    async with opened() as one:
        one.agent.exit.set_result(exit_)
        await one.ask(2, "processWait", pid=7)
        assert (await one.next())["result"]["ok"] == {
            "success": False, "code": exit_.code, "signal": exit_.signal, "oom": oom,
        }  # fmt: skip


async def test_signals_that_mean_end_go_to_the_group() -> None:
    async with opened() as one:
        for number, signal in enumerate((None, "SIGKILL", "SIGUSR1")):
            await one.ask(number, "processKill", pid=7, signal=signal)
            assert await one.next() == {"jsonrpc": "2.0", "id": number, "result": {"ok": None}}
        assert one.agent.kills == [("SIGTERM", True), ("SIGKILL", True), ("SIGUSR1", False)]


async def test_when_the_sandbox_ends_calls_are_answered_streams_end_and_the_connection_closes() -> None:
    async with opened() as one:
        await one.spawn()
        await one.ask(2, "processWait", pid=7)
        await one.ask(3, "envGet", key="x")
        one.agent.stdout.queue.put_nowait(b"first")
        assert [_method(await one.next()) for _ in range(2)] == ["start", "enqueue"]
        one.agent.stdout.queue.put_nowait(b"last")
        one.attachment.ended.set_result(EndReason.KILLED)
        messages = [await one.next() for _ in range(5)]
        failed = {
            message["id"]: message["result"]["error"]["code"] for message in messages[:-1] if "id" in message
        }
        assert failed == {2: "SANDBOX_ALREADY_TERMINATED", 3: "SANDBOX_ALREADY_TERMINATED"}
        assert messages[-1] == 1001
        kinds = [_method(message) for message in messages[:-1] if "id" not in message]
        assert kinds == ["enqueue", "end"]


async def test_out_of_memory_answers_waits_with_137() -> None:
    async with opened() as one:
        await one.ask(2, "processWait", pid=7)
        await asyncio.sleep(0.02)
        one.attachment.ended.set_result(EndReason.OUT_OF_MEMORY)
        assert (await one.next())["result"]["ok"] == {
            "success": False, "code": 137, "signal": "SIGKILL", "oom": "low-confidence",
        }  # fmt: skip
        assert await one.next() == 1001


async def test_a_call_that_fails_because_the_sandbox_ended_says_so_as_well() -> None:
    async with opened() as one:
        one.agent.exit.set_exception(SandboxEnded("out_of_memory"))
        await one.ask(2, "processWait", pid=7)
        assert (await one.next())["result"]["ok"]["code"] == 137


async def test_python_is_answered_for_a_while_after_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "PYTHON_GRACE_S", 0.2)
    async with opened(Flavour.PYTHON) as one:
        one.attachment.ended.set_result(EndReason.KILLED)
        await asyncio.sleep(0)
        await one.ask(1, "processKill", pid=7)
        gone = (await one.next())["result"]["error"]
        assert (gone["constructorName"], gone["code"]) == ("TypeError", "ENOENT")
        await one.ask(2, "stat", path="/")
        assert (await one.next())["result"]["error"]["code"] == "SANDBOX_ALREADY_TERMINATED"
        await one.ask(3, "nonsense")
        assert (await one.next())["error"]["code"] == -32601
        assert await one.next() == 1001


async def test_an_abort_ends_its_call_and_unknown_ones_are_fine() -> None:
    async with opened() as one:
        never: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def open_read(path: str) -> None:
            await never

        one.agent.open_read = open_read  # type: ignore[attr-defined]
        await one.ask(1, "readFile", path="x", abortId=4)
        await one.ask(2, "abort", abortId=4)
        answers = {message["id"]: message["result"] for message in (await one.next(), await one.next())}
        assert answers[1]["error"]["name"] == "AbortError"
        assert answers[2] == {"ok": None}
        await one.ask(3, "abort", abortId=4)
        assert (await one.next())["result"] == {"ok": None}


@pytest.mark.parametrize("clean", [True, False])
async def test_the_service_is_told_how_the_client_left(clean: bool) -> None:
    async with opened() as one:
        await one.spawn()
        if clean:
            await one.client.send(frame(b"", CLOSE))
            assert await one.next() == 1000
        else:
            one.client.vanish()
        await until(lambda: one.attachment.detached)
        assert one.attachment.detached == [clean]
        assert one.agent.stdout.detached


@pytest.mark.parametrize(("flavour", "kind"), [(Flavour.JAVASCRIPT, "error"), (Flavour.PYTHON, "end")])
async def test_when_the_server_leaves_the_sandbox_keeps_its_primary_and_output(
    flavour: Flavour, kind: str
) -> None:
    async with opened(flavour, stopping=True) as one:
        await one.spawn()
        await one.ask(2, "processWait", pid=7)
        one.agent.stdout.queue.put_nowait(b"x")
        assert [_method(await one.next()) for _ in range(2)] == ["start", "enqueue"]
        one.session.leave("the server is going away")
        assert (await one.next())["result"]["error"]["code"] == "SERVER_GOING_AWAY"
        assert _method(await one.next()) == kind
        assert await one.next() == 1001
    assert one.attachment.detached == []
    assert not one.agent.stdout.detached


async def test_an_answer_that_is_too_long_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(Flavour.PYTHON) as one:

        async def read_dir(path: str) -> list[object]:
            return [SimpleNamespace(name="x" * 200, kind="file")] * 10_000

        one.agent.read_dir = read_dir  # type: ignore[attr-defined]
        await one.ask(1, "readDir", path="/")
        assert (await one.next())["result"]["error"]["constructorName"] == "RangeError"


async def test_a_fault_of_ours_is_an_internal_error_and_the_session_goes_on() -> None:
    async with opened() as one:

        async def stat(path: str, *, follow: bool) -> None:
            raise ZeroDivisionError

        one.agent.stat = stat  # type: ignore[attr-defined]
        await one.ask(1, "stat", path="/")
        assert (await one.next())["error"] == {"code": -32603, "message": "Internal error"}
        await one.ask(2, "processKill", pid=7)
        assert (await one.next())["result"] == {"ok": None}
