"""Connections of a sandbox through a whole worker: what passes, what is refused, and how that is said."""

import asyncio
import json
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from skerry.policy.document import AllowRule, SecretRule, TlsChoice
from skerry.spec.settings import EgressLimits
from tests.harness import client_hello
from tests.harness.origins.certificates import TestAuthority
from tests.harness.waiting import until
from tests.unit.egress.worker.parts import (
    Bench,
    NameServer,
    RecordingInspector,
    allow,
    bench,
    echo,
    origin,
    rest,
    rules,
)

RECORDS = {"a.test": ["127.0.0.1"], "b.test": ["127.0.0.1"], "x.wild.test": ["127.0.0.1"]}
ALERT = b"\x15\x03\x03\x00\x02\x02"
ACCESS_DENIED, UNRECOGNIZED_NAME, DECODE_ERROR, INTERNAL_ERROR = b"\x31", b"\x70", b"\x32", b"\x50"


@asynccontextmanager
async def world(*allowed: AllowRule, **more: object) -> AsyncIterator[Bench]:
    """A worker with a resolver that knows `RECORDS`."""
    inspector = more.pop("inspector", None)
    assert inspector is None or isinstance(inspector, RecordingInspector)
    first = msgspec.convert(more.pop("rules", None) or rules(*allowed, **more), type(rules()))  # type: ignore[arg-type]
    async with (
        NameServer(RECORDS).run() as server,
        bench(first, resolver=server.address, inspector=inspector) as around,
    ):
        yield around


@pytest.fixture(scope="module")
def authority() -> TestAuthority:
    return TestAuthority.make()


def server_context(authority: TestAuthority, directory: Path, name: str) -> ssl.SSLContext:
    pem = directory / f"{name}.pem"
    pem.write_bytes(authority.leaf(name))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    return context


def client_context(authority: TestAuthority) -> ssl.SSLContext:
    return ssl.create_default_context(cadata=authority.certificate_pem.decode())


async def test_tls_to_an_allowed_name_is_spliced(authority: TestAuthority, tmp_path: Path) -> None:
    context = server_context(authority, tmp_path, "a.test")
    async with origin(echo, ssl=context) as port, world(allow("a.test")) as around:
        sock = await around.socket_to(await around.address_of("a.test"), port)
        reader, writer = await asyncio.open_connection(
            sock=sock, ssl=client_context(authority), server_hostname="a.test"
        )
        writer.write(b"through")
        assert await reader.readexactly(7) == b"through"
        writer.close()
        await writer.wait_closed()
        opened = await around.line(event="connection", decision="allow")
        closed = await around.line(event="closed")
    assert opened["host"] == "a.test"
    assert opened["mode"] == "splice"
    assert opened["dialled"] == f"127.0.0.1:{port}"
    assert opened["rule"] == "sandbox.allow[0]"
    assert closed["sent_bytes"] > 500
    assert closed["received_bytes"] > 500
    assert [line["seq"] for line in around.lines] == list(range(1, len(around.lines) + 1))


async def said(around: Bench, host: str, port: int, data: bytes) -> bytes:
    """What is answered to these first bytes."""
    try:
        reader, writer = await around.connect(host, port)
    except ConnectionResetError:
        return b"<reset>"
    writer.write(data)
    answer = await rest(reader)
    writer.close()
    return answer


async def test_a_hello_in_many_small_pieces(authority: TestAuthority) -> None:
    hello = client_hello.of_openssl("a.test")
    async with origin(echo) as port, world(allow("a.test")) as around:
        sock = await around.socket_to(await around.address_of("a.test"), port)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with sock:
            for at in range(len(hello)):
                sock.send(hello[at : at + 1])
                await asyncio.sleep(0)
            got = b""
            while len(got) < len(hello):
                got += await asyncio.get_running_loop().sock_recv(sock, 65_536)
        assert got == hello, "the origin got exactly what was sent"


