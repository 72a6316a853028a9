"""The explicit proxy decides as the network does."""

import asyncio
import json

import pytest

from skerry.policy.document import SecretRule
from tests.harness import client_hello
from tests.unit.egress.worker.parts import Bench, allow, echo, origin, rest, rules
from tests.unit.egress.worker.test_serve import ALERT, UNRECOGNIZED_NAME, refusal, said, world

ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"
PROXY = ("198.18.0.1", 3128)


async def tunnel(around: Bench, authority: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, bytes]:
    """Ask for a tunnel."""
    reader, writer = await around.connect(*PROXY)
    writer.write(f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\nX: y\r\n\r\n".encode())
    return reader, writer, await reader.readuntil(b"\r\n\r\n")


async def test_a_tunnel() -> None:
    async with origin(echo) as port, world(allow("a.test")) as around:
        reader, writer, answer = await tunnel(around, f"a.test:{port}")
        assert answer == ESTABLISHED
        hello = client_hello.of_openssl("a.test")
        writer.write(hello)
        assert await reader.readexactly(len(hello)) == hello
        writer.close()
        line = await around.line(event="connection", decision="allow", via="connect")
        assert line["host"] == "a.test"


async def test_bytes_right_behind_the_head() -> None:
    async with origin(echo) as port, world(allow("a.test")) as around:
        reader, writer = await around.connect(*PROXY)
        head = f"CONNECT a.test:{port} HTTP/1.1\r\nHost: a.test:{port}\r\n\r\n".encode()
        writer.write(head + b"SSH-2.0-x\r\n")
        assert await reader.readexactly(len(ESTABLISHED) + 11) == ESTABLISHED + b"SSH-2.0-x\r\n"
        writer.close()


async def test_another_name_in_the_tunnel() -> None:
    async with world(allow("a.test"), allow("b.test")) as around:
        reader, writer, _ = await tunnel(around, "a.test:443")
        writer.write(client_hello.of_openssl("b.test"))
        assert await rest(reader) == ALERT + UNRECOGNIZED_NAME
        writer.close()


@pytest.mark.parametrize(
    ("request_line", "status", "reason"),
    [
        ("CONNECT evil.example:443", 403, "host_not_allowed"),
        ("CONNECT a.test:22", 403, "port_not_allowed"),
        ("CONNECT 169.254.169.254:80", 403, "private_address"),
        ("CONNECT [::ffff:169.254.169.254]:80", 403, "private_address"),
        ("CONNECT 0x7f.1:443", 403, "bad_host_name"),
        ("CONNECT a.test", 400, "malformed_request"),
        ("CONNECT a.test@b.test:443", 400, "malformed_request"),
        ("GET http://evil.example/", 403, "host_not_allowed"),
        ("GET http://a.test:22/", 403, "port_not_allowed"),
        ("GET https://a.test/", 403, "protocol_not_allowed"),
        ("GET ftp://a.test/", 400, "malformed_request"),
        ("GET /", 403, "self"),
    ],
)
async def test_refusals(request_line: str, status: int, reason: str) -> None:
    target = request_line.split(" ")[1]
    host = target.split("//")[-1].strip("/") or "198.18.0.1"
    async with world(allow("a.test", 443, 80)) as around:
        data = f"{request_line} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
        found = refusal(await said(around, *PROXY, data))
        assert (found[0], found[1]["reason"]) == (status, reason)
        await around.line(decision="deny", reason=reason, request_id=found[1]["request_id"])


async def test_host_and_target_that_differ() -> None:
    async with world(allow("a.test"), allow("b.test")) as around:
        data = b"GET http://a.test/ HTTP/1.1\r\nHost: b.test\r\n\r\n"
        status, told = refusal(await said(around, *PROXY, data))
        assert (status, told["reason"], told["error"]) == (421, "name_mismatch", "egress_failed")


async def test_the_absolute_form() -> None:
    async with world(allow("a.test")) as around:
        answer = await said(around, *PROXY, b"GET http://a.test/x HTTP/1.1\r\nHost: a.test\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 204")
        (flow,) = around.inspector.plain
        assert (flow.host, flow.port, flow.via_proxy) == ("a.test", 80, True)


async def test_no_plain_text_to_a_host_with_a_secret() -> None:
    async with world(allow("a.test"), secrets=[SecretRule(name="KEY", hosts=("a.test",))]) as around:
        data = b"GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n"
        _, told = refusal(await said(around, *PROXY, data))
        assert told["reason"] == "plaintext_to_bound_host"
        reader, writer, answer = await tunnel(around, "a.test:80")
        assert answer == ESTABLISHED
        writer.write(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
        assert b"plaintext_to_bound_host" in await rest(reader)
        writer.close()


async def test_a_tunnel_in_a_tunnel() -> None:
    async with world(allow("a.test")) as around:
        reader, writer, _ = await tunnel(around, "a.test:80")
        writer.write(b"CONNECT b.test:443 HTTP/1.1\r\nHost: b.test:443\r\n\r\n")
        assert b"method_not_allowed" in await rest(reader)
        writer.close()


async def test_tls_and_other_bytes_to_the_proxy_itself() -> None:
    async with world(allow("a.test")) as around:
        assert (await said(around, *PROXY, client_hello.of_openssl("a.test"))).startswith(ALERT)
        assert await said(around, *PROXY, b"\x05\x01\x00") == b"<reset>"  # SOCKS
        assert b"self" in await said(around, *PROXY, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")


@pytest.mark.parametrize(
    ("host", "port"),
    [
        ("8.8.8.8", 80),
        ("10.0.0.1", 80),
        ("169.254.169.254", 80),
        ("198.18.0.1", 80),
        ("198.18.99.99", 80),
        ("a.test", 25),
        ("a.test", 80),
        ("b.test", 81),
    ],
)
async def test_all_ways_in_have_the_same_verdict(host: str, port: int) -> None:
    def verdict(answer: bytes) -> str:
        return "allowed" if answer.startswith(b"HTTP/1.1 20") else refusal(answer)[1]["reason"]

    async with world(allow("a.test"), allow("b.test", 80)) as around:
        plain = f"GET / HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode()
        directly = verdict(await said(around, host, port, plain))
        absolute = f"GET http://{host}:{port}/ HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode()
        reader, writer, connected = await tunnel(around, f"{host}:{port}")
        writer.close()
        assert verdict(await said(around, *PROXY, absolute)) == directly
        assert verdict(connected + await rest(reader)) == directly
        if host == "a.test":
            # Whoever resolved the name before asking the proxy means the same.
            address = await around.address_of(host)
            _, writer, connected = await tunnel(around, f"{address}:{port}")
            writer.close()
            assert (connected == ESTABLISHED) == (directly == "allowed")


async def test_rules_that_change_while_a_head_arrives() -> None:
    async with world(allow("a.test")) as around:
        reader, writer = await around.connect(*PROXY)
        writer.write(b"GET http://a.test/ HTTP/1.1\r\n")
        await around.adopt(rules(allow("b.test"), version=2))
        writer.write(b"Host: a.test\r\n\r\n")
        status, told = refusal(await rest(reader))
        assert (status, told["reason"]) == (403, "host_not_allowed")
        assert json.dumps(told)
        writer.close()
