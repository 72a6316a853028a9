"""Processes, their ends, the environment."""

import asyncio
from typing import Any

import pytest

from skerry.control.agent import AgentClient, AgentLink, Exit, Process
from skerry.control.agent.processes import MAX_ENDED
from skerry.errors import AgentError, GuestUnreachable, InvalidRequest, ResourceExhausted, SandboxEnded
from skerry.protocol import frames
from skerry.protocol.frames import Attach, Detach, Reset
from skerry.protocol.messages import Reclaimed, Request, TrustInstalled
from tests.harness.agent_peer import Peer, exited, failure, response, until
from tests.unit.control_agent.spawning import STDIN, STDOUT, handled, spawned


def _task(coroutine: Any) -> "asyncio.Task[Any]":
    return asyncio.get_running_loop().create_task(coroutine)


async def test_spawn_says_what_was_asked_for(client: AgentClient, peer: Peer) -> None:
    task = _task(
        client.spawn(
            command="ls",
            args=["-l", b"\xff"],
            env={"A": "1"},
            clear_env=True,
            cwd="/",
            stdin=True,
            user="root",
        )
    )
    id_, params = await peer.receive_request("process.spawn")
    assert params.pop("credit") > 0
    assert params == {
        "command": "ls",
        "args": ["-l", b"\xff"],
        "env": {"A": "1"},
        "clear_env": True,
        "cwd": "/",
        "stdin": True,
        "stdout": "piped",
        "stderr": "piped",
        "user": "root",
    }
    await peer.send(response(id_, {"pid": 7, "stdin": 1, "stdout": 2, "stderr": 3}))
    process = await task
    assert (process.pid, process.exit) == (7, None)
    assert process is client.process(7)
    assert client.process(8) is None


async def test_text_that_is_not_utf8_goes_as_bytes(client: AgentClient, peer: Peer) -> None:
    escaped = b"\xffx".decode("utf-8", "surrogateescape")
    task = _task(client.env_update({b"plain": "ü", "raw": escaped}, [b"gone"]))
    id_, params = await peer.receive_request("env.update")
    assert params == {"set": {"plain": "ü", "raw": b"\xffx"}, "unset": ["gone"]}
    await peer.send(response(id_, None))
    await task
    with pytest.raises(InvalidRequest):
        await client.env_update({"A": "\ud800"})


async def test_exit_is_cached_and_needs_no_round_trip(client: AgentClient, peer: Peer) -> None:
    process = await spawned(client, peer)
    waits = [_task(process.wait()) for _ in range(3)]
    await peer.send(exited(42, 143, "SIGTERM"))
    assert await asyncio.gather(*waits) == [Exit(143, "SIGTERM", False)] * 3
    assert await process.wait() == process.exit
    assert await handled(peer) == []


async def test_exit_in_the_same_read_as_the_answer_is_not_lost(client: AgentClient, peer: Peer) -> None:
    task = _task(client.spawn(command="true", stdout=False, stderr=False))
    id_, _ = await peer.receive_request("process.spawn")
    await peer.send(response(id_, {"pid": 5}) + exited(5, 137, "SIGKILL", oom=True))
    assert await (await task).wait() == Exit(137, "SIGKILL", True)


async def test_cancelled_wait_leaves_the_others(client: AgentClient, peer: Peer) -> None:
    process = await spawned(client, peer)
    cancelled, other = _task(process.wait()), _task(process.wait())
    await asyncio.sleep(0)
    cancelled.cancel()
    await peer.send(exited(42, 0))
    assert (await other).code == 0


async def test_kill(client: AgentClient, peer: Peer) -> None:
    process = await spawned(client, peer)
    task = _task(process.kill("SIGTERM", group=True))
    id_, params = await peer.receive_request("process.kill")
    assert params == {"pid": 42, "signal": "SIGTERM", "group": True}
    await peer.send(failure(id_, "ESRCH", "it has ended"))
    with pytest.raises(AgentError) as caught:
        await task
    assert caught.value.code == "ESRCH"


@pytest.mark.parametrize(
    "answer",
    [
        {"pid": 1},
        {"pid": 1, "stdout": 0},
        {"pid": 1, "stdout": 5, "stderr": 5},
        {"pid": 1, "stdout": 5, "stdin": 6},
        {"stdout": 5},
    ],
    ids=["stream missing", "stream 0", "stream twice", "stream too many", "no pid"],
)
async def test_answers_that_cannot_be_close_the_connection(
    answer: object, client: AgentClient, link: AgentLink, peer: Peer
) -> None:
    both = isinstance(answer, dict) and "stderr" in answer
    task = _task(client.spawn(command="x", stderr=both))
    id_, _ = await peer.receive_request("process.spawn")
    await peer.send(response(id_, answer))
    with pytest.raises(GuestUnreachable):
        await task
    await peer.closed()
    assert link.stats.protocol_errors == 1


