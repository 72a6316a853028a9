"""Secrets on their way: put in, recorded before, searched for in what comes back, changed while in use."""

import asyncio
import gzip
import os
import time
from pathlib import Path

import pytest
from msgspec import structs

from skerry.egress.worker.audit import CONFIRM_S
from skerry.policy.document import AllowRule, Budget
from tests.harness.inspected import (
    HOST,
    PLACEHOLDER,
    VALUE,
    inspected,
    read_body,
    read_head,
    reason_of,
    secret,
)
from tests.harness.waiting import until

KEY = PLACEHOLDER.encode()
AUTH = b"Authorization: Bearer " + KEY + b"\r\n"
REAL = b"Authorization: Bearer " + VALUE + b"\r\n"
GET = b"GET /a HTTP/1.1\r\nHost: api.example.com\r\n" + AUTH + b"\r\n"
ANOTHER = b"another-value-0123456789-abcdef"


def saying(head: bytes, body: bytes, *more: bytes):  # type: ignore[no-untyped-def]
    """An origin that answers so, to every request."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await read_body(reader, await read_head(reader))
            writer.write(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n" + body)
            for piece in more:
                await writer.drain()
                await asyncio.sleep(0.01)
                writer.write(piece)

    return handler


def with_length(body: bytes):  # type: ignore[no-untyped-def]
    return saying(b"Content-Length: %d\r\n" % len(body), body)


async def test_the_value_is_in_its_slot_and_lengths_stay_right(tmp_path: Path) -> None:
    async with inspected(with_length(b"ok"), tmp_path, secrets=(secret(),)) as (gateway, origin):
        reader, writer = await gateway.connect()
        body = b'{"prompt": "' + KEY + b'"}'
        writer.write(
            b"POST /a HTTP/1.1\r\nHost: api.example.com\r\n"
            + AUTH
            + b"Content-Length: %d\r\n\r\n" % len(body)
        )
        writer.write(body)
        assert await read_body(reader, await read_head(reader)) == b"ok"
        assert REAL in origin.heard
        # In a body it stays what it is.
        assert b"Content-Length: %d\r\n" % len(body) in origin.heard
        assert origin.heard.endswith(body)
        assert gateway.told.used == ["KEY"]
        writer.close()
        await until(lambda: gateway.told.of("response"))
        assert gateway.told.of("response")[0]["strays"] == ["body:KEY"]


async def test_it_is_recorded_before_it_is_sent(tmp_path: Path) -> None:
    async with inspected(with_length(b"ok"), tmp_path, secrets=(secret(),)) as (gateway, origin):
        gateway.channel.deaf = True
        reader, writer = await gateway.connect()
        writer.write(GET)
        await until(lambda: gateway.told.of("request"), what="the line")
        line = gateway.told.of("request")[0]
        assert line["secrets"] == [{"name": "KEY", "slot": "header:authorization"}]
        assert origin.heard == b""
        gateway.audit.written(int(str(line["seq"])))
        assert await read_body(reader, await read_head(reader)) == b"ok"
        writer.close()


async def test_what_cannot_be_recorded_is_not_sent(tmp_path: Path) -> None:
    async with inspected(with_length(b"ok"), tmp_path, secrets=(secret(),)) as (gateway, origin):
        gateway.channel.full = True
        answer = await gateway.ask(GET)
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert reason_of(answer) == "audit_unavailable"
        assert origin.heard == b""


async def test_what_is_not_confirmed_in_time_is_not_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("skerry.egress.worker.audit.CONFIRM_S", CONFIRM_S / 1e6)
    async with inspected(with_length(b"ok"), tmp_path, secrets=(secret(),)) as (gateway, origin):
        gateway.channel.deaf = True
        reader, writer = await gateway.connect()
        writer.write(GET)
        await until(lambda: gateway.told.of("request"), what="the line")
        await asyncio.sleep(0.001)
        gateway.audit.tick()
        assert reason_of(await reader.read()) == "audit_unavailable"
        assert origin.heard == b""
        writer.close()


async def test_no_line_holds_value_or_placeholder(tmp_path: Path) -> None:
    async with inspected(with_length(VALUE), tmp_path, secrets=(secret(),)) as (gateway, _):
        reader, writer = await gateway.connect()
        writer.write(GET)
        await read_body(reader, await read_head(reader))
        writer.close()
        await until(lambda: gateway.told.of("scrubbed"))
        text = str(gateway.told.lines)
        assert VALUE.decode() not in text
        assert PLACEHOLDER not in text


@pytest.mark.parametrize(
    "handler",
    [
        pytest.param(with_length(b"you sent " + VALUE + b" to me"), id="body"),
        pytest.param(saying(b"X-Echo: Bearer " + VALUE + b"\r\nContent-Length: 0\r\n", b""), id="header"),
        pytest.param(
            saying(
                b"Transfer-Encoding: chunked\r\n",
                b"5\r\nyou: \r\na\r\n" + VALUE[:10] + b"\r\n",
                b"%x\r\n" % len(VALUE[10:]) + VALUE[10:] + b"\r\n0\r\n\r\n",
            ),
            id="chunks",
        ),
        pytest.param(
            saying(b"Transfer-Encoding: chunked\r\n", b"1\r\na\r\n0\r\nX-Sum: " + VALUE + b"\r\n\r\n"),
            id="trailer",
        ),
        pytest.param(
            saying(
                b"Content-Encoding: gzip\r\nContent-Length: %d\r\n"
                % len(gzip.compress(b"you sent " + VALUE)),
                gzip.compress(b"you sent " + VALUE),
            ),
            id="gzip",
        ),
    ],
)
async def test_an_echo_is_masked(tmp_path: Path, handler: object) -> None:
    async with inspected(handler, tmp_path, secrets=(secret(),)) as (gateway, origin):  # type: ignore[arg-type]
        text = await gateway.ask(
            GET[:-2] + b"Accept-Encoding: gzip, br\r\nRange: bytes=0-9\r\nConnection: close\r\n\r\n"
        )
        assert text.startswith(b"HTTP/1.1 200")
        assert b"*****" in text
        assert VALUE not in text
        assert VALUE[:12] not in text
        assert b"Range" not in origin.heard
        assert b"Accept-Encoding: gzip, identity\r\n" in origin.heard
        await until(lambda: gateway.told.of("scrubbed"), what="the alert")


async def test_an_echo_of_an_earlier_secret_is_masked_for_the_rest_of_the_connection(tmp_path: Path) -> None:
    async with inspected(with_length(VALUE), tmp_path, secrets=(secret(),)) as (gateway, _):
        reader, writer = await gateway.connect()
        for request in (GET, GET.replace(AUTH, b"")):
            writer.write(request)
            assert VALUE not in await read_body(reader, await read_head(reader))
        writer.close()


@pytest.mark.parametrize(("scrub", "masked"), [("on", False), ("always", True), ("off", False)])
async def test_when_answers_are_searched(tmp_path: Path, scrub: str, masked: bool) -> None:
    async with inspected(with_length(VALUE), tmp_path, secrets=(secret(scrub=scrub),)) as (gateway, _):
        reader, writer = await gateway.connect()
        writer.write(GET.replace(AUTH, b""))
        assert (VALUE not in await read_body(reader, await read_head(reader))) == masked
        writer.close()


async def test_what_cannot_be_searched_is_not_passed(tmp_path: Path) -> None:
    handler = saying(b"Content-Encoding: br\r\nContent-Length: 3\r\n", b"abc")
    async with inspected(handler, tmp_path, secrets=(secret(),)) as (gateway, _):
        answer = await gateway.ask(GET)
        assert answer.startswith(b"HTTP/1.1 502 ")
        assert reason_of(answer) == "undecodable_for_scrub"


async def test_a_compressed_answer_that_grows_is_read_as_fast_as_the_client_reads(tmp_path: Path) -> None:
    body = gzip.compress(b"".join(os.urandom(50) * 100 for _ in range(8_000)))
    handler = saying(b"Content-Encoding: gzip\r\nContent-Length: %d\r\n" % len(body), body)
    async with inspected(handler, tmp_path, secrets=(secret(),)) as (gateway, _):
        _, writer = await gateway.connect()
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(GET)
        await until(lambda: any(one.client.full for one in gateway.inspection._connections))
        connection = next(iter(gateway.inspection._connections))
        assert connection.client.backlog < 500_000
        writer.transport.abort()
        await until(lambda: not gateway.flows)


async def test_a_secret_is_not_sent_with_a_method_that_repeats_it(tmp_path: Path) -> None:
    async with inspected(with_length(b""), tmp_path, secrets=(secret(),)) as (gateway, origin):
        assert reason_of(await gateway.ask(GET.replace(b"GET", b"OPTIONS"))) == "secret_not_for_this_request"
        assert origin.heard == b""


async def test_budgets(tmp_path: Path) -> None:
    budget = Budget(requests=2, concurrent=1)
    async with inspected(with_length(b"ok"), tmp_path, secrets=(secret(budget=budget),)) as (gateway, _):
        reader, writer = await gateway.connect()
        for _ in range(2):
            writer.write(GET)
            assert await read_body(reader, await read_head(reader)) == b"ok"
        writer.write(GET)
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 429 ")
        assert reason_of(answer) == "budget_exhausted"
        writer.close()


async def test_a_request_that_failed_gives_its_place_back(tmp_path: Path) -> None:
    budget = Budget(concurrent=1)

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)

    async with inspected(handler, tmp_path, secrets=(secret(budget=budget),)) as (gateway, _):
        for _ in range(3):
            assert reason_of(await gateway.ask(GET)) == "upstream_unreachable"


async def test_rates_of_a_rule(tmp_path: Path) -> None:
    allow = (AllowRule(host=HOST, requests_per_min=20),)
    async with inspected(with_length(b"ok"), tmp_path, allow=allow) as (gateway, _):
        reader, writer = await gateway.connect()
        for _ in range(2):
            writer.write(GET.replace(AUTH, b""))
            assert await read_body(reader, await read_head(reader)) == b"ok"
        writer.write(GET.replace(AUTH, b""))
        assert reason_of(await reader.read()) == "rate_limited"
        writer.close()


@pytest.mark.parametrize(("on_stray", "cut"), [("block", []), ("kill", ["KEY"])])
async def test_a_placeholder_in_a_body_can_be_refused(tmp_path: Path, on_stray: str, cut: list[str]) -> None:
    async with inspected(with_length(b"ok"), tmp_path, secrets=(secret(on_stray=on_stray),)) as (
        gateway,
        origin,
    ):
        answer = await gateway.ask(
            b"POST / HTTP/1.1\r\nHost: api.example.com\r\nContent-Length: 88\r\n\r\n" + KEY
        )
        assert reason_of(answer) == "stray_placeholder"
        assert KEY not in origin.heard
        assert gateway.told.cut == cut


async def test_a_rotated_secret_is_used_from_the_next_request_on(tmp_path: Path) -> None:
    async with inspected(with_length(b"ok"), tmp_path, secrets=(secret(),)) as (gateway, origin):
        reader, writer = await gateway.connect()
        writer.write(GET)
        assert await read_body(reader, await read_head(reader)) == b"ok"
        gateway.adopt(structs.replace(gateway.rules, version=2, secrets=(secret(value=ANOTHER),)))
        # On the old connection the old value could come back.
        assert await reader.read() == b""
        writer.close()
        reader, writer = await gateway.connect()
        writer.write(GET)
        assert await read_body(reader, await read_head(reader)) == b"ok"
        assert ANOTHER in origin.heard
        writer.close()


async def streaming(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """An answer that has no end."""
    await read_head(reader)
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"5\r\ntick\n\r\n")
        await writer.drain()
        await asyncio.sleep(0.005)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"secrets": (secret(value=None, state="revoked"),)}, id="revoked"),
        pytest.param({"secrets": ()}, id="gone"),
    ],
)
async def test_a_stream_that_carries_a_revoked_secret_is_cut(
    tmp_path: Path, change: dict[str, object]
) -> None:
    async with inspected(streaming, tmp_path, secrets=(secret(),)) as (gateway, _):
        reader, writer = await gateway.connect()
        writer.write(GET)
        await read_head(reader)
        gateway.adopt(structs.replace(gateway.rules, version=2, **change))
        await until(lambda: not gateway.flows, what="the end of the stream")
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await reader.readuntil(b"0\r\n\r\n")
        writer.close()


async def test_a_stream_whose_secret_was_rotated_goes_on(tmp_path: Path) -> None:
    async with inspected(streaming, tmp_path, secrets=(secret(),)) as (gateway, _):
        reader, writer = await gateway.connect()
        writer.write(GET)
        await read_head(reader)
        gateway.adopt(structs.replace(gateway.rules, version=2, secrets=(secret(value=ANOTHER),)))
        for _ in range(3):
            await reader.readuntil(b"tick\n\r\n")
        assert gateway.flows
        writer.close()


async def test_a_policy_that_got_narrower_ends_what_it_does_not_allow(tmp_path: Path) -> None:
    async with inspected(streaming, tmp_path) as (gateway, _):
        reader, writer = await gateway.connect()
        writer.write(GET.replace(AUTH, b""))
        await read_head(reader)
        narrow = gateway.rules.layers[0]
        document = structs.replace(narrow.document, allow=(AllowRule(host=HOST, paths=("/b",)),))
        gateway.adopt(
            structs.replace(gateway.rules, version=2, layers=(structs.replace(narrow, document=document),))
        )
        await until(lambda: not gateway.flows, what="the end of the stream")
        writer.close()


async def test_the_same_request_again_is_decided_by_the_rules_of_its_time(tmp_path: Path) -> None:
    async with inspected(with_length(b"ok"), tmp_path) as (gateway, origin):
        reader, writer = await gateway.connect()
        request = GET.replace(AUTH, b"")
        for _ in range(3):
            writer.write(request)
            assert await read_body(reader, await read_head(reader)) == b"ok"
        layer = gateway.rules.layers[0]
        document = structs.replace(layer.document, allow=(AllowRule(host=HOST, paths=("/b",)),))
        gateway.adopt(
            structs.replace(gateway.rules, version=2, layers=(structs.replace(layer, document=document),))
        )
        writer.write(request)
        assert reason_of(await reader.read()) == "path_not_allowed"
        assert origin.heard == request * 3
        writer.close()


async def test_a_secret_that_expires_meanwhile_is_not_sent_again(tmp_path: Path) -> None:
    expires_at_ms = gateway_now_ms() + 400
    async with inspected(with_length(b"ok"), tmp_path, secrets=(secret(expires_at_ms=expires_at_ms),)) as (
        gateway,
        origin,
    ):
        reader, writer = await gateway.connect()
        writer.write(GET)
        assert await read_body(reader, await read_head(reader)) == b"ok"
        await until(lambda: gateway_now_ms() > expires_at_ms)
        writer.write(GET)
        assert reason_of(await reader.read()) == "secret_expired"
        assert origin.heard.count(VALUE) == 1
        writer.close()


def gateway_now_ms() -> int:
    return time.time_ns() // 1_000_000


async def test_a_change_that_is_none_of_a_connections_business_leaves_it(tmp_path: Path) -> None:
    async with inspected(with_length(b"ok"), tmp_path, secrets=(secret(),)) as (gateway, _):
        reader, writer = await gateway.connect()
        writer.write(GET)
        assert await read_body(reader, await read_head(reader)) == b"ok"
        # As the broker sends it again: with what has been used meanwhile, and another secret.
        changed = (structs.replace(secret(), used=7), secret("MORE", ANOTHER))
        gateway.adopt(structs.replace(gateway.rules, version=2, secrets=changed))
        writer.write(GET)
        assert await read_body(reader, await read_head(reader)) == b"ok"
        writer.close()
