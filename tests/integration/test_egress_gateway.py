"""The way of a packet from a real sandbox to the sockets that egressd gets from hostd, and nowhere else."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager

import pytest

from skerry.hostd.network.addresses import guest_address
from skerry.protocol.host_verbs import OpenGateway
from skerry.spec.ids import egress_group
from skerry.spec.sandbox import Isolation
from tests.conftest import Built
from tests.harness.egress_peer import Answer, ask_as, open_gateway
from tests.harness.guest import Guest, guest_on
from tests.harness.hostd_process import EGRESS_UID, HostdProcess, client_of, instance
from tests.harness.namespaces import original_destination, recorded

pytestmark = [pytest.mark.needs_root, pytest.mark.timeout(120)]

WAIT_S = 20.0

CONNECT = """
import socket
connection = socket.create_connection(({address!r}, {port}), timeout=20)
connection.sendall(b'hello ' * 1000)
print(connection.recv(100).decode(), connection.getpeername())
"""

ASK = """
import socket
asking = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
asking.settimeout(20)
asking.connect(({address!r}, {port}))
asking.send(b'question')
print(asking.recv(100).decode())
"""


@asynccontextmanager
async def gateway_of(hostd: HostdProcess, guest: Guest) -> AsyncIterator[Answer]:
    """Both sockets of a sandbox, as egressd gets them."""
    answer = await open_gateway(hostd.socket, guest.id, uid=EGRESS_UID, gid=egress_group(hostd.instance))
    try:
        assert answer.refusal == ""
        yield answer
    finally:
        answer.close()


async def serve_one(listener: socket.socket) -> tuple[tuple[str, int], str]:
    """Answer one connection; returns where it was going and from which address it came."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(WAIT_S):
        connection, peer = await loop.sock_accept(listener)
        with connection:
            received = b""
            while len(received) < 6000:
                received += await loop.sock_recv(connection, 65_536)
            await loop.sock_sendall(connection, b"served")
            return original_destination(connection), peer[0]


async def with_guest(
    serving: Awaitable[tuple[tuple[str, int], str]], guest: Guest, code: str
) -> tuple[tuple[tuple[str, int], str], str]:
    served, done = await asyncio.gather(serving, guest.run("/usr/bin/python3", "-c", code))
    assert done.exit.code == 0, done.stderr
    return served, done.stdout


async def test_connections_and_questions_arrive_and_nothing_else_does(built: Built) -> None:
    async with instance(built) as hostd, client_of(hostd) as host:
        with recorded() as uplink:
            async with guest_on(host, Isolation.GVISOR) as guest, gateway_of(hostd, guest) as gateway:
                tcp, udp = gateway.sockets
                assert (tcp.type, udp.type) == (socket.SOCK_STREAM, socket.SOCK_DGRAM)
                for address, port in (("192.0.2.1", 443), ("169.254.169.254", 80), ("8.8.8.8", 53)):
                    served, printed = await with_guest(
                        serve_one(tcp), guest, CONNECT.format(address=address, port=port)
                    )
                    assert served == ((address, port), str(guest_address(0)))
                    assert printed == f"served ('{address}', {port})\n"

                async def answer() -> tuple[tuple[str, int], str]:
                    loop = asyncio.get_running_loop()
                    data, peer = await loop.sock_recvfrom(udp, 100)
                    await loop.sock_sendto(udp, b"answer to " + data, peer)
                    return ("", 0), peer[0]

                for server in ("198.18.0.1", "8.8.8.8"):
                    _, printed = await with_guest(answer(), guest, ASK.format(address=server, port=53))
                    assert printed == "answer to question\n"
                refused = await guest.run("/usr/bin/python3", "-c", ASK.format(address="192.0.2.1", port=443))
                assert "Connection refused" in refused.stderr
                v6 = await guest.run("/usr/bin/python3", "-c", CONNECT.format(address="2001:db8::1", port=80))
                assert v6.exit.code != 0
                own = await guest.run(
                    "/usr/bin/python3", "-c", CONNECT.format(address="10.201.0.0", port=20000)
                )
                assert "Connection refused" in own.stderr
            sent = bytes(guest_address(0).packed)
            assert [frame for _, frame in uplink.frames() if frame[26:30] == sent] == []
            assert uplink.holding(b"hello hello") == []


async def test_the_gateway_outlives_a_killed_hostd_and_a_frozen_sandbox(built: Built) -> None:
    async with (
        instance(built) as hostd,
        client_of(hostd) as host,
        guest_on(host, Isolation.GVISOR) as guest,
    ):
        code = CONNECT.format(address="192.0.2.1", port=443)
        async with gateway_of(hostd, guest) as gateway:
            await host.pause(guest.id)
            await host.resume(guest.id)
            await with_guest(serve_one(gateway.sockets[0]), guest, code)

            await hostd.kill()
            await with_guest(serve_one(gateway.sockets[0]), guest, code)
            await hostd.start()

            await with_guest(serve_one(gateway.sockets[0]), guest, code)
            again = await ask_as(
                hostd.socket,
                OpenGateway(guest.id),
                uid=EGRESS_UID,
                gid=egress_group(hostd.instance),
            )
            assert again.reply is not None
            assert again.reply.failure is not None
            assert again.reply.failure.code == "GATEWAY_HELD"
        # Nobody has them any more.
        async with gateway_of(hostd, guest) as gateway:
            await with_guest(serve_one(gateway.sockets[0]), guest, code)
        # hostd keeps them, so a connection waits for the next egressd.
        waiting = asyncio.get_running_loop().create_task(guest.run("/usr/bin/python3", "-c", code))
        await asyncio.sleep(0)
        async with gateway_of(hostd, guest) as gateway:
            await serve_one(gateway.sockets[0])
            assert (await waiting).exit.code == 0


async def test_an_ended_sandbox_has_no_gateway(built: Built) -> None:
    async with (
        instance(built) as hostd,
        client_of(hostd) as host,
        guest_on(host, Isolation.GVISOR) as guest,
        gateway_of(hostd, guest) as gateway,
    ):
        await host.destroy(guest.id)
        answer = await open_gateway(hostd.socket, guest.id, uid=EGRESS_UID, gid=egress_group(hostd.instance))
        assert answer.refusal == "NotFound"
        with pytest.raises(BlockingIOError):
            gateway.sockets[0].accept()
