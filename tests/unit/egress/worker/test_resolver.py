"""The stub resolver against a resolver that behaves, misbehaves, or is not there."""

import asyncio
import socket
from ipaddress import ip_address

import dns.message
import dns.rcode
import pytest

from skerry.egress.worker import resolver as resolver_module
from skerry.egress.worker.dns_messages import (
    LONGEST_TTL_S,
    NEGATIVE_TTL_S,
    SHORTEST_TTL_S,
    Found,
    Kind,
    Outcome,
    question,
    read,
)
from skerry.egress.worker.resolver import Endpoint, ResolveFailed, Resolver, endpoints
from tests.unit.egress.worker.parts import NameServer
from tests.unit.egress.worker.test_limits import Time

RECORDS = {"a.test": ["192.0.2.1", "192.0.2.2", "2001:db8::1"], "four.test": ["192.0.2.4"]}


def resolver(*servers: str, clock: Time | None = None) -> Resolver:
    return Resolver(endpoints(servers, ""), clock or Time())


async def test_addresses_of_both_kinds() -> None:
    async with NameServer(RECORDS).run() as server:
        asking = resolver(server.address)
        four = await asking.resolve("a.test", Kind.A)
        six = await asking.resolve("a.test", Kind.AAAA)
    assert set(four.addresses) == {ip_address("192.0.2.1"), ip_address("192.0.2.2")}
    assert four.ttl_s == 60
    assert six == Found((ip_address("2001:db8::1"),), 60)


async def test_letter_case_is_random() -> None:
    name = "a" * 60 + ".test"
    async with NameServer({name: ["192.0.2.1"]}).run() as server:
        asking = resolver(server.address)
        await asking.resolve(name, Kind.A)
    (asked, _, _) = server.asked[0]
    assert asked.lower() == name
    assert asked not in (name, name.upper())


@pytest.mark.parametrize(
    ("ttl_s", "kept_s"), [(0, SHORTEST_TTL_S), (60, 60), (100_000, LONGEST_TTL_S)], ids=["0", "60", "long"]
)
async def test_answers_are_kept_within_bounds(ttl_s: int, kept_s: int) -> None:
    clock = Time()
    async with NameServer(RECORDS, ttl_s).run() as server:
        asking = resolver(server.address, clock=clock)
        await asking.resolve("a.test", Kind.A)
        clock.now_s += kept_s - 0.1
        await asking.resolve("a.test", Kind.A)
        assert len(server.asked) == 1
        clock.now_s += 0.2
        await asking.resolve("a.test", Kind.A)
        assert len(server.asked) == 2


async def test_what_is_not_there_is_kept_too() -> None:
    clock = Time()
    async with NameServer(RECORDS).run() as server:
        asking = resolver(server.address, clock=clock)
        assert await asking.resolve("nobody.test", Kind.A) == Found((), NEGATIVE_TTL_S, exists=False)
        assert await asking.resolve("four.test", Kind.AAAA) == Found((), NEGATIVE_TTL_S)
        await asking.resolve("nobody.test", Kind.A)
        assert len(server.asked) == 2


async def test_the_same_question_is_asked_once_at_a_time() -> None:
    async with NameServer(RECORDS).run() as server:
        asking = resolver(server.address)
        await asyncio.gather(*(asking.resolve("a.test", Kind.A) for _ in range(20)))
        assert len(server.asked) == 1


async def test_who_gives_up_takes_nothing_from_the_others() -> None:
    async with NameServer(RECORDS).run() as server:
        asking = resolver(server.address)
        loop = asyncio.get_running_loop()
        tasks = [loop.create_task(asking.resolve("a.test", Kind.A)) for _ in range(3)]
        await asyncio.sleep(0)
        tasks[0].cancel()
        assert (await tasks[1]).addresses == (await tasks[2]).addresses


async def test_a_long_answer_comes_over_tcp() -> None:
    server = NameServer(RECORDS)
    server.truncate = True
    async with server.run():
        assert len((await resolver(server.address).resolve("a.test", Kind.A)).addresses) == 2
    assert [transport for _, _, transport in server.asked] == ["udp", "tcp"]


async def test_a_resolver_that_loses_the_letter_case_is_asked_over_tcp() -> None:
    name = "b" * 50 + ".test"
    server = NameServer({name: ["192.0.2.1"]})
    server.lower = True
    async with server.run():
        assert (await resolver(server.address).resolve(name, Kind.A)).addresses
    assert [transport for _, _, transport in server.asked] == ["udp", "tcp"]


