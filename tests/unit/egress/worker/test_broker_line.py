"""The line to the broker: order, bounds, its end."""

import asyncio
import os
import socket
from collections.abc import Iterator

import msgspec
import pytest

from skerry.egress.messages import Adopted, FromWorker, Line, Lines, Rules, Stop, ToWorker, Used, Written
from skerry.egress.worker.broker_line import BrokerGone, BrokerLine, Usage, first_rules
from skerry.policy.document import AllowRule
from tests.harness.waiting import until
from tests.unit.egress.worker.parts import allow, bench, rules

decode = msgspec.msgpack.Decoder(FromWorker).decode
encode = msgspec.msgpack.encode


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        yield ours, theirs


class Told:
    """What a line tells the worker."""

    def __init__(self) -> None:
        self.messages: list[ToWorker] = []
        self.gone = 0

    def note_gone(self) -> None:
        self.gone += 1


def line_on(sock: socket.socket, told: Told, most: int = 100) -> BrokerLine:
    sock.setblocking(False)
    return BrokerLine(sock, most=most, on_message=told.messages.append, on_gone=told.note_gone)


Ends = tuple[socket.socket, socket.socket]


async def test_messages_both_ways(ends: Ends) -> None:
    ours, theirs = ends
    told = Told()
    line = line_on(theirs, told)
    ours.send(encode(rules(allow("a.test"))))
    ours.send(encode(Written(3)))
    await until(lambda: len(told.messages) == 2)
    assert isinstance(told.messages[0], Rules)
    line.send(Adopted(1))
    assert decode(ours.recv(1000)) == Adopted(1)
    line.close()


async def test_what_does_not_fit_waits_in_order_and_within_a_bound(ends: Ends) -> None:
    ours, theirs = ends
    line = line_on(theirs, Told(), most=2_000)
    sent = 0
    while line.room() > 0:
        sent += 1
        line.send(Line(sent, b"x" * 500))
    assert line.room() == 0
    line.send(Adopted(7))
    seqs: list[int] = []
    ours.setblocking(False)
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(10):
        while not isinstance(message := decode(await loop.sock_recv(ours, 65_536)), Adopted):
            assert isinstance(message, Lines)
            seqs += [one.seq for one in message.lines]
    assert seqs == list(range(1, sent + 1))
    assert line.room() == 2_000
    line.close()


async def test_lines_that_come_about_together_are_sent_together(ends: Ends) -> None:
    ours, theirs = ends
    ours.setblocking(False)
    line = line_on(theirs, Told())
    loop = asyncio.get_running_loop()
    line.send(Line(1, b"{}"))
    line.send(Line(2, b"{}", True))
    line.send(Adopted(3))
    line.send(Line(4, b"{}"))
    got = [decode(await loop.sock_recv(ours, 1000)) for _ in range(3)]
    assert got == [Lines((Line(1, b"{}"), Line(2, b"{}", True))), Adopted(3), Line(4, b"{}")]
    assert line.room() == 100
    line.close()


@pytest.mark.parametrize("last", [b"", b"\xc1nonsense"], ids=["hung up", "nonsense"])
async def test_the_end_is_told_once(ends: Ends, last: bytes) -> None:
    ours, theirs = ends
    told = Told()
    line = line_on(theirs, told)
    if last:
        ours.send(last)
    else:
        ours.close()
    await until(lambda: told.gone)
    line.send(Adopted(1))
    line.close()
    assert told.gone == 1
    assert line.room() == 0


async def test_last_words(ends: Ends) -> None:
    ours, theirs = ends
    line = line_on(theirs, Told())
    line.send(Line(1, b"{}"))
    line.finish()
    assert decode(ours.recv(100)) == Line(1, b"{}")
    assert ours.recv(100) == b""


def test_first_rules(ends: Ends) -> None:
    ours, theirs = ends
    wanted = rules(AllowRule(host="a.test"))
    ours.send(encode(wanted))
    assert first_rules(theirs) == wanted
    for other in (encode(Stop()), b"nonsense"):
        ours.send(other)
        with pytest.raises(BrokerGone):
            first_rules(theirs)
    ours.close()
    with pytest.raises(BrokerGone):
        first_rules(theirs)


def test_uses_are_counted() -> None:
    sent: list[Used] = []
    usage = Usage(sent.append)
    usage.tick()
    usage.count("A")
    usage.count("A")
    usage.count("B")
    usage.tick()
    usage.tick()
    assert sent == [Used({"A": 2, "B": 1})]


async def test_a_worker_that_cannot_go_by_new_rules_ends() -> None:
    broken = rules(AllowRule(host="not a host"), version=2)
    async with bench(rules(allow("a.test")), expected_status=os.EX_SOFTWARE) as around:
        around.tell(broken)
        async with asyncio.timeout(5):
            await around.ended.wait()
        assert around.adopted == [1]
