"""What the sandbox is told."""

import asyncio
import json
import re
import socket

import pytest

from skerry.egress.worker import denial
from skerry.egress.worker.readiness import readable, send_all
from skerry.policy.verdict import Reason


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_has_words_and_a_status(reason: Reason) -> None:
    head, _, body = denial.response(reason, "req_0123456789abcdef", "do this").partition(b"\r\n\r\n")
    status = int(head.split(b" ")[1])
    told = json.loads(body)
    assert status == denial.status(reason)
    assert f"Content-Length: {len(body)}".encode() in head
    assert told["reason"] == reason
    assert told["request_id"] == "req_0123456789abcdef"
    assert told["owner_action"] == "do this"
    assert told["message"]
    failed = status in {400, 421} or status >= 500
    assert told["error"] == ("egress_failed" if failed else "egress_denied")


def test_request_ids() -> None:
    ids = {denial.new_request_id() for _ in range(100)}
    assert len(ids) == 100
    assert all(re.fullmatch(r"req_[0-9a-f]{16}", one) for one in ids)


def test_no_body_in_answer_to_head() -> None:
    assert denial.response(Reason.SELF, "req_1", with_body=False).endswith(b"\r\n\r\n")


def test_http2_is_told_in_frames() -> None:
    data = denial.http2_goaway(Reason.HTTP2_NOT_SUPPORTED, "req_1")
    frames = []
    while data:
        size = int.from_bytes(data[:3], "big")
        frames.append((data[3], data[9 : 9 + size]))
        data = data[9 + size :]
    assert [kind for kind, _ in frames] == [4, 7]
    assert frames[1][1][4:8] == b"\0\0\0\x0d"
    assert json.loads(frames[1][1][8:])["reason"] == "http2_not_supported"


def connected() -> tuple[socket.socket, socket.socket]:
    """Both ends of a TCP connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
    for sock in (client, server):
        sock.setblocking(False)
    return client, server


async def test_a_client_that_still_sends_can_read_what_it_is_told() -> None:
    client, server = connected()
    with client:
        async with asyncio.TaskGroup() as group:
            group.create_task(denial.say_and_close(server, b"no"))
            await send_all(client, b"x" * 300_000)
            await readable(client)
            assert client.recv(100) == b"no"
            client.shutdown(socket.SHUT_WR)
        assert server.fileno() == -1
        assert client.recv(100) == b""


async def test_a_client_that_never_ends_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(denial, "LONGEST_FAREWELL_S", 0.05)
    client, server = connected()
    with client:
        await denial.say_and_close(server, b"no")
        assert server.fileno() == -1
        assert client.recv(10) == b"no"
        assert client.recv(10) == b""
        with pytest.raises(BrokenPipeError):
            client.send(b"more")
