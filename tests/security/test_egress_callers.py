"""Who may have a sandbox's packets: egressd's broker, nobody else, and it may have nothing else."""

import asyncio
import socket
import subprocess
import sys
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from skerry.control.host_client import HostdClient
from skerry.hostd.server import MAX_EGRESS_CONNECTIONS
from skerry.protocol.host_verbs import Describe, Destroy, Inspect, OpenGateway, OpenListener, Verb, Watch
from skerry.spec.ids import SandboxId, egress_group
from skerry.spec.sandbox import Isolation
from tests.conftest import Built
from tests.harness.egress_peer import ask_as, open_gateway
from tests.harness.guest import Guest, guest_on, new_id
from tests.harness.hostd_process import EGRESS_UID, HostdProcess, client_of, instance
from tests.harness.waiting import until_awaited

pytestmark = [
    pytest.mark.needs_root,
    pytest.mark.timeout(120),
    pytest.mark.asyncio(loop_scope="module"),
]

NOBODY = 65_534


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hostd(built: Built) -> AsyncIterator[HostdProcess]:
    async with instance(built) as found:
        found.socket.chmod(0o666)  # so that the peer's identity alone decides
        yield found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def host(hostd: HostdProcess) -> AsyncIterator[HostdClient]:
    async with client_of(hostd) as found:
        yield found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def guest(host: HostdClient) -> AsyncIterator[Guest]:
    async with guest_on(host, Isolation.GVISOR) as found:
        yield found


async def test_the_socket_itself_keeps_strangers_out(built: Built) -> None:
    async with instance(built) as other:
        found = other.socket.stat()
        assert (found.st_mode & 0o777, found.st_uid, found.st_gid) == (0o660, 0, egress_group(other.instance))


async def test_the_broker_gets_the_sockets_and_the_same_again(hostd: HostdProcess, guest: Guest) -> None:
    gid = egress_group(hostd.instance)
    first = await open_gateway(hostd.socket, guest.id, uid=EGRESS_UID, gid=gid)
    second = await open_gateway(hostd.socket, guest.id, uid=EGRESS_UID, gid=gid)
    try:
        assert [one.type for one in first.sockets] == [socket.SOCK_STREAM, socket.SOCK_DGRAM]
        for one, other in zip(first.sockets, second.sockets, strict=True):
            assert one.getsockname() == other.getsockname()
    finally:
        first.close()
        second.close()


@pytest.mark.parametrize(
    ("uid", "own_group"),
    [(NOBODY, True), (EGRESS_UID, False), (NOBODY, False)],
    ids=["another user", "another instance", "a stranger"],
)
async def test_others_are_not_even_answered(
    hostd: HostdProcess, guest: Guest, uid: int, own_group: bool
) -> None:
    gid = egress_group(hostd.instance) + (0 if own_group else 1)
    answer = await open_gateway(hostd.socket, guest.id, uid=uid, gid=gid)
    assert (answer.refusal, answer.sockets) == ("closed", ())


async def test_a_worker_that_was_taken_over_is_not_its_broker(hostd: HostdProcess, guest: Guest) -> None:
    gid = egress_group(hostd.instance)
    answer = await ask_as(hostd.socket, OpenGateway(guest.id), uid=EGRESS_UID, gid=gid, grandchild=True)
    assert (answer.refusal, answer.sockets) == ("closed", ())


async def test_api_cannot_have_a_sandbox_s_packets(hostd: HostdProcess, guest: Guest) -> None:
    answer = await ask_as(hostd.socket, OpenGateway(guest.id), uid=0, gid=0)
    assert (answer.refusal, answer.sockets) == ("Forbidden", ())


@pytest.mark.parametrize("verb", [Describe(), Inspect(), Watch()], ids=lambda verb: type(verb).__name__)
async def test_the_broker_can_ask_for_nothing_else(hostd: HostdProcess, verb: Verb) -> None:
    answer = await ask_as(hostd.socket, verb, uid=EGRESS_UID, gid=egress_group(hostd.instance))
    assert (answer.refusal, answer.sockets) == ("Forbidden", ())


async def test_the_broker_cannot_touch_a_sandbox(hostd: HostdProcess, guest: Guest) -> None:
    gid = egress_group(hostd.instance)
    for verb in (Destroy(guest.id), OpenListener(guest.id)):
        answer = await ask_as(hostd.socket, verb, uid=EGRESS_UID, gid=gid)
        assert (answer.refusal, answer.sockets) == ("Forbidden", ())
    assert (await guest.shell("echo alive")).stdout == "alive\n"


@pytest.mark.parametrize(
    ("sandbox_id", "refusal"),
    [
        (new_id(), "NotFound"),
        ("", "InvalidRequest"),
        ("../../gateway", "InvalidRequest"),
        ("g0", "InvalidRequest"),
        ("sbx_ord_" + "a" * 19 + "\0", "InvalidRequest"),
    ],
)
async def test_what_is_no_sandbox_has_no_gateway(
    hostd: HostdProcess, sandbox_id: SandboxId, refusal: str
) -> None:
    answer = await open_gateway(hostd.socket, sandbox_id, uid=EGRESS_UID, gid=egress_group(hostd.instance))
    assert (answer.refusal, answer.sockets) == (refusal, ())


HOLD_CONNECTIONS = """
import os, signal, socket, sys
path, uid, gid, count = sys.argv[1], *map(int, sys.argv[2:])
os.setgroups([]); os.setresgid(gid, gid, gid); os.setresuid(uid, uid, uid)
held = []
for _ in range(count):
    held.append(socket.socket(socket.AF_UNIX))
    held[-1].connect(path)
    held[-1].send(b"\\0\\0")
print("held", flush=True)
signal.pause()
"""


async def test_any_number_of_the_broker_s_connections_leaves_api_served(
    hostd: HostdProcess, host: HostdClient, guest: Guest
) -> None:
    gid = egress_group(hostd.instance)
    numbers = [str(number) for number in (EGRESS_UID, gid, MAX_EGRESS_CONNECTIONS + 10)]
    holding = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", HOLD_CONNECTIONS, str(hostd.socket), *numbers),
        stdout=subprocess.PIPE,
    )
    assert holding.stdout is not None
    assert await holding.stdout.readline() == b"held\n"

    assert [one.sandbox_id for one in await host.inspect()] == [guest.id]
    assert (await open_gateway(hostd.socket, guest.id, uid=EGRESS_UID, gid=gid)).refusal == "closed"
    holding.kill()
    await holding.wait()

    async def is_served() -> bool:
        answer = await open_gateway(hostd.socket, guest.id, uid=EGRESS_UID, gid=gid)
        answer.close()
        return answer.refusal == ""

    await until_awaited(is_served)
