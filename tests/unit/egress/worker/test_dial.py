"""Connecting: only to what the policy lets through, to another address where one does not answer, and by a
proxy of the operator's."""

import asyncio
import socket
from collections.abc import AsyncGenerator
from ipaddress import ip_address

import pytest

from skerry.egress.worker import connecting
from skerry.egress.worker.dial import DialFailed, Dialled, Dialler, DirectDialler, ProxiedDialler
from skerry.egress.worker.flow import Current
from skerry.egress.worker.limits import Limits
from skerry.egress.worker.resolver import Resolver, endpoints
from skerry.policy.document import AllowRule
from skerry.policy.verdict import Reason
from skerry.spec.settings import EgressLimits
from tests.harness.waiting import until
from tests.unit.egress.worker.parts import LOOPBACK, NameServer, allow, echo, origin, rules

EVERYTHING = tuple(map(allow, ("a.test", "*.wild.test", "b.test", "127.0.0.1", "out.example")))


class Dialling:
    """A dialler and its surroundings."""

    def __init__(self, server: NameServer, *allowed: AllowRule, proxy: str = "", dial_s: float = 5.0) -> None:
        self.current = Current(rules(*(allowed or EVERYTHING)))
        loop = asyncio.get_running_loop()
        self.hits: list[str] = []
        self.limits = Limits(
            EgressLimits(dial_s=dial_s, wildcard_names_per_min=3), loop.time, self.hits.append
        )
        resolver = Resolver(endpoints([server.address], ""), loop.time)
        policy = lambda: self.current.policy  # noqa: E731
        self.dialler: Dialler = (
            ProxiedDialler(proxy, resolver, self.limits, policy=policy)
            if proxy
            else DirectDialler(resolver, self.limits, (LOOPBACK,), policy=policy)
        )

    async def dial(self, host: str, port: int) -> Dialled:
        """Connect to a name or address that is allowed."""
        where = ip_address(host) if host[0].isdigit() else host
        verdict = self.current.policy.decide(where, port)
        assert verdict.allowed, verdict
        return await self.dialler.dial(where, port, verdict)

    async def refusal(self, host: str, port: int = 443) -> Reason:
        """Why it does not work."""
        with pytest.raises(DialFailed) as caught:
            (await self.dial(host, port)).sock.close()
        return caught.value.reason


async def test_a_name_and_an_address() -> None:
    async with NameServer({"a.test": ["127.0.0.1"]}).run() as server, origin(echo) as port:
        dialling = Dialling(server)
        for host in ("a.test", "127.0.0.1"):
            found = await dialling.dial(host, port)
            with found.sock:
                assert found.address == ip_address("127.0.0.1")
                assert found.text == f"127.0.0.1:{port}"
                assert found.sock.getpeername() == ("127.0.0.1", port)
                assert found.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_names_that_are_not_there() -> None:
    async with NameServer({}).run() as server:
        assert await Dialling(server).refusal("a.test") is Reason.NAME_NOT_FOUND


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "169.254.169.254", "10.0.0.1", "::1", "::ffff:127.0.0.1", "fd00:ec2::254"]
)
async def test_a_name_outside_that_resolves_inside_is_refused(address: str) -> None:
    async with NameServer({"out.example": [address]}).run() as server:
        assert await Dialling(server).refusal("out.example") is Reason.PRIVATE_ADDRESS


async def test_an_internal_name_may_not_resolve_to_other_networks() -> None:
    async with NameServer({"a.test": ["10.0.0.1"]}).run() as server:
        assert await Dialling(server).refusal("a.test") is Reason.PRIVATE_ADDRESS


async def test_refused_addresses_are_left_out() -> None:
    records = {"a.test": ["10.0.0.1", "127.0.0.1", "169.254.169.254"]}
    async with NameServer(records).run() as server, origin(echo) as port:
        with (await Dialling(server).dial("a.test", port)).sock as sock:
            assert sock.getpeername()[0] == "127.0.0.1"


async def test_the_next_address_is_tried() -> None:
    records = {"a.test": ["127.0.0.9", "127.0.0.8", "127.0.0.1"]}
    async with NameServer(records).run() as server, origin(echo) as port:
        with (await Dialling(server).dial("a.test", port)).sock as sock:
            assert sock.getpeername()[0] == "127.0.0.1"


