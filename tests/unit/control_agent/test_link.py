"""Which connection counts, and requests that run once."""

import asyncio

import pytest
from msgspec import Struct

from skerry.control.agent import AgentClient, AgentLink
from skerry.control.agent.connection import HELLO_DEADLINE_S
from skerry.control.agent.requests import Answer
from skerry.errors import AgentError, GuestUnreachable, InvalidRequest, ResourceExhausted, SandboxEnded
from skerry.protocol import frames, messages
from skerry.protocol.messages import MAX_UNANSWERED_REQUESTS, EnvAll, Nothing, Spawned, Stat
from tests.harness.agent_peer import BOOT, Peer, exited, failure, hello, ping, response, until


class _Echo(Struct, frozen=True):
    text: str


def _ask(link: AgentLink, text: str = "hi", timeout_s: float = 10.0) -> "asyncio.Task[Spawned]":
    return asyncio.get_running_loop().create_task(
        link.request("test", _Echo(text), Spawned, timeout_s=timeout_s)
    )


async def test_welcome_names_generation_epoch_and_window(link: AgentLink) -> None:
    peer = await Peer.dial(link)
    await peer.hello()
    assert await peer.receive() == messages.Welcome(1, 7, 60_000)
    assert link.connected
    assert link.agent_boot == BOOT


async def test_request_and_answer(link: AgentLink, peer: Peer) -> None:
    task = _ask(link)
    assert await peer.receive_request("test") == (1, {"text": "hi"})
    await peer.send(response(1, {"pid": 42}))
    assert await task == Spawned(42)


async def test_failure_becomes_agent_error(link: AgentLink, peer: Peer) -> None:
    task = _ask(link)
    await peer.receive_request("test")
    await peer.send(failure(1, "ENOENT", "no such file"))
    with pytest.raises(AgentError) as caught:
        await task
    assert (caught.value.code, caught.value.message) == ("ENOENT", "no such file")


async def test_answers_in_any_order_and_acked(link: AgentLink, peer: Peer) -> None:
    tasks = [_ask(link, str(n)) for n in range(3)]
    for id_ in (1, 2, 3):
        assert (await peer.receive_request("test"))[0] == id_
    await peer.send(response(3, {"pid": 3}), response(2, {"pid": 2}))
    assert (await tasks[2]).pid == 3
    late = _ask(link, "later")
    frame = await peer.receive()
    assert isinstance(frame, messages.Request)
    assert (frame.id, frame.acked) == (4, 0)
    await peer.send(response(1, {"pid": 1}), response(4, {"pid": 4}))
    assert [(await task).pid for task in (*tasks, late)] == [1, 2, 3, 4]
    last = _ask(link)
    frame = await peer.receive()
    assert isinstance(frame, messages.Request)
    assert (frame.id, frame.acked) == (5, 4)
    last.cancel()


async def test_large_request_is_split_and_read_back(link: AgentLink, peer: Peer) -> None:
    text = "x" * 600_000
    task = _ask(link, text)
    assert await peer.receive_request("test") == (1, {"text": text})
    await peer.send(response(1, {"pid": 1}))
    assert (await task).pid == 1


async def test_too_large_request_is_refused_and_nothing_is_sent(link: AgentLink, peer: Peer) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await link.request("test", _Echo("x" * (8 << 20)), Spawned, timeout_s=5)
    assert caught.value.code == "TOO_LARGE"
    task = _ask(link)
    id_, _ = await peer.receive_request("test")
    await peer.send(response(id_, {"pid": 1}))
    assert (await task).pid == 1


async def test_answer_in_parts(link: AgentLink, peer: Peer) -> None:
    task = asyncio.get_running_loop().create_task(link.request("env.all", Nothing(), EnvAll, timeout_s=5))
    await peer.receive_request("env.all")
    await peer.send(response(1, {"env": {"A": "x" * 600_000}}))
    assert (await task).env == {"A": "x" * 600_000}


async def test_answer_too_large_to_decode_fails_only_the_request(link: AgentLink, peer: Peer) -> None:
    task = asyncio.get_running_loop().create_task(link.request("env.all", Nothing(), EnvAll, timeout_s=5))
    await peer.receive_request("env.all")
    await peer.send(response(1, {"env": {"A": "x" * (5 << 20)}}))
    with pytest.raises(ResourceExhausted):
        await task
    assert link.connected


async def test_unanswered_requests_are_sent_again_with_the_same_bytes(link: AgentLink, peer: Peer) -> None:
    tasks = [_ask(link, str(n)) for n in range(3)]
    before = [await peer.receive() for _ in range(3)]
    await peer.send(response(2, {"pid": 2}))
    assert (await tasks[1]).pid == 2
    peer.close()
    again = await Peer.connect(link)
    assert [await again.receive() for _ in range(2)] == [before[0], before[2]]
    await again.send(response(1, {"pid": 1}), response(3, {"pid": 3}))
    assert [(await task).pid for task in tasks] == [1, 2, 3]
    assert link.stats.reconnects == 1


