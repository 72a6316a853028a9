"""Requests and answers through inspection: framing, streaming, order, truncation (G18 to G24, G28 to G31)."""

import asyncio
import gzip
import hashlib
import os
import socket
import ssl
from pathlib import Path

import pytest

from skerry.policy.document import AllowRule
from skerry.spec.settings import EgressLimits
from tests.harness.inspected import HOST, inspected, read_body, read_head, reason_of
from tests.harness.waiting import until

GET = b"GET /a?b=c HTTP/1.1\r\nHost: api.example.com\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def answering(*answers: bytes, close: bool = False):  # type: ignore[no-untyped-def]
    """An origin that reads a request and gives the next answer."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in answers:
            await read_body(reader, await read_head(reader))
            writer.write(answer)
            await writer.drain()
        if not close:
            await reader.read()

    return handler


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers with the request's head and body."""
    while True:
        head = await read_head(reader)
        body = await read_body(reader, head)
        text = head + body
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(text) + text)
        await writer.drain()


async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Numbers its answers."""
    number = 0
    while True:
        await read_head(reader)
        text = b"%d" % number
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(text) + text)
        number += 1


async def test_a_message_passes_as_it_is(tmp_path: Path) -> None:
    request = (
        b"POST /p%41th?q=1&q=2 HTTP/1.1\r\nHOST: API.example.com:443\r\n"
        b"x-a: 1\r\nX-B: two  words\r\nx-a: 3\r\nCookie: a=b; c=d\r\nContent-Length: 5\r\n\r\nhello"
    )
    answer = (
        b"HTTP/1.1 201 Made So\r\nSet-Cookie: a=1\r\nset-cookie: b=2\r\nX-Odd-Case: 1\r\n"
        b"Content-Length: 3\r\n\r\nyes"
    )
    async with inspected(answering(answer), tmp_path) as (gateway, origin):
        reader, writer = await gateway.connect()
        writer.write(request)
        assert await reader.readexactly(len(answer)) == answer
        assert origin.heard == request
        writer.close()


async def test_alt_svc_is_taken_out(tmp_path: Path) -> None:
    answer = b'HTTP/1.1 200 OK\r\nAlt-Svc: h3=":443"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n'
    async with inspected(answering(answer), tmp_path) as (gateway, _):
        assert b"lt-svc" not in (await gateway.ask(GET)).lower()


async def test_a_thousand_requests_on_one_connection(tmp_path: Path) -> None:
    async with inspected(count, tmp_path) as (gateway, origin):
        reader, writer = await gateway.connect()
        for number in range(1_000):
            writer.write(GET)
            assert await read_body(reader, await read_head(reader)) == b"%d" % number
        writer.close()
        assert len(origin.received) == 1
        assert len(gateway.told.of("response")) == 1_000


async def test_pipelined_requests_are_answered_in_order(tmp_path: Path) -> None:
    async with inspected(count, tmp_path) as (gateway, _):
        reader, writer = await gateway.connect()
        writer.write(GET * 50)
        for number in range(50):
            assert await read_body(reader, await read_head(reader)) == b"%d" % number
        writer.close()


async def test_a_pipelined_request_that_is_refused_ends_the_connection(tmp_path: Path) -> None:
    other = GET.replace(b"api.", b"evil.")
    async with inspected(count, tmp_path) as (gateway, origin):
        answer = await gateway.ask(GET + other + GET)
        first, _, rest = answer.partition(b"\r\n\r\n0")
        assert first.startswith(b"HTTP/1.1 200")
        assert reason_of(rest) == "name_mismatch"
        assert origin.heard.count(b"GET") == 1


@pytest.mark.parametrize("chunked", [False, True])
async def test_bodies_pass_both_ways_unchanged(tmp_path: Path, chunked: bool) -> None:
    body = os.urandom(3_000_000)

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        got = await read_body(reader, await read_head(reader))
        assert hashlib.sha256(got).digest() == hashlib.sha256(body).digest()
        if chunked:
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            for at in range(0, len(body), 70_000):
                piece = body[at : at + 70_000]
                writer.write(b"%x;ext=1\r\n%b\r\n" % (len(piece), piece))
            writer.write(b"0\r\nX-Sum: 1\r\n\r\n")
        else:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        await writer.drain()
        await reader.read()

    async with inspected(handler, tmp_path) as (gateway, _):
        reader, writer = await gateway.connect()
        if chunked:
            writer.write(b"PUT / HTTP/1.1\r\nHost: api.example.com\r\nTransfer-Encoding: chunked\r\n\r\n")
            for at in range(0, len(body), 50_000):
                piece = body[at : at + 50_000]
                writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            writer.write(b"0\r\n\r\n")
        else:
            writer.write(b"PUT / HTTP/1.1\r\nHost: api.example.com\r\nContent-Length: %d\r\n\r\n" % len(body))
            writer.write(body)
        head = await read_head(reader)
        assert await read_body(reader, head) == body
        writer.close()


async def test_trailers_pass(tmp_path: Path) -> None:
    head = b"HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n"
    answer = head + b"1\r\na\r\n0\r\nX-Sum: 7\r\n\r\n"
    async with inspected(answering(answer), tmp_path) as (gateway, _):
        reader, writer = await gateway.connect()
        writer.write(GET)
        assert await reader.readexactly(len(answer)) == answer
        writer.close()


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        (b"HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"),
        (b"GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
        (b"GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 1000\r\nETag: x\r\n\r\n"),
    ],
)
async def test_answers_without_a_body(tmp_path: Path, method: bytes, answer: bytes) -> None:
    async with inspected(answering(answer, OK), tmp_path) as (gateway, _):
        reader, writer = await gateway.connect()
        writer.write(GET.replace(b"GET", method))
        assert await reader.readexactly(len(answer)) == answer
        writer.write(GET)
        assert await reader.readexactly(len(OK)) == OK
        writer.close()


async def test_http_1_0_works_with_its_close(tmp_path: Path) -> None:
    answer = b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nall of it"
    async with inspected(answering(answer, close=True), tmp_path) as (gateway, origin):
        got = await gateway.ask(b"GET / HTTP/1.0\r\nHost: api.example.com\r\n\r\n")
        assert got.startswith(b"HTTP/1.1 200 OK\r\n")
        assert got.endswith(b"\r\n\r\nall of it")
        assert b"chunked" not in got
        assert origin.heard.startswith(b"GET / HTTP/1.0\r\n")


async def test_a_body_that_ends_with_the_connection_gets_an_end_of_its_own(tmp_path: Path) -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nall of it"
    async with inspected(answering(answer, close=True), tmp_path) as (gateway, _):
        reader, writer = await gateway.connect()
        writer.write(GET)
        head = await read_head(reader)
        assert b"Connection: close" in head
        assert await read_body(reader, head) == b"all of it"
        assert await reader.read() == b""
        writer.close()


@pytest.mark.parametrize(
    "begun",
    [
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort", id="length"),
        pytest.param(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n", id="chunks"),
        pytest.param(b"HTTP/1.1 200 OK\r\n\r\nshort", id="close"),
    ],
)
async def test_what_the_origin_cuts_is_cut_for_the_client(tmp_path: Path, begun: bytes) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(begun)
        await writer.drain()
        writer.transport.abort()

    async with inspected(handler, tmp_path) as (gateway, _):
        client = asyncio.get_running_loop()
        got = await client.run_in_executor(None, _read_until_cut, gateway.port, gateway.roots)
        assert b"short" in got
        assert b"\r\n0\r\n\r\n" not in got
        assert gateway.told.of("response")[0]["reason"] == "upstream_unreachable"


def _read_until_cut(port: int, roots: ssl.SSLContext) -> bytes:
    """What a client gets before the connection breaks; fails when it ends properly."""
    with (
        socket.create_connection(("127.0.0.1", port), timeout=10) as sock,
        roots.wrap_socket(sock, server_hostname=HOST, suppress_ragged_eofs=False) as tls,
    ):
        tls.sendall(GET)
        got = b""
        while True:
            try:
                data = tls.recv(65536)
            except ssl.SSLEOFError:
                return got
            assert data, "the connection was closed as if all had been said"
            got += data


async def test_an_origin_that_goes_away_before_it_answers(tmp_path: Path) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)

    async with inspected(handler, tmp_path) as (gateway, _):
        assert reason_of(await gateway.ask(GET)) == "upstream_unreachable"


async def test_an_origin_that_hangs_up_between_requests_ends_the_client_connection_silently(
    tmp_path: Path,
) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(OK)
        await read_head(reader)

    async with inspected(handler, tmp_path) as (gateway, _):
        reader, writer = await gateway.connect()
        writer.write(GET)
        await reader.readexactly(len(OK))
        writer.write(GET)
        # Clients repeat what they may repeat; an answer of ours would keep them from it.
        assert await reader.read() == b""
        writer.close()


async def test_continue_is_relayed_and_then_the_body(tmp_path: Path) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await read_head(reader)
        assert b"100-continue" in head
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert await read_body(reader, head) == b"12345"
        writer.write(OK)
        await reader.read()

    async with inspected(handler, tmp_path) as (gateway, _):
        reader, writer = await gateway.connect()
        writer.write(
            b"PUT / HTTP/1.1\r\nHost: api.example.com\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
        )
        assert (await read_head(reader)).startswith(b"HTTP/1.1 100")
        writer.write(b"12345")
        assert await reader.readexactly(len(OK)) == OK
        writer.close()


@pytest.mark.parametrize("status", [413, 417])
async def test_a_final_answer_instead_of_continue(tmp_path: Path, status: int) -> None:
    answer = b"HTTP/1.1 %d No\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno" % status

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(answer)
        await writer.drain()

    async with inspected(handler, tmp_path) as (gateway, _):
        got = await gateway.ask(
            b"PUT / HTTP/1.1\r\nHost: api.example.com\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
        )
        assert got == answer


async def test_a_final_answer_while_the_body_is_still_sent(tmp_path: Path) -> None:
    answer = b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno"

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(answer)
        await writer.drain()

    async with inspected(handler, tmp_path) as (gateway, _):
        reader, writer = await gateway.connect()
        writer.write(b"PUT / HTTP/1.1\r\nHost: api.example.com\r\nContent-Length: 100000000\r\n\r\n")
        for _ in range(40):
            writer.write(bytes(10_000))
            await asyncio.sleep(0)
        assert await reader.readexactly(len(answer)) == answer
        writer.close()


async def test_early_hints_are_relayed_and_never_taken_for_the_answer(tmp_path: Path) -> None:
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n"
    async with inspected(answering(hints + OK), tmp_path) as (gateway, _):
        reader, writer = await gateway.connect()
        writer.write(GET)
        assert await reader.readexactly(len(hints + OK)) == hints + OK
        writer.close()


async def test_an_event_arrives_before_the_next_one_is_sent(tmp_path: Path) -> None:
    go_on = asyncio.Event()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        for number in range(5):
            event = b"data: %d\n\n" % number
            writer.write(b"%x\r\n%b\r\n" % (len(event), event))
            await go_on.wait()
            go_on.clear()
        writer.write(b"0\r\n\r\n")
        await reader.read()

    async with inspected(handler, tmp_path) as (gateway, _):
        reader, writer = await gateway.connect()
        writer.write(GET)
        await read_head(reader)
        for number in range(5):
            assert await reader.readline() == b"9\r\n"
            assert await reader.readexactly(11) == b"data: %d\n\n\r\n" % number
            go_on.set()
        assert await reader.readexactly(5) == b"0\r\n\r\n"
        writer.close()


async def test_a_client_that_does_not_read_makes_the_origin_wait(tmp_path: Path) -> None:
    sent = 0

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 200000000\r\n\r\n")
        while True:
            writer.write(bytes(100_000))
            await writer.drain()
            sent += 100_000

    async with inspected(handler, tmp_path) as (gateway, _):
        reader, writer = await gateway.connect()
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(GET)
        await until(lambda: sent and _full(gateway), what="a full buffer")
        before = sent
        connection = next(iter(gateway.inspection._connections))
        assert connection.client.backlog < 600_000
        for _ in range(20):
            await asyncio.sleep(0.01)
        assert sent - before < 10_000_000  # what sockets and TLS of the test still take
        writer.transport.resume_reading()  # type: ignore[attr-defined]
        await read_head(reader)
        got = 0
        while got < 20_000_000:
            got += len(await reader.read(1 << 20))
        writer.close()


def _full(gateway) -> bool:  # type: ignore[no-untyped-def]
    return any(one.client.full for one in gateway.inspection._connections)


async def test_an_origin_that_does_not_read_makes_the_client_wait(tmp_path: Path) -> None:
    read_on = asyncio.Event()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_on.wait()

    async with inspected(handler, tmp_path) as (gateway, _):
        _, writer = await gateway.connect()
        writer.write(b"PUT / HTTP/1.1\r\nHost: api.example.com\r\nContent-Length: 100000000\r\n\r\n")
        await until(lambda: gateway.inspection._connections, what="a connection")
        connection = next(iter(gateway.inspection._connections))
        for _ in range(400):
            writer.write(bytes(100_000))
        await until(lambda: connection.origin is not None, what="an origin")
        assert connection.origin is not None
        assert connection.origin.backlog < 600_000
        writer.transport.abort()
        read_on.set()


async def test_a_client_that_leaves_ends_the_origins_connection(tmp_path: Path) -> None:
    left = asyncio.Event()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
        await reader.read()
        left.set()

    async with inspected(handler, tmp_path) as (gateway, _):
        reader, writer = await gateway.connect()
        writer.write(GET)
        await read_head(reader)
        writer.transport.abort()
        await left.wait()
        await until(lambda: not gateway.flows, what="the end of the flow")


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
        b"HTTP/1.1 200 OK\r\nX: a\x00b\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    ],
)
async def test_a_malformed_answer_is_a_bad_gateway(tmp_path: Path, answer: bytes) -> None:
    async with inspected(answering(answer), tmp_path) as (gateway, _):
        assert reason_of(await gateway.ask(GET)) == "upstream_malformed"


async def test_an_answer_that_nobody_asked_for_is_given_to_nobody(tmp_path: Path) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(OK + b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\npoisoned")
        await reader.read()

    async with inspected(handler, tmp_path) as (gateway, _):
        reader, writer = await gateway.connect()
        writer.write(GET)
        assert await reader.readexactly(len(OK)) == OK
        writer.write(GET)
        assert b"poisoned" not in await reader.read()
        writer.close()


async def test_compression_is_not_touched_without_a_secret(tmp_path: Path) -> None:
    body = gzip.compress(b"text" * 1000)
    answer = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    request = GET[:-2] + b"Accept-Encoding: br, zstd, gzip\r\nRange: bytes=0-\r\nTE: trailers\r\n\r\n"
    async with inspected(answering(answer), tmp_path) as (gateway, origin):
        reader, writer = await gateway.connect()
        writer.write(request)
        assert await reader.readexactly(len(answer)) == answer
        assert b"Accept-Encoding: br, zstd, gzip\r\nRange: bytes=0-\r\n" in origin.heard
        writer.close()


async def test_bodies_may_not_be_longer_than_the_rule_says(tmp_path: Path) -> None:
    allow = (AllowRule(host=HOST, max_request_bytes=10, max_response_bytes=1000),)
    put = b"PUT / HTTP/1.1\r\nHost: api.example.com\r\n"
    async with inspected(echo, tmp_path, allow=allow) as (gateway, origin):
        assert reason_of(await gateway.ask(put + b"Content-Length: 11\r\n\r\n")) == "body_too_large"
        assert origin.heard == b""
        chunks = put + b"Transfer-Encoding: chunked\r\n\r\n6\r\n123456\r\n6\r\n123456\r\n0\r\n\r\n"
        assert reason_of(await gateway.ask(chunks)) == "body_too_large"
        long = GET.replace(b"/a?b=c", b"/" + b"a" * 2000)
        assert reason_of(await gateway.ask(long)) == "body_too_large"
        assert (await gateway.ask(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))).startswith(
            b"HTTP/1.1 200"
        )


@pytest.mark.parametrize(
    ("setting", "sent", "reason"),
    [
        ("head_s", b"GET / HTTP/1.1\r\nHo", "timed_out"),
        (
            "body_grace_s",
            b"PUT / HTTP/1.1\r\nHost: api.example.com\r\nContent-Length: 9\r\n\r\n1",
            "timed_out",
        ),
        ("response_s", GET, "timed_out"),
        ("idle_s", b"", None),
    ],
)
async def test_nobody_waits_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str, sent: bytes, reason: str | None
) -> None:
    monkeypatch.setattr("skerry.egress.worker.inspect.TICK_S", 0.01)
    limits = EgressLimits(**{setting: 0.05})  # type: ignore[arg-type]

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with inspected(silent, tmp_path, limits=limits) as (gateway, _):
        got = await gateway.ask(sent)
        assert (reason_of(got) if reason is not None else got) == (reason or b"")
        await until(lambda: not gateway.flows, what="the end of the flow")


async def test_an_origin_that_speaks_unasked_ends_the_connection_silently(tmp_path: Path) -> None:
    speak = asyncio.Event()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(OK)
        await speak.wait()
        writer.write(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n")
        await reader.read()

    async with inspected(handler, tmp_path) as (gateway, _):
        reader, writer = await gateway.connect()
        writer.write(GET)
        assert await reader.readexactly(len(OK)) == OK
        speak.set()
        assert await reader.read() == b""
        writer.close()
