"""WebSockets through inspection (G25)."""

import asyncio
import os
from pathlib import Path

import pytest
from msgspec import structs

from skerry.egress.websocket import (
    Control,
    Event,
    FrameReader,
    FrameWriter,
    Opcode,
    Piece,
    accept_value,
)
from skerry.policy.document import AllowRule, TlsChoice
from tests.harness.inspected import HOST, PLACEHOLDER, VALUE, Gateway, inspected, read_head, reason_of, secret
from tests.harness.waiting import until

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
AUTH = b"Authorization: Bearer " + PLACEHOLDER.encode() + b"\r\n"
HANDSHAKE = (
    b"GET /chat HTTP/1.1\r\nHost: api.example.com\r\nUpgrade: websocket\r\n"
    b"Connection: keep-alive, Upgrade\r\nSec-WebSocket-Key: " + KEY + b"\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Extensions: permessage-deflate\r\n%b\r\n"
)
SWITCH = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
    + accept_value(KEY)
    + b"\r\n\r\n"
)


class Peer:
    """One end of a WebSocket."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, client: bool, rest: bytes = b""
    ) -> None:
        self.writer = writer
        self._reader = reader
        self._frames = FrameReader(masked=not client)
        self._writing = FrameWriter(masked=client)
        self._events: list[Event] = self._frames.feed(rest)

    def send(
        self, data: bytes, opcode: Opcode = Opcode.TEXT, *, first: bool = True, last: bool = True
    ) -> None:
        """Say a message, or a part of one."""
        if opcode >= Opcode.CLOSE:
            self.writer.write(self._writing.write(Control(opcode, data)))
        else:
            self.writer.write(self._writing.write(Piece(opcode, data, first, last)))

    async def event(self) -> Event:
        """The next piece or control frame."""
        while not self._events:
            data = await self._reader.read(65536)
            assert data, "the connection has ended"
            self._events = self._frames.feed(data)
        return self._events.pop(0)

    async def message(self) -> bytes:
        """The next whole message."""
        data = b""
        while True:
            event = await self.event()
            if isinstance(event, Piece):
                data += event.data
                if event.last:
                    return data


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Switches, and repeats what it hears."""
    await read_head(reader)
    writer.write(SWITCH)
    peer = Peer(reader, writer, client=False)
    while True:
        event = await peer.event()
        if isinstance(event, Piece):
            peer.send(event.data, event.opcode, first=event.first, last=event.last)
        else:
            peer.send(event.data, Opcode.PONG if event.opcode is Opcode.PING else event.opcode)
            if event.opcode is Opcode.CLOSE:
                return
        await writer.drain()


async def open_websocket(gateway: Gateway, more: bytes = b"") -> Peer:
    """A client's end, after the handshake."""
    reader, writer = await gateway.connect()
    writer.write(HANDSHAKE % more)
    head = await read_head(reader)
    assert head.startswith(b"HTTP/1.1 101"), head
    return Peer(reader, writer, client=True)


async def test_messages_pass_both_ways(tmp_path: Path) -> None:
    async with inspected(echo, tmp_path, secrets=(secret(),)) as (gateway, origin):
        peer = await open_websocket(gateway, AUTH)
        assert b"Authorization: Bearer " + VALUE in origin.heard
        assert b"permessage-deflate" not in origin.heard
        peer.send(b"hello")
        assert await peer.message() == b"hello"
        big = os.urandom(1 << 20)
        peer.send(big, Opcode.BINARY)
        assert await peer.message() == big
        peer.send(b"p", Opcode.PING)
        assert await peer.event() == Control(Opcode.PONG, b"p")
        peer.send(b"one ", first=True, last=False)
        peer.send(b"two", first=False, last=True)
        assert await peer.message() == b"one two"
        peer.send(b"\x03\xe8", Opcode.CLOSE)
        assert await peer.event() == Control(Opcode.CLOSE, b"\x03\xe8")
        peer.writer.close()
        await until(lambda: gateway.told.of("response"), what="the line")
        assert gateway.told.of("response")[0]["status"] == 101