async def test_requests_made_without_connection_wait_for_one(link: AgentLink) -> None:
    task = _ask(link)
    await asyncio.sleep(0)
    peer = await Peer.connect(link)
    assert (await peer.receive_request("test"))[0] == 1
    await peer.send(response(1, {"pid": 1}))
    assert (await task).pid == 1


async def test_answer_to_an_answered_request_is_ignored(link: AgentLink, peer: Peer) -> None:
    task = _ask(link)
    await peer.receive_request("test")
    await peer.send(response(1, {"pid": 1}), response(1, {"pid": 2}), ping())
    assert (await task).pid == 1
    assert isinstance(await peer.receive(), frames.Pong)


@pytest.mark.parametrize("answered_first", [False, True])
async def test_result_that_nobody_waits_for_is_abandoned(
    answered_first: bool, link: AgentLink, peer: Peer
) -> None:
    abandoned: list[int] = []

    def accept(answer: Answer[Spawned]) -> int:
        if answered_first:
            # The answer is there, but the caller has not run since.
            task.cancel()
        return answer.value.pid

    task: asyncio.Task[int] = asyncio.get_running_loop().create_task(
        link.calls.call("test", Nothing(), Spawned, timeout_s=5, accept=accept, abandon=abandoned.append)
    )
    await peer.receive_request("test")
    if not answered_first:
        task.cancel()
    await peer.send(response(1, {"pid": 9}), ping())
    await peer.receive()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert abandoned == [9]


async def test_no_answer_in_time(link: AgentLink, peer: Peer) -> None:
    with pytest.raises(GuestUnreachable, match="did not answer test within"):
        await link.request("test", Nothing(), Spawned, timeout_s=0.01)
    # The agent may still run it: it stays unanswered, and is sent again after a re-dial.
    assert link.unanswered == 1


async def test_no_agent_in_time_leaves_nothing_to_be_sent(link: AgentLink) -> None:
    with pytest.raises(GuestUnreachable, match="not connected"):
        await link.request("test", Nothing(), Spawned, timeout_s=0.01)
    assert link.unanswered == 0
    with pytest.raises(GuestUnreachable, match="did not connect"):
        await link.wait_connected(0.01)


async def test_shorter_deadline_behind_a_longer_one(link: AgentLink, peer: Peer) -> None:
    long = _ask(link, timeout_s=60)
    with pytest.raises(GuestUnreachable):
        await link.request("test", Nothing(), Spawned, timeout_s=0.01)
    assert not long.done()
    long.cancel()


async def test_more_requests_than_allowed_wait_their_turn(link: AgentLink, peer: Peer) -> None:
    tasks = [_ask(link, timeout_s=30) for _ in range(MAX_UNANSWERED_REQUESTS + 2)]
    for _ in range(MAX_UNANSWERED_REQUESTS):
        await peer.receive_request("test")
    assert link.unanswered == MAX_UNANSWERED_REQUESTS
    await peer.send(response(5, {"pid": 5}))
    id_, _ = await peer.receive_request("test")
    assert id_ == MAX_UNANSWERED_REQUESTS + 1
    for task in tasks:
        task.cancel()


async def test_waiting_for_a_turn_has_a_deadline(link: AgentLink, peer: Peer) -> None:
    tasks = [_ask(link, timeout_s=30) for _ in range(MAX_UNANSWERED_REQUESTS)]
    await asyncio.sleep(0)
    with pytest.raises(GuestUnreachable):
        await link.request("test", Nothing(), Spawned, timeout_s=0.01)
    for task in tasks:
        task.cancel()


async def test_close_fails_everything_that_waits(link: AgentLink, peer: Peer) -> None:
    task = _ask(link)
    await peer.receive_request("test")
    link.close("out of memory")
    with pytest.raises(SandboxEnded) as caught:
        await task
    assert caught.value.reason == "out of memory"
    with pytest.raises(SandboxEnded):
        await link.request("test", Nothing(), Spawned, timeout_s=1)
    with pytest.raises(SandboxEnded):
        await link.wait_connected(1)
    assert await peer.closed() == []
    await (await Peer.dial(link)).closed()


async def test_close_wakes_those_who_wait_for_a_connection(link: AgentLink) -> None:
    waiting = asyncio.get_running_loop().create_task(link.wait_connected(10))
    await asyncio.sleep(0)
    link.close("killed")
    with pytest.raises(SandboxEnded):
        await waiting


async def test_wait_connected(link: AgentLink) -> None:
    waiting = asyncio.get_running_loop().create_task(link.wait_connected(10))
    await asyncio.sleep(0)
    await Peer.connect(link)
    await waiting
    await link.wait_connected(0)