async def test_forged_answers_are_ignored() -> None:
    server = NameServer(RECORDS)

    def with_forgeries(answer: bytes) -> list[bytes]:
        forged = dns.message.from_wire(answer)
        forged.id ^= 1
        other = dns.message.make_response(dns.message.make_query("evil.test", "A", id=forged.id ^ 1))
        return [forged.to_wire(), other.to_wire(), b"\0", answer]

    server.twist = with_forgeries
    async with server.run():
        assert len((await resolver(server.address).resolve("a.test", Kind.A)).addresses) == 2
    assert len(server.asked) == 1


async def test_many_forged_answers_make_it_ask_over_tcp() -> None:
    server = NameServer(RECORDS)
    server.twist = lambda answer: [bytes(12)] * 20
    async with server.run():
        assert len((await resolver(server.address).resolve("a.test", Kind.A)).addresses) == 2
    assert server.asked[-1][2] == "tcp"


async def test_a_resolver_without_edns() -> None:
    server = NameServer(RECORDS)
    server.no_edns = True
    async with server.run():
        assert len((await resolver(server.address).resolve("a.test", Kind.A)).addresses) == 2
    assert len(server.asked) == 2


async def test_the_next_resolver_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolver_module, "ROUND_TIMEOUTS_S", (0.1,))
    mute, broken = NameServer(RECORDS), NameServer(RECORDS)
    mute.twist = lambda answer: []
    broken.rcode = dns.rcode.SERVFAIL
    async with mute.run(), broken.run(), NameServer(RECORDS).run() as good:
        asking = resolver("127.0.0.1:1", mute.address, broken.address, good.address)
        assert len((await asking.resolve("a.test", Kind.A)).addresses) == 2
    assert mute.asked
    assert broken.asked


async def test_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolver_module, "ROUND_TIMEOUTS_S", (0.05, 0.05))
    mute = NameServer(RECORDS)
    mute.twist = lambda answer: []
    clock = Time()
    async with mute.run():
        asking = resolver(mute.address, clock=clock)
        with pytest.raises(ResolveFailed):
            await asking.resolve("a.test", Kind.A)
        assert len(mute.asked) == 2
        with pytest.raises(ResolveFailed):
            await asking.resolve("a.test", Kind.A)
        assert len(mute.asked) == 2, "a failure is not tried again at once"
        clock.now_s += resolver_module.FAILURE_TTL_S
        mute.twist = lambda answer: [answer]
        await asking.resolve("a.test", Kind.A)


def test_aliases_are_followed_and_loops_are_not() -> None:
    asked = question("a.test", Kind.A, mixed_case=False)
    query = dns.message.from_wire(asked.wire)

    def answering(*records: str) -> Found | Outcome:
        text = dns.message.make_response(query).to_text() + "\n;ANSWER\n" + "\n".join(records)
        return read(dns.message.from_text(text.replace(";ANSWER\n;", ";", 1)).to_wire(), asked)

    found = answering("a.test. 60 IN CNAME b.test.", "b.test. 20 IN A 192.0.2.9")
    assert found == Found((ip_address("192.0.2.9"),), 20)
    loop = answering("a.test. 60 IN CNAME b.test.", "b.test. 60 IN CNAME a.test.")
    assert loop is Outcome.FAILED
    other = answering("c.test. 60 IN A 192.0.2.9")
    assert other == Found((), NEGATIVE_TTL_S)


def test_whatever_comes_is_no_exception() -> None:
    asked = question("a.test", Kind.A)
    front = asked.number.to_bytes(2, "big")
    for tail in (b"", b"\x81\x80", b"\x81\x80" + b"\xff" * 8, b"\x81\x80\0\1\0\1\0\0\0\0\xc0\x0c" * 2):
        assert isinstance(read(front + tail, asked), Outcome)


def test_endpoints() -> None:
    assert endpoints(["192.0.2.1:53", "[2001:db8::1]:5353"], "") == (
        Endpoint(socket.AF_INET, ("192.0.2.1", 53)),
        Endpoint(socket.AF_INET6, ("2001:db8::1", 5353, 0, 0)),
    )
    conf = (
        "# x\nsearch corp.example\nnameserver 127.0.0.53\nnameserver bogus\nnameserver ::1\noptions edns0\n"
    )
    assert [one.address[0] for one in endpoints([], conf)] == ["127.0.0.53", "::1"]
    assert endpoints([], "")[0].address == ("127.0.0.1", 53)
    with pytest.raises(ValueError, match="address:port"):
        endpoints(["192.0.2.1"], "")
