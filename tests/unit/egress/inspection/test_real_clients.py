"""curl and OpenSSL's own client through inspection."""

import asyncio
import hashlib
import shutil
from pathlib import Path

import pytest

from tests.harness.inspected import (
    HOST,
    PLACEHOLDER,
    VALUE,
    Gateway,
    inspected,
    read_body,
    read_head,
    reason_of,
    secret,
)

URL = f"https://{HOST}/a"
BODY = b"0123456789abcdef" * 50_000


async def telling(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers with the hash of the request's body, after permission to send it if asked."""
    while True:
        head = await read_head(reader)
        if b"100-continue" in head:
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        text = hashlib.sha256(await read_body(reader, head)).hexdigest().encode()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(text) + text)


async def run(*command: str, stdin: bytes = b"") -> tuple[int, bytes]:
    """Run a program; its status and what it prints."""
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(20):
        output, _ = await process.communicate(stdin)
    return process.returncode or 0, output


async def curl(gateway: Gateway, tmp_path: Path, *options: str) -> tuple[int, bytes]:
    """Run curl against the gateway."""
    assert gateway.rules.authority is not None
    roots = tmp_path / "sandbox.pem"
    roots.write_text(gateway.rules.authority.certificate_pem)
    return await run(
        "curl",
        "-sS",
        "--cacert",
        str(roots),
        "--connect-to",
        f"{HOST}:443:127.0.0.1:{gateway.port}",
        *options,
    )


async def openssl(gateway: Gateway, alpn: str, stdin: bytes = b"") -> tuple[int, bytes]:
    """Run OpenSSL's client against the gateway."""
    where = f"127.0.0.1:{gateway.port}"
    return await run(
        "openssl", "s_client", "-connect", where, "-servername", HOST, "-alpn", alpn, stdin=stdin
    )


@pytest.mark.parametrize(
    "options",
    [
        pytest.param((), id="plainly"),
        pytest.param(("--http1.0",), id="1.0"),
        pytest.param(("--http2",), id="falls back from 2"),
        pytest.param(("--tlsv1.2", "--tls-max", "1.2"), id="TLS 1.2"),
        pytest.param(("--compressed",), id="compressed"),
    ],
)
async def test_curl(tmp_path: Path, options: tuple[str, ...]) -> None:
    async with inspected(telling, tmp_path, secrets=(secret(),)) as (gateway, origin):
        bearer = f"Authorization: Bearer {PLACEHOLDER}"
        status, output = await curl(gateway, tmp_path, *options, "-H", bearer, URL)
        assert (status, output) == (0, hashlib.sha256(b"").hexdigest().encode())
        assert b"Bearer " + VALUE in origin.heard


async def test_curl_with_a_user_and_a_password(tmp_path: Path) -> None:
    async with inspected(telling, tmp_path, secrets=(secret(),)) as (gateway, origin):
        status, _ = await curl(gateway, tmp_path, "-u", f"me:{PLACEHOLDER}", URL)
        assert status == 0
        assert PLACEHOLDER.encode() not in origin.heard
        assert b"Authorization: Basic " in origin.heard


@pytest.mark.parametrize("option", ["Expect: 100-continue", "Transfer-Encoding: chunked"])
async def test_curl_uploads(tmp_path: Path, option: str) -> None:
    body = tmp_path / "body"
    body.write_bytes(BODY)
    async with inspected(telling, tmp_path) as (gateway, _):
        status, output = await curl(gateway, tmp_path, "-H", option, "--data-binary", f"@{body}", URL)
        assert (status, output) == (0, hashlib.sha256(BODY).hexdigest().encode())


async def test_curl_uses_a_connection_again(tmp_path: Path) -> None:
    async with inspected(telling, tmp_path) as (gateway, origin):
        status, output = await curl(gateway, tmp_path, URL, URL, URL)
        assert (status, len(output)) == (0, 3 * 64)
        assert len(origin.received) == 1


async def test_curl_shows_why(tmp_path: Path) -> None:
    async with inspected(telling, tmp_path, secrets=(secret(),)) as (gateway, _):
        status, output = await curl(gateway, tmp_path, "-i", "-H", "X-Api-Key: another-account", URL)
        assert status == 0
        assert reason_of(output) == "foreign_credentials"


async def test_openssl_sees_one_certificate_and_no_ticket(tmp_path: Path) -> None:
    async with inspected(telling, tmp_path) as (gateway, _):
        request = b"GET / HTTP/1.1\r\nHost: api.example.com\r\nConnection: close\r\n\r\n"
        status, output = await openssl(gateway, "h2,http/1.1", request)
        assert status == 0
        assert output.count(b"BEGIN CERTIFICATE") == 1
        assert b"ALPN protocol: http/1.1" in output
        assert b"Post-Handshake New Session Ticket" not in output


async def test_openssl_that_wants_http_2_only_is_told_so(tmp_path: Path) -> None:
    async with inspected(telling, tmp_path) as (gateway, origin):
        status, output = await openssl(gateway, "h2")
        assert status != 0
        assert b"no application protocol" in output
        assert origin.received == []