async def test_newcomer_with_the_same_key_replaces(link: AgentLink, peer: Peer) -> None:
    newcomer = await Peer.connect(link)
    await peer.closed()
    task = _ask(link)
    await newcomer.receive_request("test")
    await newcomer.send(response(1, {"pid": 1}))
    assert (await task).pid == 1


async def test_newcomer_with_another_key_is_closed_while_one_lives(link: AgentLink, peer: Peer) -> None:
    newcomer = await Peer.dial(link)
    await newcomer.hello(key=b"other key, 16 B.")
    assert await newcomer.closed() == []
    await peer.send(ping())
    assert isinstance(await peer.receive(), frames.Pong)
    assert link.stats.refused_connections == 1


async def test_second_pending_connection_is_closed_at_once(link: AgentLink, peer: Peer) -> None:
    pending = await Peer.dial(link)
    assert await (await Peer.dial(link)).closed() == []
    await pending.hello()
    assert isinstance(await pending.receive(), messages.Welcome)


async def test_new_agent_fails_requests_that_the_old_one_saw(link: AgentLink, peer: Peer) -> None:
    seen = _ask(link, "seen")
    await peer.receive_request("test")
    peer.close()
    await until(lambda: not link.connected)
    unseen = _ask(link, "unseen")
    await asyncio.sleep(0)
    other = await Peer.connect(link, boot=b"another boot 16B", key=b"another key 16B.")
    with pytest.raises(GuestUnreachable) as caught:
        await seen
    assert caught.value.code == "AGENT_RESTARTED"
    assert await other.receive_request("test") == (2, {"text": "unseen"})
    await other.send(response(2, {"pid": 2}))
    assert (await unseen).pid == 2


async def test_another_key_after_the_connection_broke_is_the_same_agent_by_its_boot(
    link: AgentLink, peer: Peer
) -> None:
    task = _ask(link)
    await peer.receive_request("test")
    peer.close()
    await until(lambda: not link.connected)
    again = await Peer.connect(link, key=b"another key 16B.")
    await again.receive_request("test")
    await again.send(response(1, {"pid": 1}))
    assert (await task).pid == 1


async def test_hello_must_come_first_and_only_once(link: AgentLink) -> None:
    wrong = await Peer.dial(link)
    await wrong.send(ping())
    assert await wrong.closed() == []
    twice = await Peer.connect(link)
    await twice.send(hello())
    assert await twice.closed() == []
    later = await Peer.dial(link)
    await later.send(hello(generations=(2,)))
    assert await later.closed() == []
    assert link.stats.protocol_errors == 3


async def test_hello_in_time(link: AgentLink, monkeypatch: pytest.MonkeyPatch) -> None:
    assert HELLO_DEADLINE_S == 2.0
    monkeypatch.setattr("skerry.control.agent.connection.HELLO_DEADLINE_S", 0.01)
    slow = await Peer.dial(link)
    await slow.send(hello()[:20])
    assert await slow.closed() == []
    assert link.stats.protocol_errors == 1
    await Peer.connect(link)


async def test_frames_split_anywhere(link: AgentLink) -> None:
    peer = await Peer.dial(link)
    for byte in hello() + ping():
        await peer.send(bytes([byte]))
        await asyncio.sleep(0)
    assert isinstance(await peer.receive(), messages.Welcome)
    assert isinstance(await peer.receive(), frames.Pong)


async def test_many_frames_in_one_read_are_all_handled_in_turns(link: AgentLink, peer: Peer) -> None:
    await peer.send(ping() * 1000)
    for _ in range(1000):
        assert isinstance(await peer.receive(), frames.Pong)
    assert link.stats.frames_in == 1001


async def test_malformed_answer_fails_the_request_and_the_connection(link: AgentLink, peer: Peer) -> None:
    task = _ask(link)
    await peer.receive_request("test")
    await peer.send(response(1, {"pid": "x"}))
    with pytest.raises(GuestUnreachable, match="malformed"):
        await task
    await peer.closed()
    again = await Peer.connect(link)
    await again.send(ping())
    assert isinstance(await again.receive(), frames.Pong)


async def test_stat_is_decoded_whole(link: AgentLink, client: AgentClient, peer: Peer) -> None:
    task = asyncio.get_running_loop().create_task(client.stat("/x", follow=False))
    assert await peer.receive_request("fs.stat") == (1, {"path": "/x", "follow": False})
    value = {name: 1 for name in Stat.__struct_fields__} | {"kind": "file"}
    await peer.send(response(1, value))
    assert (await task).birthtime_ns == 1


async def test_exit_without_a_client_is_ignored(link: AgentLink, peer: Peer) -> None:
    await peer.send(exited(1, 0), ping())
    assert isinstance(await peer.receive(), frames.Pong)