@pytest.mark.parametrize(
    ("hello", "alert", "reason"),
    [
        (client_hello.of_openssl("b.test"), UNRECOGNIZED_NAME, "name_mismatch"),
        (client_hello.of_openssl(None), UNRECOGNIZED_NAME, "name_mismatch"),
        (b"\x16\x03\x01\x00\x05\x02aaaa", DECODE_ERROR, "malformed_hello"),
        (b"\x80\x2e\x01" + bytes(60), DECODE_ERROR, "malformed_hello"),
        (
            client_hello.records(client_hello.message(client_hello.server_name(b"A.TEST."))),
            DECODE_ERROR,
            "malformed_hello",
        ),
    ],
    ids=["other", "none", "no hello", "ssl2", "dot"],
)
async def test_hellos_that_are_refused(hello: bytes, alert: bytes, reason: str) -> None:
    reached = False

    async def record(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal reached
        reached = True
        writer.close()

    async with origin(record) as port, world(allow("a.test"), allow("b.test")) as around:
        assert await said(around, "a.test", port, hello) == ALERT + alert
        await around.line(decision="deny", reason=reason)
    assert not reached


async def test_upper_case_in_a_hello_is_the_same_name() -> None:
    hello = client_hello.of_openssl("A.Test")
    async with origin(echo) as port, world(allow("a.test")) as around:
        reader, writer = await around.connect("a.test", port)
        writer.write(hello)
        assert await reader.readexactly(len(hello)) == hello
        writer.close()


async def test_a_hello_to_an_address_goes_to_what_its_name_resolves_to() -> None:
    hello = client_hello.of_openssl("a.test")
    async with origin(echo) as port, world(allow("a.test")) as around:
        reader, writer = await around.connect("8.8.8.8", port)
        writer.write(hello)
        assert await reader.readexactly(len(hello)) == hello
        writer.close()
        line = await around.line(event="connection", decision="allow")
        assert line["host"] == "a.test"
        assert line["dialled"] == f"127.0.0.1:{port}"


@pytest.mark.parametrize(
    ("address", "name", "reason"),
    [
        ("8.8.8.8", "evil.example", "address_not_allowed"),
        ("8.8.8.8", None, "address_not_allowed"),
        ("169.254.169.254", "a.test", "private_address"),
        ("198.18.99.99", "evil.example", "address_not_allowed"),
        ("198.18.0.1", "a.test", "self"),
    ],
)
async def test_a_hello_to_an_address_that_names_nothing_allowed(
    address: str, name: str | None, reason: str
) -> None:
    async with world(allow("a.test")) as around:
        assert await said(around, address, 443, client_hello.of_openssl(name)) == ALERT + ACCESS_DENIED
        line = await around.line(decision="deny", reason=reason)
        assert line["host"] == address


async def test_tls_that_must_be_inspected(authority: TestAuthority) -> None:
    rule = AllowRule(host="a.test", methods=("GET",))
    async with world(rule, authority=True) as around:
        await said(around, "a.test", 443, client_hello.of_openssl("a.test"))
        (flow,) = around.inspector.tls
        assert flow.host == "a.test"
        assert flow.client.fileno() == -1
        await around.line(event="connection", decision="allow", mode="inspect")
        await around.line(event="closed", mode="inspect")


async def test_an_encrypted_hello_is_inspected_where_a_rule_names_the_host() -> None:
    hello = client_hello.records(
        client_hello.message(client_hello.server_name(b"a.test"), (0xFE0D, b"\0" * 20))
    )
    async with world(allow("a.test"), authority=True) as around:
        await said(around, "a.test", 443, hello)
        assert len(around.inspector.tls) == 1
    async with world(allow("a.test")) as around:
        assert await said(around, "a.test", 443, hello) == ALERT + ACCESS_DENIED
    async with origin(echo) as port, world(default="public") as around:
        # Not named by a rule, so not looked at; but it resolves to an address that is not public.
        assert await said(around, "a.test", port, hello) == ALERT + ACCESS_DENIED
        await around.line(decision="deny", reason="private_address")


async def test_too_many_handshakes_are_refused() -> None:
    rule = AllowRule(host="a.test", tls=TlsChoice.INSPECT)
    limits = EgressLimits(tls_per_s=1, tls_burst=2, handshake_s=0.2)
    async with world(rule, authority=True, limits=limits) as around:
        hello = client_hello.of_openssl("a.test")
        answers = [await said(around, "a.test", 443, hello) for _ in range(3)]
        assert len(around.inspector.tls) == 2
        assert answers[2] == ALERT + INTERNAL_ERROR
        await around.line(event="limit", limit="tls_per_s")


async def test_plain_http() -> None:
    async with world(allow("a.test")) as around:
        reader, writer = await around.connect("a.test", 80)
        writer.write(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
        assert (await rest(reader)).startswith(b"HTTP/1.1 204")
        writer.close()
        assert around.inspector.plain[0].host == "a.test"


def refusal(answer: bytes) -> tuple[int, dict[str, str]]:
    """Status and JSON of an answer."""
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split(b" ")[1]), json.loads(body)


async def test_plain_http_to_what_is_not_allowed_is_told_why() -> None:
    async with world(allow("a.test", 443)) as around:
        for host, port, reason in (
            ("a.test", 80, "port_not_allowed"),
            ("203.0.113.7", 80, "address_not_allowed"),
            ("169.254.169.254", 80, "private_address"),
            ("198.18.0.1", 80, "self"),
            ("198.18.77.77", 80, "address_not_allowed"),
        ):
            status, told = refusal(await said(around, host, port, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
            assert (status, told["reason"], told["error"]) == (403, reason, "egress_denied"), host
            line = await around.line(decision="deny", reason=reason, request_id=told["request_id"])
            assert line["port"] == port
        assert not around.inspector.plain


async def test_plain_http_to_a_host_with_a_secret() -> None:
    async with world(allow("a.test"), secrets=[SecretRule(name="KEY", hosts=("a.test",))]) as around:
        status, told = refusal(await said(around, "a.test", 80, b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n"))
        assert (status, told["reason"]) == (403, "plaintext_to_bound_host")


async def test_connect_is_for_the_proxy_only() -> None:
    async with world(allow("a.test")) as around:
        status, told = refusal(await said(around, "a.test", 80, b"CONNECT b.test:443 HTTP/1.1\r\n\r\n"))
        assert (status, told["reason"]) == (403, "method_not_allowed")


async def test_head_gets_no_body() -> None:
    async with world() as around:
        answer = await said(around, "203.0.113.7", 80, b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 403")
        assert answer.endswith(b"\r\n\r\n")


async def test_http2_in_clear_is_told_so() -> None:
    async with world(allow("a.test")) as around:
        answer = await said(around, "a.test", 80, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        assert answer[3] == 4
        assert b"http2_not_supported" in answer
        await around.line(decision="deny", reason="http2_not_supported")


async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Speak first, as SSH and MySQL do, then send everything back."""
    writer.write(b"220 welcome\r\n")
    await echo(reader, writer)


async def test_a_server_that_speaks_first() -> None:
    async with origin(greet) as port, world(allow("a.test")) as around:
        reader, writer = await around.connect("a.test", port)
        assert await reader.readexactly(13) == b"220 welcome\r\n"
        writer.write(b"GET / HTTP/1.1\r\n")
        assert await reader.readexactly(16) == b"GET / HTTP/1.1\r\n"
        writer.close()
        await around.line(event="connection", decision="allow", mode="tcp")


async def test_a_client_that_is_only_slow_is_still_looked_at() -> None:
    async with origin(echo) as port, world(allow("a.test")) as around:
        reader, writer = await around.connect("a.test", port)
        await asyncio.sleep(0.5)
        writer.write(client_hello.of_openssl("b.test"))
        assert await rest(reader) == ALERT + UNRECOGNIZED_NAME
        writer.close()


@pytest.mark.parametrize("host", ["x.wild.test", "bound.test", "a.test"])
async def test_a_silent_client_where_raw_bytes_may_not_pass(host: str) -> None:
    reached = False

    async def record(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal reached
        reached = True
        await greet(reader, writer)

    allowed = [allow("*.wild.test"), allow("bound.test"), allow("a.test", tcp=False)]
    secrets = [SecretRule(name="KEY", hosts=("bound.test",))]
    limits = EgressLimits(hello_s=0.3)
    async with (
        origin(record) as port,
        world(*allowed, secrets=secrets, limits=limits, authority=True) as around,
    ):
        assert await said(around, host, port, b"") == b"<reset>"
        await around.line(decision="deny", reason="timed_out")
        await around.line(event="limit", limit="hello_s")
    assert not reached


async def test_other_protocols_where_the_client_speaks_first() -> None:
    async with origin(echo) as port, world(allow("a.test"), allow("b.test", tcp=False)) as around:
        reader, writer = await around.connect("a.test", port)
        writer.write(b"SSH-2.0-test\r\n")
        assert await reader.readexactly(14) == b"SSH-2.0-test\r\n"
        writer.close()
        assert await said(around, "b.test", port, b"SSH-2.0-test\r\n") == b"<reset>"
        await around.line(decision="deny", reason="protocol_not_allowed", host="b.test")


async def test_a_silent_client_of_what_is_not_allowed_is_reset_at_once() -> None:
    async with world(allow("a.test", 443)) as around:
        assert await said(around, "a.test", 22, b"") == b"<reset>"
        await around.line(decision="deny", reason="port_not_allowed")


async def test_an_origin_that_is_not_there() -> None:
    async with world(allow("a.test")) as around:
        hello = client_hello.of_openssl("a.test")
        assert await said(around, "a.test", 1, hello) == ALERT + INTERNAL_ERROR
        await around.line(decision="deny", reason="upstream_unreachable", host="a.test")


async def test_the_origins_reset_is_passed_on() -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(4)
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.close()

    async with origin(hang_up) as port, world(allow("a.test")) as around:
        assert await said(around, "a.test", port, b"\0\0\0\0") == b"<reset>"


async def test_rules_that_become_narrower_end_what_no_longer_fits() -> None:
    async with origin(echo) as port, world(allow("a.test"), allow("b.test")) as around:
        kept_reader, kept = await around.connect("a.test", port)
        ended_reader, ended = await around.connect("b.test", port)
        for reader, writer in ((kept_reader, kept), (ended_reader, ended)):
            writer.write(b"\0raw")
            assert await reader.readexactly(4) == b"\0raw"
        await around.adopt(rules(allow("a.test"), version=2))
        assert await rest(ended_reader) == b"<reset>"
        kept.write(b"more")
        assert await kept_reader.readexactly(4) == b"more"
        await around.line(decision="deny", host="b.test", note="the rules have changed")
        await around.line(event="closed", host="b.test", version=2)
        kept.close()
        ended.close()
        assert around.inspector.adopted == [2]


@pytest.mark.parametrize(
    "new",
    [
        rules(allow("a.test", tcp=False), version=2),
        rules(allow("a.test"), secrets=[SecretRule(name="KEY", hosts=("a.test",))], version=2),
        rules(allow("a.test", 443), version=2),
    ],
    ids=["no raw bytes", "a secret", "another port"],
)
async def test_every_change_that_counts_ends_a_raw_connection(new: object) -> None:
    async with origin(echo) as port, world(allow("a.test")) as around:
        reader, writer = await around.connect("a.test", port)
        writer.write(b"\0raw")
        assert await reader.readexactly(4) == b"\0raw"
        await around.adopt(msgspec.convert(new, type(rules())))
        assert await rest(reader) == b"<reset>"
        writer.close()


async def test_who_serves_a_flow_can_end_it_when_rules_change() -> None:
    inspector = RecordingInspector(hold=True)
    rule = AllowRule(host="a.test", tls=TlsChoice.INSPECT)
    async with world(rule, authority=True, inspector=inspector) as around:
        reader, writer = await around.connect("a.test", 443)
        writer.write(client_hello.of_openssl("a.test"))
        await until(lambda: inspector.tls)
        await around.adopt(rules(rule, authority=True, version=2))
        assert not reader.at_eof()
        inspector.tls[0].still_fits = lambda: False
        await around.adopt(rules(rule, authority=True, version=3))
        assert await rest(reader) == b"<reset>"
        writer.close()


async def test_hosts_can_be_added() -> None:
    async with origin(echo) as port, world() as around:
        with pytest.raises(AssertionError, match="NXDOMAIN"):
            await around.address_of("a.test")
        await around.line(event="dns", decision="deny", host="a.test")
        await around.adopt(rules(allow("a.test"), version=2))
        reader, writer = await around.connect("a.test", port)
        writer.write(b"\0raw")
        assert await reader.readexactly(4) == b"\0raw"
        writer.close()


async def test_connections_are_limited() -> None:
    async with origin(greet) as port, world(allow("a.test"), limits=EgressLimits(connections=3)) as around:
        open_ones = [await around.connect("a.test", port) for _ in range(3)]
        for reader, writer in open_ones:
            writer.write(b"\0")
            assert await reader.readexactly(13)
        assert await said(around, "a.test", port, b"") == b"<reset>"
        await around.line(event="limit", limit="connections")
        open_ones[0][1].close()
        await around.line(event="closed")
        reader, writer = await around.connect("a.test", port)
        writer.write(b"\0")
        assert await reader.readexactly(13)
        for _, one in (*open_ones, (reader, writer)):
            one.close()


async def test_silence_ends_a_raw_connection() -> None:
    limits = EgressLimits(websocket_idle_s=0.2)
    async with origin(echo) as port, world(allow("a.test"), limits=limits) as around:
        assert await said(around, "a.test", port, b"\0raw") == b"\0raw<reset>"
        await around.line(event="limit", limit="websocket_idle_s")


async def test_the_broker_that_is_gone_ends_the_worker() -> None:
    async with world(allow("a.test")) as around:
        around.control.shutdown(socket.SHUT_WR)
        around.tell = lambda message: None  # type: ignore[method-assign]
