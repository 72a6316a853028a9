"""HTTP in clear: the same policy, and never a secret."""

import asyncio
import socket
import struct
from pathlib import Path

import pytest
from msgspec import structs

from skerry.policy.document import AllowRule
from tests.harness.inspected import (
    PLACEHOLDER,
    inspected,
    read_body,
    read_head,
    reason_of,
    secret,
)
from tests.harness.waiting import until

GET = b"GET /a HTTP/1.1\r\nHost: api.example.com\r\n\r\n"


async def obliging(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers everything."""
    while True:
        await read_body(reader, await read_head(reader))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


async def test_requests_pass(tmp_path: Path) -> None:
    async with inspected(obliging, tmp_path, tls=False, port=80) as (gateway, origin):
        reader, writer = await gateway.connect_plain()
        for _ in range(3):
            writer.write(GET)
            assert await read_body(reader, await read_head(reader)) == b"ok"
        assert origin.heard == GET * 3
        writer.close()


async def test_the_end_of_a_clients_stream_is_not_the_end_of_its_request(tmp_path: Path) -> None:
    async with inspected(obliging, tmp_path, tls=False, port=80) as (gateway, _):
        reader, writer = await gateway.connect_plain()
        writer.write(GET)
        writer.write_eof()
        assert (await reader.read()).endswith(b"\r\n\r\nok")
        writer.close()


async def test_other_names_are_refused(tmp_path: Path) -> None:
    async with inspected(obliging, tmp_path, tls=False, port=80) as (gateway, origin):
        answer = await gateway.ask(GET.replace(b"api", b"evil"), tls=False)
        assert reason_of(answer) == "name_mismatch"
        assert origin.received == []


async def test_a_host_with_a_secret_is_not_reached_in_clear(tmp_path: Path) -> None:
    async with inspected(obliging, tmp_path, tls=False, port=80, secrets=(secret(),)) as (gateway, origin):
        assert reason_of(await gateway.ask(GET, tls=False)) == "plaintext_to_bound_host"
        assert origin.received == []


async def test_a_host_that_gets_a_secret_is_not_reached_in_clear_any_more(tmp_path: Path) -> None:
    async with inspected(obliging, tmp_path, tls=False, port=80) as (gateway, origin):
        reader, writer = await gateway.connect_plain()
        writer.write(GET)
        assert await read_body(reader, await read_head(reader)) == b"ok"
        gateway.adopt(structs.replace(gateway.rules, version=2, secrets=(secret(),)))
        writer.write(GET)
        assert reason_of(await reader.read()) == "plaintext_to_bound_host"
        assert origin.heard == GET
        writer.close()


async def test_a_placeholder_of_another_host_stays_one_and_is_recorded(tmp_path: Path) -> None:
    allow = (AllowRule(host="plain.example.com", ports=(80,)),)
    async with inspected(
        obliging, tmp_path, tls=False, host="plain.example.com", port=80, allow=allow, secrets=(secret(),)
    ) as (gateway, origin):
        reader, writer = await gateway.connect_plain()
        placeholder = PLACEHOLDER.encode()
        writer.write(
            GET.replace(b"api", b"plain")[:-2] + b"Authorization: Bearer " + placeholder + b"\r\n\r\n"
        )
        assert await read_body(reader, await read_head(reader)) == b"ok"
        assert placeholder in origin.heard
        writer.close()
        await until(lambda: gateway.told.of("response"))
        assert gateway.told.of("response")[0]["strays"] == ["header:authorization:KEY"]


async def test_a_client_of_the_proxy_gets_one_answer_on_a_connection(tmp_path: Path) -> None:
    async with inspected(obliging, tmp_path, tls=False, port=80) as (gateway, origin):
        gateway.via_proxy = True
        answer = await gateway.ask(GET.replace(b"/a", b"http://api.example.com/a") * 2, tls=False)
        assert answer.count(b"HTTP/1.1 200 OK") == 1
        assert b"Connection: close" in answer
        assert origin.heard == GET


async def test_an_answer_that_is_cut_is_a_reset(tmp_path: Path) -> None:
    got_some = asyncio.Event()

    async def cutting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.0 200 OK\r\n\r\nsome")
        await got_some.wait()
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    async with inspected(cutting, tmp_path, tls=False, port=80) as (gateway, _):
        reader, writer = await gateway.connect_plain()
        writer.write(b"GET / HTTP/1.0\r\nHost: api.example.com\r\n\r\n")
        await reader.readuntil(b"some")
        got_some.set()
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()