async def test_an_address_that_does_not_answer_costs_little(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connecting, "STAGGER_S", 0.01)
    full = socket.create_server(("127.0.0.2", 0), backlog=0)
    port = full.getsockname()[1]
    fillers = []
    for _ in range(3):
        filler = socket.socket()
        filler.setblocking(False)
        filler.connect_ex(("127.0.0.2", port))
        fillers.append(filler)
    records = {"a.test": ["127.0.0.2", "127.0.0.1"]}
    async with NameServer(records).run() as server, origin(echo, "127.0.0.1", port):
        with (await Dialling(server).dial("a.test", port)).sock as sock:
            assert sock.getpeername()[0] == "127.0.0.1"
        dialling = Dialling(server, dial_s=0.2)
        server.records["b.test"] = ["127.0.0.2"]
        assert await dialling.refusal("b.test", port) is Reason.UPSTREAM_UNREACHABLE
        assert dialling.hits == ["dial_s"]
    for sock in (full, *fillers):
        sock.close()


async def test_ipv6_where_there_is_nothing_else() -> None:
    async with NameServer({"a.test": ["::1"]}).run() as server, origin(echo, "::1") as port:
        found = await Dialling(server).dial("a.test", port)
        found.sock.close()
        assert found.text == f"[::1]:{port}"
    assert [kind for _, kind, _ in server.asked] == ["A", "AAAA"]


async def test_ipv6_where_ipv4_does_not_answer() -> None:
    async with NameServer({"a.test": ["127.0.0.1", "::1"]}).run() as server, origin(echo, "::1") as port:
        found = await Dialling(server).dial("a.test", port)
        found.sock.close()
        assert found.address == ip_address("::1")


async def test_nobody_listens() -> None:
    async with NameServer({"a.test": ["127.0.0.1"]}).run() as server:
        assert await Dialling(server).refusal("a.test", 1) is Reason.UPSTREAM_UNREACHABLE


async def test_names_below_a_wildcard_are_few() -> None:
    records = {f"x{number}.wild.test": ["127.0.0.1"] for number in range(5)}
    async with NameServer(records).run() as server, origin(echo) as port:
        dialling = Dialling(server)
        for number in (0, 1, 2, 0):
            (await dialling.dial(f"x{number}.wild.test", port)).sock.close()
        assert await dialling.refusal("x3.wild.test", port) is Reason.LIMIT_REACHED
        assert dialling.hits == ["wildcard_names_per_min"]
    assert not any(name.lower().startswith("x3") for name, _, _ in server.asked)


async def test_what_was_connected_is_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async with NameServer({"a.test": ["127.0.0.1"]}).run() as server, origin(echo) as port:
        dialling = Dialling(server)
        connect_first = connecting.connect_first

        async def connect_while_rules_change(
            candidates: AsyncGenerator[connecting.Address, None], port: int
        ) -> connecting.Connected:
            connected = await connect_first(candidates, port)
            # Meanwhile the owner has taken the host away.
            dialling.current.adopt(rules(allow("b.test"), version=2))
            return connected

        monkeypatch.setattr("skerry.egress.worker.dial.connect_first", connect_while_rules_change)
        assert await dialling.refusal("a.test", port) is Reason.PRIVATE_ADDRESS


async def test_cancelling_closes_what_was_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    mute = NameServer({})
    mute.twist = lambda answer: []
    async with mute.run():
        dialling = Dialling(mute)
        task = asyncio.get_running_loop().create_task(dialling.dial("a.test", 443))
        await until(lambda: mute.asked)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


class Proxy:
    """A proxy that takes CONNECT and connects everything to one port."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.asked: list[bytes] = []
        self.answer = b"HTTP/1.1 200 OK\r\nVia: test\r\n\r\n"

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.asked.append(head.split(b"\r\n")[0])
        writer.write(self.answer + b"early")
        await echo(reader, writer)


async def test_by_a_proxy() -> None:
    proxy = Proxy(0)
    records = {"a.test": ["127.0.0.1"], "out.example": ["10.0.0.1"]}
    async with NameServer(records).run() as server, origin(proxy) as port:
        dialling = Dialling(server, proxy=f"127.0.0.1:{port}")
        found = await dialling.dial("a.test", 8443)
        with found.sock:
            assert found.address is None
            assert proxy.asked == [b"CONNECT a.test:8443 HTTP/1.1"]
            assert await asyncio.get_running_loop().sock_recv(found.sock, 100) == b"early"
        assert await dialling.refusal("out.example") is Reason.PRIVATE_ADDRESS
        (await dialling.dial("b.test", 443)).sock.close()  # which only the proxy knows
        proxy.answer = b"HTTP/1.1 403 Forbidden\r\n\r\n"
        assert await dialling.refusal("a.test") is Reason.UPSTREAM_UNREACHABLE
        proxy.answer = b"nonsense\r\n\r\n"
        assert await dialling.refusal("a.test") is Reason.UPSTREAM_UNREACHABLE