async def test_frames_that_come_with_the_handshake(tmp_path: Path) -> None:
    async def eager(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(SWITCH + FrameWriter(masked=False).write(Piece(Opcode.TEXT, b"welcome", True, True)))
        await reader.read()

    async with inspected(eager, tmp_path) as (gateway, _):
        peer = await open_websocket(gateway)
        assert await peer.message() == b"welcome"
        peer.writer.close()


@pytest.mark.parametrize("cut_at", [len(VALUE), 10])
async def test_what_an_origin_repeats_is_masked(tmp_path: Path, cut_at: int) -> None:
    async def telling(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(SWITCH)
        peer = Peer(reader, writer, client=False)
        peer.send(b"you are " + VALUE[:cut_at], last=False)
        await writer.drain()
        peer.send(VALUE[cut_at:] + b"!", first=False)
        peer.send(b"\x03\xe8" + VALUE, Opcode.CLOSE)
        await reader.read()

    async with inspected(telling, tmp_path, secrets=(secret(),)) as (gateway, _):
        peer = await open_websocket(gateway, AUTH)
        assert await peer.message() == b"you are " + b"*" * len(VALUE) + b"!"
        closing = await peer.event()
        assert VALUE not in closing.data
        peer.writer.close()
        await until(lambda: gateway.told.of("scrubbed"), what="the alert")


async def test_a_rule_without_websockets_refuses_them(tmp_path: Path) -> None:
    allow = (AllowRule(host=HOST, tls=TlsChoice.INSPECT),)
    async with inspected(echo, tmp_path, allow=allow) as (gateway, origin):
        assert reason_of(await gateway.ask(HANDSHAKE % b"")) == "websocket_not_allowed"
        assert origin.received == []


@pytest.mark.parametrize(
    "broken",
    [
        HANDSHAKE.replace(b"Version: 13", b"Version: 8"),
        HANDSHAKE.replace(KEY, b"short"),
        HANDSHAKE.replace(b"GET", b"POST"),
    ],
)
async def test_an_odd_handshake_is_not_sent_as_one(tmp_path: Path, broken: bytes) -> None:
    async with inspected(echo, tmp_path) as (gateway, origin):
        if b"POST" in broken:
            reader, writer = await gateway.connect()
            writer.write(broken % b"Content-Length: 0\r\n")
            await read_head(reader)
            assert b"pgrade" not in origin.heard
            writer.close()
        else:
            assert reason_of(await gateway.ask(broken % b"")) == "malformed_request"
            assert origin.received == []


@pytest.mark.parametrize(
    "answer",
    [
        SWITCH.replace(accept_value(KEY), accept_value(b"x" * 24)),
        SWITCH[:-2] + b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n",
        SWITCH.replace(b"Upgrade: websocket", b"Upgrade: other"),
    ],
)
async def test_an_origin_that_switches_to_something_else(tmp_path: Path, answer: bytes) -> None:
    async def odd(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(answer)
        await reader.read()

    async with inspected(odd, tmp_path) as (gateway, _):
        assert reason_of(await gateway.ask(HANDSHAKE % b"")) == "upstream_malformed"


async def test_a_switch_that_nobody_asked_for(tmp_path: Path) -> None:
    async def odd(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(SWITCH)
        await reader.read()

    async with inspected(odd, tmp_path) as (gateway, _):
        answer = await gateway.ask(b"GET / HTTP/1.1\r\nHost: api.example.com\r\n\r\n")
        assert reason_of(answer) == "upstream_malformed"


async def test_an_origin_may_decline(tmp_path: Path) -> None:
    async def declining(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
        await reader.read()

    async with inspected(declining, tmp_path) as (gateway, _):
        reader, writer = await gateway.connect()
        writer.write(HANDSHAKE % b"")
        assert (await read_head(reader)).startswith(b"HTTP/1.1 403")
        assert await reader.readexactly(2) == b"no"
        writer.close()


async def test_bytes_that_are_no_frames_close_it(tmp_path: Path) -> None:
    async with inspected(echo, tmp_path) as (gateway, origin):
        peer = await open_websocket(gateway)
        peer.writer.write(b"GET /smuggled HTTP/1.1\r\n\r\n")
        closing = await peer.event()
        assert isinstance(closing, Control)
        assert closing.opcode is Opcode.CLOSE
        await until(lambda: not gateway.flows)
        assert b"smuggled" not in origin.heard
        peer.writer.close()


async def test_a_rule_that_is_taken_back_ends_it(tmp_path: Path) -> None:
    async with inspected(echo, tmp_path) as (gateway, _):
        peer = await open_websocket(gateway)
        layer = gateway.rules.layers[0]
        document = structs.replace(layer.document, allow=(AllowRule(host=HOST, tls=TlsChoice.INSPECT),))
        gateway.adopt(
            structs.replace(gateway.rules, version=2, layers=(structs.replace(layer, document=document),))
        )
        await until(lambda: not gateway.flows, what="the end of the WebSocket")
        peer.writer.close()


@pytest.mark.parametrize("on_stray", ["forward", "block", "kill"])
async def test_a_placeholder_in_a_message(tmp_path: Path, on_stray: str) -> None:
    async with inspected(echo, tmp_path, secrets=(secret(on_stray=on_stray),)) as (gateway, origin):
        peer = await open_websocket(gateway, AUTH)
        before = len(origin.heard)
        message = b"my key is " + PLACEHOLDER.encode()
        peer.send(message)
        if on_stray == "forward":
            # As it is, in both directions.
            assert await peer.message() == message
            peer.writer.close()
        await until(lambda: not gateway.flows)
        assert (len(origin.heard) > before) == (on_stray == "forward")
        assert gateway.told.of("response")[0]["strays"] == ["body:KEY"]
        assert gateway.told.cut == (["KEY"] if on_stray == "kill" else [])
        peer.writer.close()