async def test_cancelled_start_is_killed_and_its_streams_are_given_up(
    client: AgentClient, link: AgentLink, peer: Peer
) -> None:
    task = _task(client.spawn(command="x", stdin=True, stderr=False))
    id_, _ = await peer.receive_request("process.spawn")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await peer.send(response(id_, {"pid": 5, "stdin": 1, "stdout": 2}), frames.data(2, 0, b"on its way"))
    sent = await handled(peer)
    assert sent[0] == Detach(2)
    assert isinstance(sent[1], Reset)
    assert isinstance(sent[2], Request)
    assert sent[2].method == "process.kill"
    assert link.streams.output_pool.used_bytes == 0
    assert link.connected


async def test_re_dial_asks_for_exits_that_were_lost(
    client: AgentClient, link: AgentLink, peer: Peer
) -> None:
    ended = await spawned(client, peer, pid=1, stdout=False)
    running = await spawned(client, peer, pid=2, stdout=False)
    forgotten = await spawned(client, peer, pid=3, stdout=False)
    peer.close()
    again = await Peer.connect(link)
    id_, _ = await again.receive_request("process.list")
    listed: list[dict[str, Any]] = [
        {"pid": 1, "command": "x", "args": [], "started_ms": 1, "exit": {"code": 3}},
        {"pid": 2, "command": "x", "args": [], "started_ms": 1},
    ]
    await again.send(response(id_, {"processes": listed}))
    assert await ended.wait() == Exit(3, None, False)
    with pytest.raises(GuestUnreachable):
        await forgotten.wait()
    assert running.exit is None
    await again.send(exited(2, 0))
    assert (await running.wait()).code == 0


async def test_re_dial_asks_nothing_when_nothing_runs(
    link: AgentLink, client: AgentClient, peer: Peer
) -> None:
    process = await spawned(client, peer, stdout=False)
    await peer.send(exited(42, 0))
    await process.wait()
    peer.close()
    again = await Peer.connect(link)
    assert await handled(again) == []


async def test_answer_after_a_re_dial_asks_whether_it_has_ended(
    client: AgentClient, link: AgentLink, peer: Peer
) -> None:
    task = _task(client.spawn(command="x", stdout=False, stderr=False))
    await peer.receive_request("process.spawn")
    peer.close()
    again = await Peer.connect(link)
    id_, _ = await again.receive_request("process.spawn")
    await again.send(response(id_, {"pid": 6}))
    process = await task
    id_, _ = await again.receive_request("process.list")
    listed = [{"pid": 6, "command": "x", "args": [], "started_ms": 1, "exit": {"code": 9}}]
    await again.send(response(id_, {"processes": listed}))
    assert (await process.wait()).code == 9


async def test_new_agent_ends_waits(client: AgentClient, link: AgentLink, peer: Peer) -> None:
    process = await spawned(client, peer, stdout=False)
    waiting = _task(process.wait())
    await asyncio.sleep(0)
    peer.close()
    await Peer.connect(link, boot=b"another boot 16B")
    with pytest.raises(GuestUnreachable) as caught:
        await waiting
    assert caught.value.code == "AGENT_RESTARTED"


async def test_end_of_the_sandbox_ends_waits(client: AgentClient, link: AgentLink, peer: Peer) -> None:
    process = await spawned(client, peer, stdout=False)
    done = await spawned(client, peer, pid=43, stdout=False)
    await peer.send(exited(43, 1))
    await done.wait()
    link.close("out of memory")
    with pytest.raises(SandboxEnded):
        await process.wait()
    assert (await done.wait()).code == 1


async def test_pid_that_comes_again(client: AgentClient, peer: Peer) -> None:
    first = await spawned(client, peer)
    await peer.send(frames.data(STDOUT, 0, b"unread"), exited(42, 1), frames.end(STDOUT, 6))
    await first.wait()
    task = _task(client.spawn(command="x", stdout=False, stderr=False))
    id_, _ = await peer.receive_request("process.spawn")
    await peer.send(response(id_, {"pid": 42}))
    second = await task
    assert client.process(42) is second
    assert first.stdout is not None
    assert await first.stdout.read() == b"unread"


async def test_pid_that_comes_again_without_an_exit(client: AgentClient, peer: Peer) -> None:
    first = await spawned(client, peer, stdout=False)
    await spawned(client, peer, stdout=False)
    with pytest.raises(GuestUnreachable):
        await first.wait()


async def test_ended_processes_are_kept_up_to_a_bound(
    client: AgentClient, link: AgentLink, peer: Peer
) -> None:
    first = await spawned(client, peer)
    await peer.send(frames.data(STDOUT, 0, b"unread"), exited(42, 0))
    await first.wait()
    assert link.streams.output_pool.used_bytes > 0
    for pid in range(1000, 1000 + MAX_ENDED):
        await spawned(client, peer, pid=pid, stdout=False)
        await peer.send(exited(pid, 0))
    await until(lambda: client.process(42) is None)
    assert client.process(1000) is not None
    assert link.streams.output_pool.used_bytes == 0
    assert first.exit is not None


