"""The sandbox's name server over UDP and TCP, whatever address it is asked at."""

import dns.message
import dns.rcode

from skerry.spec.settings import EgressLimits
from tests.unit.egress.worker.parts import allow, bench, rest, rules


async def test_one_address_for_a_name_and_nothing_for_others() -> None:
    async with bench(rules(allow("a.test"))) as around:
        address = await around.address_of("a.test")
        assert address.startswith(("198.18.", "198.19."))
        assert await around.address_of("A.tesT") == address
        query = dns.message.make_query("evil.example", "A")
        answer = dns.message.from_wire(await around.ask(query.to_wire()))
        assert answer.rcode() == dns.rcode.NXDOMAIN
        await around.line(event="dns", decision="deny", host="evil.example", reason="host_not_allowed")


async def test_over_tcp_at_any_address() -> None:
    async with bench(rules(allow("a.test"))) as around:
        address = await around.address_of("a.test")
        for server in ("198.18.0.1", "203.0.113.53"):
            reader, writer = await around.connect(server, 53)
            query = dns.message.make_query("a.test", "A").to_wire()
            framed = len(query).to_bytes(2, "big") + query
            writer.write(framed + framed[:7])
            size = int.from_bytes(await reader.readexactly(2), "big")
            answer = dns.message.from_wire(await reader.readexactly(size))
            assert str(answer.answer[0][0].address) == address
            writer.write(framed[7:])
            assert int.from_bytes(await reader.readexactly(2), "big") == size
            writer.close()


async def test_a_stream_that_is_no_dns_is_closed() -> None:
    async with bench(rules()) as around:
        reader, writer = await around.connect("198.18.0.1", 53)
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        assert await rest(reader) in (b"", b"<reset>")
        writer.close()


async def test_queries_are_limited_in_rate() -> None:
    async with bench(rules(allow("a.test"), limits=EgressLimits(queries_per_s=1))) as around:
        for _ in range(2):
            await around.address_of("a.test")
        query = dns.message.make_query("a.test", "A").to_wire()
        _, writer = await around.connect("198.18.0.1", 53)
        writer.write(len(query).to_bytes(2, "big") + query)
        await around.line(event="limit", limit="queries_per_s")
        writer.close()


async def test_names_are_limited() -> None:
    async with bench(rules(allow("*.wild.test"), limits=EgressLimits(names=2))) as around:
        for name in ("x.wild.test", "y.wild.test"):
            await around.address_of(name)
        query = dns.message.make_query("z.wild.test", "A")
        answer = dns.message.from_wire(await around.ask(query.to_wire()))
        assert answer.rcode() == dns.rcode.SERVFAIL
        await around.line(event="limit", limit="names")
