"""The servers of the test network, one process in its namespace: name server, HTTP origins with and without
TLS, raw recorders. Configuration comes as one JSON line on standard input, whose end ends it.
"""

import asyncio
import contextlib
import json
import ssl
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, cast

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

from tests.harness.origins.certificates import TestAuthority
from tests.harness.origins.http_origin import Files, serve_http

HTTP_PORTS = (80, 8080)
TLS_PORTS = (443, 8443)
RAW_PORT = 9000
"""Records what it gets, answers nothing."""

BANNER_PORT = 2222
"""Speaks first, then sends everything back."""

ECHO_PORT = 7000
"""Sends everything back."""

TTL_S = 5


class Records:
    """Writes down what arrives."""

    def __init__(self, file: Path) -> None:
        self._file = file.open("a", buffering=1)

    def write(self, kind: str, **what: Any) -> None:
        """One line."""
        self._file.write(json.dumps({"kind": kind, "at": time.time(), **what}) + "\n")


class NameServer(asyncio.DatagramProtocol):
    """Answers from a table."""

    def __init__(self, names: dict[str, list[str]], records: Records) -> None:
        self._names = names
        self._records = records
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.BaseProtocol`."""
        # The loop's own class is not derived from the abstract one.
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: Any) -> None:
        """See `asyncio.DatagramProtocol`."""
        query = dns.message.from_wire(data)
        question = query.question[0]
        name = question.name.to_text(omit_final_dot=True).lower()
        self._records.write("dns", name=name, type=dns.rdatatype.to_text(question.rdtype))
        answer = dns.message.make_response(query)
        answer.flags |= dns.flags.RA
        addresses = self._names.get(name)
        if addresses is None:
            answer.set_rcode(dns.rcode.NXDOMAIN)
        wanted = {dns.rdatatype.A: ".", dns.rdatatype.AAAA: ":"}.get(question.rdtype)
        for address in addresses or ():
            if wanted is not None and wanted in address:
                answer.answer.append(
                    dns.rrset.from_text(
                        question.name, TTL_S, "IN", dns.rdatatype.to_text(question.rdtype), address
                    )
                )
        assert self._transport is not None
        self._transport.sendto(answer.to_wire(), addr)


def tls_context(authority: TestAuthority, names: list[str], records: Records) -> ssl.SSLContext:
    """A context that shows each name its own certificate, and records every hello."""
    contexts: dict[str, ssl.SSLContext] = {}
    for name in names:
        if name.startswith("badcert"):
            continue  # it gets one for another name
        contexts[name] = _context(authority.leaf(name))
    default = _context(authority.leaf("default.invalid"))

    def choose(connection: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
        records.write("hello", sni=name)
        connection.context = contexts.get(name or "", default)

    default.sni_callback = choose
    return default


def _context(pem: bytes) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.NamedTemporaryFile() as file:
        file.write(pem)
        file.flush()
        context.load_cert_chain(file.name)
    context.set_alpn_protocols(["http/1.1"])
    return context


async def _raw(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, records: Records) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65_536):
            records.write("raw", data=data.decode("latin-1"), local=writer.get_extra_info("sockname")[0])
    writer.close()


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, banner: bytes) -> None:
    with contextlib.suppress(ConnectionError):
        writer.write(banner)
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    writer.close()


async def main(config: dict[str, Any], authority: TestAuthority) -> None:
    """Serve until standard input ends."""
    loop = asyncio.get_running_loop()
    records = Records(Path(config["records"]))
    files = Files(Path(config["files"]), config["password"])
    tls = tls_context(authority, list(config["names"]), records)
    server = NameServer(config["names"], records)
    await loop.create_datagram_endpoint(lambda: server, local_addr=(config["resolver"], 53))

    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await serve_http(reader, writer, records, files, tls=False)

    async def encrypted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await serve_http(reader, writer, records, files, tls=True)

    for port in HTTP_PORTS:
        await asyncio.start_server(plain, None, port)
    for port in TLS_PORTS:
        await asyncio.start_server(encrypted, None, port, ssl=tls)
    await asyncio.start_server(lambda r, w: _raw(r, w, records), None, RAW_PORT)
    await asyncio.start_server(lambda r, w: _echo(r, w, b"SSH-2.0-test\r\n"), None, BANNER_PORT)
    await asyncio.start_server(lambda r, w: _echo(r, w, b""), None, ECHO_PORT)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    configuration = json.loads(sys.stdin.readline())
    its_authority = TestAuthority.load(
        Path(configuration["roots"]).read_bytes(), Path(configuration["key"]).read_bytes()
    )
    asyncio.run(main(configuration, its_authority))
