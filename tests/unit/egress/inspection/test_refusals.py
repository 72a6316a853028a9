"""What is refused, how it is said, and that the origin hears nothing of it."""

import asyncio
import socket
import ssl
from pathlib import Path

import pytest

from skerry.egress.worker.dial import DialFailed
from skerry.policy.document import AllowRule
from skerry.policy.verdict import Reason
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

GET = b"GET / HTTP/1.1\r\nHost: api.example.com\r\n\r\n"
KEY = PLACEHOLDER.encode()


async def obliging(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers everything."""
    while True:
        await read_body(reader, await read_head(reader))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


@pytest.mark.parametrize(
    "request_head",
    [
        b"GET / HTTP/1.1\r\nHost: other.example.com\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: api.example.com.\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: api.example.com:8443\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: 198.18.0.2\r\n\r\n",
        b"GET https://other.example.com/ HTTP/1.1\r\nHost: api.example.com\r\n\r\n",
        b"GET https://other.example.com/ HTTP/1.1\r\nHost: other.example.com\r\n\r\n",
        b"GET http://api.example.com/ HTTP/1.1\r\nHost: api.example.com\r\n\r\n",
        b"GET / HTTP/1.0\r\n\r\n",
    ],
)
async def test_all_names_must_be_one(tmp_path: Path, request_head: bytes) -> None:
    async with inspected(obliging, tmp_path) as (gateway, origin):
        answer = await gateway.ask(request_head)
        assert answer.startswith(b"HTTP/1.1 421 ")
        assert reason_of(answer) == "name_mismatch"
        assert origin.received == []


async def test_an_absolute_form_with_the_right_name_goes_on_in_origin_form(tmp_path: Path) -> None:
    async with inspected(obliging, tmp_path) as (gateway, origin):
        answer = await gateway.ask(
            b"GET https://api.example.com/x HTTP/1.1\r\nHost: API.example.com\r\nConnection: close\r\n\r\n"
        )
        assert answer.startswith(b"HTTP/1.1 200")
        assert origin.heard.startswith(b"GET /x HTTP/1.1\r\nHost: API.example.com\r\n")


@pytest.mark.parametrize(
    "request_head",
    [
        b"GET / HTTP/1.1\r\nHost: api.example.com\r\nHost: api.example.com\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: api.example.com\r\nContent-Length: 1\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: api.example.com\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na",
        b"POST / HTTP/1.1\r\nHost: api.example.com\r\nTransfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: api.example.com\r\nX: a\r\n b\r\n\r\n",
        b"GET / HTTP/1.1\nHost: api.example.com\n\n",
        b"GET / HTTP/1.1\r\nHost: api.example.com\r\nX: a\x00b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: user@api.example.com\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
    ],
)
async def test_an_ambiguous_request_is_malformed(tmp_path: Path, request_head: bytes) -> None:
    async with inspected(obliging, tmp_path) as (gateway, origin):
        answer = await gateway.ask(request_head)
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert reason_of(answer) == "malformed_request"
        assert origin.received == []


@pytest.mark.parametrize("method", [b"TRACE /", b"CONNECT other.example.com:443"])
async def test_methods_that_are_never_sent(tmp_path: Path, method: bytes) -> None:
    async with inspected(obliging, tmp_path) as (gateway, origin):
        answer = await gateway.ask(method + b" HTTP/1.1\r\nHost: api.example.com\r\n\r\n")
        assert reason_of(answer) in ("method_not_allowed", "malformed_request")
        assert origin.received == []


async def test_a_bad_chunk_in_a_body_ends_both_connections(tmp_path: Path) -> None:
    async with inspected(obliging, tmp_path) as (gateway, origin):
        answer = await gateway.ask(
            b"POST / HTTP/1.1\r\nHost: api.example.com\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"3\r\nabc\r\nxyz\r\n"
        )
        assert reason_of(answer) == "malformed_request"
        await until(lambda: not gateway.flows)
        assert b"xyz" not in origin.heard
        assert not origin.heard.endswith(b"0\r\n\r\n")


async def test_grpc_is_told_what_is_missing(tmp_path: Path) -> None:
    async with inspected(obliging, tmp_path) as (gateway, origin):
        answer = await gateway.ask(
            b"POST /pkg.Service/Call HTTP/1.1\r\nHost: api.example.com\r\n"
            b"Content-Type: application/grpc+proto\r\nContent-Length: 5\r\n\r\n\0\0\0\0\0"
        )
        assert answer.startswith(b"HTTP/1.1 403 ")
        assert reason_of(answer) == "http2_not_supported"
        assert origin.received == []


async def test_a_client_of_http_2_that_asks_for_nothing_else_gets_an_alert(tmp_path: Path) -> None:
    async with inspected(obliging, tmp_path) as (gateway, origin):
        roots = gateway.roots
        roots.set_alpn_protocols(["h2"])
        with pytest.raises(ssl.SSLError, match="no application protocol"):
            await gateway.connect(roots=roots)
        assert origin.received == []
        assert gateway.told.of("connection")[-1]["reason"] == "http2_not_supported"


async def test_the_preface_of_http_2_gets_a_goaway(tmp_path: Path) -> None:
    async with inspected(obliging, tmp_path) as (gateway, origin):
        answer = await gateway.ask(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9))
        assert answer[3] == 4  # SETTINGS
        assert b"http2_not_supported" in answer
        assert origin.received == []


async def test_other_upgrades_are_refused_and_that_to_http_2_is_not_made(tmp_path: Path) -> None:
    upgrade = b"GET / HTTP/1.1\r\nHost: api.example.com\r\nConnection: Upgrade%b\r\nUpgrade: %b\r\n%b\r\n"
    async with inspected(obliging, tmp_path) as (gateway, origin):
        assert reason_of(await gateway.ask(upgrade % (b"", b"irc", b""))) == "upgrade_not_allowed"
        assert origin.received == []
        settings = b"HTTP2-Settings: AAMAAABkAAQAAP__\r\n"
        answer = await gateway.ask(upgrade % (b", HTTP2-Settings, close", b"h2c", settings))
        assert answer.startswith(b"HTTP/1.1 200")
        assert b"h2c" not in origin.heard
        assert b"Settings" not in origin.heard


async def test_methods_and_paths_of_a_rule(tmp_path: Path) -> None:
    allow = (AllowRule(host=HOST, methods=("GET",), paths=("/v1/**",)),)
    async with inspected(obliging, tmp_path, allow=allow) as (gateway, origin):
        ask = gateway.ask
        assert reason_of(
            await ask(b"POST /v1/a HTTP/1.1\r\nHost: api.example.com\r\nContent-Length: 0\r\n\r\n")
        ) == ("method_not_allowed")
        assert reason_of(await ask(GET.replace(b" / ", b" /v2 "))) == "path_not_allowed"
        assert reason_of(await ask(GET.replace(b" / ", b" /v1/%2e%2e/admin "))) in (
            "path_not_allowed",
            "path_not_canonical",
        )
        assert origin.received == []
        reader, writer = await gateway.connect()
        writer.write(GET.replace(b" / ", b" /v1/a "))
        assert (await read_head(reader)).startswith(b"HTTP/1.1 200")
        assert origin.heard.startswith(b"GET /v1/a HTTP/1.1\r\n")
        writer.close()


async def test_a_refusal_says_who_can_do_what(tmp_path: Path) -> None:
    async with inspected(obliging, tmp_path, secrets=(secret(),)) as (gateway, origin):
        answer = await gateway.ask(GET[:-2] + b"X-Other: " + KEY + b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 403 Forbidden\r\n")
        assert reason_of(answer) == "placeholder_outside_slot"
        assert b"header:X-Other" in answer
        assert KEY not in answer
        assert origin.received == []
        line = gateway.told.of("request")[0]
        assert (line["decision"], line["reason"]) == ("deny", "placeholder_outside_slot")
        assert str(line["request_id"]).encode() in answer


async def test_a_refusal_of_head_has_no_body(tmp_path: Path) -> None:
    async with inspected(obliging, tmp_path) as (gateway, _):
        answer = await gateway.ask(b"HEAD / HTTP/1.1\r\nHost: evil.example.com\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 421 ")
        assert answer.endswith(b"\r\n\r\n")


async def test_foreign_credentials(tmp_path: Path) -> None:
    async with inspected(obliging, tmp_path, secrets=(secret(),)) as (gateway, origin):
        answer = await gateway.ask(GET[:-2] + b"Authorization: Bearer my-own-account\r\n\r\n")
        assert reason_of(answer) == "foreign_credentials"
        assert b"my-own-account" not in answer
        assert origin.received == []


async def test_foreign_credentials_in_the_query_unless_the_origin_gave_them(tmp_path: Path) -> None:
    async def signing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(
            b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nConnection: close\r\n"
            b"Location: https://api.example.com/file?X-Amz-Signature=of-the-origin\r\n\r\n"
        )

    def get(target: bytes) -> bytes:
        return b"GET %b HTTP/1.1\r\nHost: api.example.com\r\n\r\n" % target

    signed = get(b"/file?X-Amz-Signature=of-the-origin")
    async with inspected(signing, tmp_path, secrets=(secret(),)) as (gateway, origin):
        assert reason_of(await gateway.ask(signed)) == "foreign_credentials"
        answer = await gateway.ask(get(b"/?access_token=my-own-account"))
        assert reason_of(answer) == "foreign_credentials"
        assert b"my-own-account" not in answer
        assert origin.received == []
        assert (await gateway.ask(get(b"/?key=a"))).startswith(b"HTTP/1.1 302 ")
        assert (await gateway.ask(signed)).startswith(b"HTTP/1.1 302 ")


async def test_a_client_that_still_sends_can_read_why_it_was_refused(tmp_path: Path) -> None:
    async with inspected(obliging, tmp_path) as (gateway, _):
        reader, writer = await gateway.connect()
        writer.write(
            b"PUT / HTTP/1.1\r\nHost: evil.example.com\r\nContent-Length: 900000\r\n\r\n" + bytes(900_000)
        )
        assert reason_of(await reader.read()) == "name_mismatch"
        writer.close()


@pytest.mark.parametrize(
    "reason", [Reason.NAME_NOT_FOUND, Reason.UPSTREAM_UNREACHABLE, Reason.PRIVATE_ADDRESS]
)
async def test_an_origin_that_cannot_be_connected_to(tmp_path: Path, reason: Reason) -> None:
    async with inspected(obliging, tmp_path) as (gateway, _):
        gateway.dialler.failure = DialFailed(reason)
        assert reason_of(await gateway.ask(GET)) == reason


async def test_an_origin_with_a_certificate_of_another_name(tmp_path: Path) -> None:
    async with inspected(obliging, tmp_path, origin_name="other.example.com", secrets=(secret(),)) as (
        gateway,
        origin,
    ):
        answer = await gateway.ask(GET[:-2] + b"Authorization: Bearer " + KEY + b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 502 ")
        assert reason_of(answer) == "upstream_certificate"
        assert VALUE not in origin.heard


async def test_an_origin_that_does_not_speak_tls(tmp_path: Path) -> None:
    async with inspected(obliging, tmp_path, tls=False) as (gateway, origin):
        assert reason_of(await gateway.ask(GET)) in ("upstream_unreachable", "timed_out")
        assert b"GET" not in origin.heard


async def test_a_client_that_does_not_trust_us_is_reported_once(tmp_path: Path) -> None:
    async with inspected(obliging, tmp_path) as (gateway, origin):
        loop = asyncio.get_running_loop()
        for _ in range(2):
            with pytest.raises(ssl.SSLCertVerificationError):
                await loop.run_in_executor(None, _distrust, gateway.port)
        await until(lambda: gateway.told.of("client_untrusted_ca"))
        await until(lambda: not gateway.flows)
        lines = gateway.told.of("client_untrusted_ca")
        assert [line["host"] for line in lines] == [HOST]
        assert origin.received == []


def _distrust(port: int) -> None:
    """A client that knows other authorities only."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
        ssl.create_default_context().wrap_socket(sock, server_hostname=HOST)


async def test_nothing_is_dialled_for_a_client_that_asks_nothing(tmp_path: Path) -> None:
    async with inspected(obliging, tmp_path) as (gateway, _):
        _, writer = await gateway.connect()
        writer.close()
        await until(lambda: not gateway.flows)
        assert gateway.dialler.count == 0
