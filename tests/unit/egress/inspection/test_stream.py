"""One end of a connection: what is kept, what is told, how it ends."""

import asyncio
import socket
import ssl
import time
from dataclasses import dataclass, field

import pytest
import uvloop

from skerry.egress.ca import make_authority
from skerry.egress.worker.denial import reset
from skerry.egress.worker.inspect_certificates import Certificates
from skerry.egress.worker.inspect_stream import Listener, Stream
from skerry.egress.worker.inspect_tls import Tls
from tests.harness.inspected import HOST, ID
from tests.harness.waiting import until
from tests.unit.egress.worker.test_denial import connected

BUFFER_BYTES = 100_000


@dataclass
class Told:
    """What a stream tells."""

    received: bytearray = field(default_factory=bytearray)
    ended: list[bool] = field(default_factory=list)
    drained: int = 0

    def listener(self) -> Listener:
        return Listener(self.received.extend, self.ended.append, self._count)

    def has_ended(self) -> bool:
        return bool(self.ended)

    def _count(self) -> None:
        self.drained += 1


def pair() -> tuple[socket.socket, socket.socket]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    return ours, theirs


def plain(sock: socket.socket) -> tuple[Stream, Told]:
    told = Told()
    stream = Stream(sock, None, BUFFER_BYTES)
    stream.listen(told.listener())
    return stream, told


async def encrypted() -> tuple[Stream, Told, socket.socket, Tls]:
    """A server's stream, and the client's end of it."""
    now_ms = time.time_ns() // 1_000_000
    authority = make_authority(ID, None, now_ms)
    ours, theirs = pair()
    server = Tls(Certificates(authority, 1).context(HOST, now_ms), server_side=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=authority.certificate_pem)
    client = Tls(context, server_name=HOST)

    async def greet() -> None:
        await client.handshake(theirs)
        # Together with the end of the handshake.
        theirs.send(client.encrypt(b"early"))

    async with asyncio.TaskGroup() as group:
        group.create_task(greet())
        group.create_task(server.handshake(ours))
    told = Told()
    stream = Stream(ours, server, BUFFER_BYTES)
    stream.listen(told.listener())
    return stream, told, theirs, client


def take_all(sock: socket.socket) -> bytes:
    """What has arrived."""
    data = b""
    while True:
        try:
            more = sock.recv(1 << 20)
        except BlockingIOError:
            return data
        if not more:
            return data
        data += more


async def test_nothing_is_read_while_it_is_paused() -> None:
    ours, theirs = pair()
    stream, told = plain(ours)
    theirs.send(b"one")
    stream.resume()
    await until(lambda: told.received == b"one")
    stream.pause()
    theirs.send(b"two")
    await asyncio.sleep(0.01)
    assert told.received == b"one"
    stream.resume()
    await until(lambda: told.received == b"onetwo")
    theirs.close()
    await until(lambda: told.ended == [True])
    stream.close()


async def test_what_does_not_fit_is_kept_and_its_end_is_told() -> None:
    ours, theirs = pair()
    stream, told = plain(ours)
    data = bytes(range(256)) * 8_000
    stream.write(data)
    assert stream.full
    assert stream.backlog + stream.sent_bytes == len(data)
    got = b""
    while len(got) < len(data):
        got += take_all(theirs)
        await asyncio.sleep(0)
    assert got == data
    await until(lambda: told.drained == 1)
    assert stream.backlog == 0
    stream.close()
    theirs.close()


async def test_what_a_peer_said_before_it_reset_the_connection_is_still_read() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    ours = socket.create_connection(listener.getsockname())
    theirs, _ = listener.accept()
    ours.setblocking(False)
    stream, told = plain(ours)
    theirs.send(b"413 too large")
    ours.send(b"x")
    await asyncio.sleep(0.01)
    theirs.close()  # with something unread: a reset
    await asyncio.sleep(0.01)
    for _ in range(3):
        stream.write(bytes(100_000))
    assert stream.broken
    assert stream.backlog == 0
    stream.resume()
    await until(lambda: told.ended)
    assert told.received == b"413 too large"
    assert told.ended == [False]
    stream.close()
    listener.close()


async def test_finishing_sends_what_waits() -> None:
    ours, theirs = pair()
    stream, _ = plain(ours)
    data = bytes(1_000_000)
    stream.write(data)
    got = bytearray()

    async def read() -> None:
        while len(got) < len(data):
            got.extend(take_all(theirs))
            await asyncio.sleep(0)
        theirs.close()

    async with asyncio.TaskGroup() as group:
        group.create_task(stream.finish(5))
        group.create_task(read())
    assert bytes(got) == data
    assert stream.closed


async def test_finishing_gives_up_a_peer_that_does_not_read() -> None:
    ours, theirs = pair()
    stream, _ = plain(ours)
    stream.write(bytes(1_000_000))
    await stream.finish(0.02)
    assert stream.closed
    assert ours.fileno() == -1
    theirs.close()


async def test_what_came_with_the_handshake_is_not_lost() -> None:
    stream, told, theirs, _ = await encrypted()
    stream.resume()
    await until(lambda: told.received == b"early")
    stream.close()
    theirs.close()


async def test_a_goodbye_is_told_from_a_cut() -> None:
    for says_goodbye in (True, False):
        stream, told, theirs, client = await encrypted()
        stream.resume()
        if says_goodbye:
            theirs.send(client.goodbye())
        theirs.close()
        await until(told.has_ended)
        assert told.ended == [says_goodbye]
        stream.close()


async def test_closing_says_goodbye_and_aborting_does_not() -> None:
    for close in (True, False):
        stream, _, theirs, client = await encrypted()
        stream.write(b"bye")
        if close:
            stream.close()
        else:
            stream.abort()
        assert client.decrypt(take_all(theirs)) == b"bye"
        assert client.ended == close
        theirs.close()


async def test_bytes_that_are_no_tls_end_it() -> None:
    stream, told, theirs, _ = await encrypted()
    stream.resume()
    await until(lambda: told.received == b"early")
    theirs.send(b"GET / HTTP/1.1\r\n\r\n")
    await until(lambda: told.ended == [False])
    stream.close()
    theirs.close()


@pytest.mark.parametrize("size", [1, 16_384, 16_385, 1_000_000])
async def test_any_amount_passes_encrypted(size: int) -> None:
    stream, told, theirs, client = await encrypted()
    stream.resume()
    data = bytes(index % 251 for index in range(size))
    rest = memoryview(client.encrypt(data))
    while rest:
        try:
            rest = rest[theirs.send(rest) :]
        except BlockingIOError:
            await asyncio.sleep(0)
    await until(lambda: len(told.received) == size + 5)
    assert told.received == b"early" + data
    stream.write(data)
    got = b""
    while len(got) < size:
        got += client.decrypt(take_all(theirs))
        await asyncio.sleep(0)
    assert got == data
    stream.close()
    theirs.close()


def test_a_reset_that_comes_with_the_last_bytes_is_told() -> None:
    """On the loop that workers have: it tells of a reset once, together with what came before."""

    async def last_words() -> None:
        ours, theirs = connected()
        stream, told = plain(ours)
        theirs.send(b"last words")
        reset(theirs)
        stream.resume()
        await until(told.has_ended)
        assert (bytes(told.received), told.ended) == (b"last words", [False])
        stream.abort()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(last_words())
