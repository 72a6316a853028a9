"""What a create asks of the service, and how connections are watched."""

import asyncio
import socket

import pytest

from skerry.api.deno.upgrade import create_request, notice_dead_peers
from skerry.errors import InvalidRequest, NotSupported
from skerry.protocol.deno_config import SandboxConfig


def test_without_any_member_it_is_a_session_with_defaults() -> None:
    request = create_request(SandboxConfig())
    assert request.session
    assert (request.memory_mib, request.labels, request.env, request.volumes) == (None, {}, {}, {})


@pytest.mark.parametrize("config", [SandboxConfig(timeout="5m"), SandboxConfig(stop_at_ms=1)])
def test_an_end_makes_it_no_session(config: SandboxConfig) -> None:
    request = create_request(config)
    assert not request.session
    assert (request.duration_s, request.stop_at_ms) in ((300, None), (None, 1))


@pytest.mark.parametrize("port", [0, -1, 65_536])
def test_a_port_that_is_none_is_refused(port: int) -> None:
    with pytest.raises(InvalidRequest, match="port"):
        create_request(SandboxConfig(port=port))


@pytest.mark.parametrize("config", [SandboxConfig(port=80), SandboxConfig(ssh=True)])
def test_exposure_is_not_there_yet(config: SandboxConfig) -> None:
    with pytest.raises(NotSupported):
        create_request(config)


async def test_the_kernel_watches_tcp_connections_only() -> None:
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    async with server:
        transport, _ = await asyncio.get_running_loop().create_connection(
            asyncio.Protocol, *server.sockets[0].getsockname()
        )
        notice_dead_peers(transport)
        connection = transport.get_extra_info("socket")
        assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 20
        transport.close()
    near, far = socket.socketpair()
    transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, sock=near)
    notice_dead_peers(transport)
    assert transport.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0
    transport.abort()
    far.close()