async def test_running_processes_are_bounded(
    client: AgentClient, peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("skerry.control.agent.client.MAX_RUNNING", 1)
    await spawned(client, peer, stdout=False)
    with pytest.raises(ResourceExhausted):
        await client.spawn(command="x")


async def test_adopt_after_a_restart(client: AgentClient, peer: Peer) -> None:
    task = _task(client.adopt())
    id_, _ = await peer.receive_request("process.list")
    common: dict[str, Any] = {"command": "x", "args": [], "started_ms": 5}
    listed = [
        common | {"pid": 1, "stdin": 4, "stdout": 5, "stderr": 6},
        common | {"pid": 2, "stdout": 7, "exit": {"code": 137, "signal": "SIGKILL", "oom": True}},
    ]
    await peer.send(response(id_, {"processes": listed}))
    id_, _ = await peer.receive_request("stream.list")
    known = {"kind": "output", "first": 0, "next": 9, "ended": False, "dropped": 0}
    await peer.send(response(id_, {"streams": [known | {"stream": 5}, known | {"stream": 7}]}))
    await task
    running, ended = client.process(1), client.process(2)
    assert isinstance(running, Process)
    assert isinstance(ended, Process)
    assert ended.exit == Exit(137, "SIGKILL", True)
    assert running.stdin is None
    assert running.stderr is None
    assert running.stdout is not None
    assert not running.stdout.attached
    running.stdout.attach(3)
    frame = await peer.receive()
    assert isinstance(frame, Attach)
    assert (frame.stream, frame.start) == (5, 3)
    await peer.send(frames.data(5, 3, b"rest"), frames.end(5, 7), exited(1, 0))
    assert await running.stdout.read() == b"rest"
    assert (await running.wait()).code == 0


async def test_exit_in_the_same_read_as_the_list_is_not_lost(client: AgentClient, peer: Peer) -> None:
    task = _task(client.adopt())
    id_, _ = await peer.receive_request("process.list")
    listed = [{"pid": 1, "command": "x", "args": [], "started_ms": 5}]
    await peer.send(response(id_, {"processes": listed}) + exited(1, 6))
    id_, _ = await peer.receive_request("stream.list")
    await peer.send(response(id_, {"streams": []}))
    await task
    process = client.process(1)
    assert process is not None
    assert (await process.wait()).code == 6


async def test_adopt_again_keeps_what_is_known(client: AgentClient, peer: Peer) -> None:
    process = await spawned(client, peer)
    task = _task(client.adopt())
    id_, _ = await peer.receive_request("process.list")
    info = {"pid": 42, "command": "x", "args": [], "started_ms": 5, "stdout": STDOUT, "exit": {"code": 4}}
    await peer.send(response(id_, {"processes": [info]}))
    id_, _ = await peer.receive_request("stream.list")
    await peer.send(response(id_, {"streams": []}))
    await task
    assert client.process(42) is process
    assert process.exit == Exit(4, None, False)


async def test_exit_of_a_process_that_nobody_knows(client: AgentClient, link: AgentLink, peer: Peer) -> None:
    await peer.send(exited(99, 0))
    assert await handled(peer) == []
    assert client.process(99) is None
    assert link.connected


async def test_environment_and_reclaim(client: AgentClient, peer: Peer) -> None:
    task = _task(client.env_all())
    id_, params = await peer.receive_request("env.all")
    assert params == {}
    await peer.send(response(id_, {"env": {"A": "1", "B": b"\xff"}}))
    assert await task == {"A": "1", "B": b"\xff"}
    task = _task(client.reclaim())
    id_, _ = await peer.receive_request("system.reclaim")
    await peer.send(response(id_, {"pid": None, "rss_bytes": 0}))
    assert await task == Reclaimed(pid=None, rss_bytes=0)


async def test_trust_is_installed(client: AgentClient, peer: Peer) -> None:
    task = _task(client.install_trust("CA", "ROOTS", env={"SSL_CERT_FILE": "/b"}))
    id_, params = await peer.receive_request("trust.install")
    assert params == {"certificate_pem": "CA", "extra_roots_pem": "ROOTS", "env": {"SSL_CERT_FILE": "/b"}}
    await peer.send(response(id_, {"system": False}))
    assert await task == TrustInstalled(system=False)
    task = _task(client.install_trust("CA"))
    id_, params = await peer.receive_request("trust.install")
    assert params == {"certificate_pem": "CA", "extra_roots_pem": ""}
    await peer.send(failure(id_, "EPERM", "no sandbox"))
    with pytest.raises(AgentError) as caught:
        await task
    assert caught.value.code == "EPERM"


async def test_input_of_an_ended_process_is_closed_unless_it_was_ended(
    client: AgentClient, peer: Peer
) -> None:
    process = await spawned(client, peer, stdin=True, stdout=False)
    assert process.stdin is not None
    process.stdin.end()
    await peer.send(exited(42, 0))
    await process.wait()
    assert await handled(peer) == [frames.End(STDIN, 0)]
    assert not process.stdin.failed
