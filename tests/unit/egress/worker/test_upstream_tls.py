"""TLS towards origins: who is trusted, and what is not."""

import asyncio
import os
import socket
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from skerry.egress.ca import Issuer, make_authority
from skerry.egress.worker.upstream_tls import (
    HandshakeFailed,
    UntrustedOrigin,
    connect_tls,
    upstream_context,
)
from skerry.errors import HostUnusable
from skerry.spec.ids import SandboxId
from tests.harness.origins.certificates import TestAuthority

NAME = "api.example.com"


@asynccontextmanager
async def origin(context: ssl.SSLContext | None) -> AsyncIterator[socket.socket]:
    """A connected client socket, whose other end speaks TLS, or answers in clear."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)

    async def serve() -> None:
        if context is None:
            loop = asyncio.get_running_loop()
            await loop.sock_recv(theirs, 65536)
            await loop.sock_sendall(theirs, b"HTTP/1.1 400 Bad Request\r\n\r\n")
            return
        reader = asyncio.StreamReader()
        try:
            transport, _ = await asyncio.get_running_loop().connect_accepted_socket(
                lambda: asyncio.StreamReaderProtocol(reader), theirs, ssl=context
            )
        except OSError:
            return
        transport.close()

    async with asyncio.TaskGroup() as group:
        task = group.create_task(serve())
        try:
            yield ours
        finally:
            task.cancel()
    ours.close()
    theirs.close()


def server(chain: bytes, tmp_path: Path) -> ssl.SSLContext:
    file = tmp_path / "chain.pem"
    file.write_bytes(chain)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context


@pytest.fixture
def authority(tmp_path: Path) -> TestAuthority:
    made = TestAuthority.make()
    (tmp_path / "roots.pem").write_bytes(made.certificate_pem)
    return made


@pytest.fixture
def context(authority: TestAuthority, tmp_path: Path) -> ssl.SSLContext:
    return upstream_context((str(tmp_path / "roots.pem"),))


async def test_an_origin_with_a_good_certificate(
    authority: TestAuthority, context: ssl.SSLContext, tmp_path: Path
) -> None:
    async with origin(server(authority.leaf(NAME), tmp_path)) as sock:
        session = (await connect_tls(sock, NAME, context)).session
        assert session.selected_alpn_protocol() == "http/1.1"
        assert session.version() == "TLSv1.3"
        assert session.server_hostname == NAME


@pytest.mark.parametrize("names", [("other.example.com",), ("*.example.org",), ("example.com",)])
async def test_a_certificate_of_another_name(
    authority: TestAuthority, context: ssl.SSLContext, tmp_path: Path, names: tuple[str, ...]
) -> None:
    async with origin(server(authority.leaf(*names), tmp_path)) as sock:
        with pytest.raises(UntrustedOrigin):
            await connect_tls(sock, NAME, context)


async def test_a_certificate_of_an_unknown_authority(context: ssl.SSLContext, tmp_path: Path) -> None:
    async with origin(server(TestAuthority.make().leaf(NAME), tmp_path)) as sock:
        with pytest.raises(UntrustedOrigin):
            await connect_tls(sock, NAME, context)


async def test_a_certificate_of_a_sandboxs_own_authority(context: ssl.SSLContext, tmp_path: Path) -> None:
    now_ms = time.time_ns() // 1_000_000
    issuer = Issuer(make_authority(SandboxId("sbx_ord_" + "a" * 20), None, now_ms))
    key = ssl.DER_cert_to_PEM_cert(issuer.leaf_key).replace("CERTIFICATE", "PRIVATE KEY")
    chain = ssl.DER_cert_to_PEM_cert(issuer.leaf(NAME, now_ms)) + key
    async with origin(server(chain.encode(), tmp_path)) as sock:
        with pytest.raises(UntrustedOrigin):
            await connect_tls(sock, NAME, context)


async def test_an_origin_of_old_tls_only(
    authority: TestAuthority, context: ssl.SSLContext, tmp_path: Path
) -> None:
    old = server(authority.leaf(NAME), tmp_path)
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    async with origin(old) as sock:
        with pytest.raises(HandshakeFailed):
            await connect_tls(sock, NAME, context)


async def test_an_origin_that_speaks_no_tls(context: ssl.SSLContext) -> None:
    async with origin(None) as sock:
        with pytest.raises(HandshakeFailed):
            await connect_tls(sock, NAME, context)


def test_keys_are_not_written_down(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
    upstream_context.cache_clear()
    assert upstream_context(()).keylog_filename is None
    assert not os.path.exists(tmp_path / "keys")


def test_no_variable_replaces_the_systems_roots(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "missing.pem"))
    upstream_context.cache_clear()
    assert upstream_context(()).cert_store_stats()["x509_ca"] > 10


def test_a_machine_without_roots_is_told_what_to_install() -> None:
    with pytest.raises(HostUnusable, match="ca-certificates"):
        upstream_context((), ())


def test_a_file_of_roots_that_cannot_be_read_is_an_error_without_its_path(tmp_path: Path) -> None:
    with pytest.raises(HostUnusable) as error:
        upstream_context((str(tmp_path / "missing.pem"),))
    assert str(tmp_path) not in error.value.message
    assert str(tmp_path) in error.value.detail


def test_one_context_is_shared() -> None:
    assert upstream_context(()) is upstream_context(())
