"""Everything that a stranger, or an api that was taken over, may try on egressd's socket: all of it is
refused, and egressd goes on.
"""

import asyncio
import os
import socket
import struct
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from skerry.control.egress_client import EgressdClient
from skerry.daemon.data_dir import API_USER, EGRESS_USER, account
from skerry.egress.broker.server import MAX_CONNECTIONS
from skerry.errors import InvalidRequest
from skerry.policy.document import AllowRule
from skerry.protocol.egress_verbs import EgressCall, EgressDescribe
from skerry.protocol.host_verbs import MAX_FRAME_BYTES, FrameReader, Reply, frame
from skerry.spec.ids import SandboxId
from tests.harness.egress_ground import HOST, ID, VALUE, grant, layer, secret
from tests.harness.egressd_process import EgressdProcess, client_of, egressd
from tests.harness.waiting import until

pytestmark = [
    pytest.mark.needs_root,
    pytest.mark.timeout(120),
    pytest.mark.asyncio(loop_scope="module"),  # one egressd for all: none of this may harm it
]

WAIT_S = 15.0
NOBODY = 65534

HOSTILE_IDS = [
    "",
    "..",
    "/",
    "../../../etc/passwd",
    "sbx_ord_" + "a" * 19,
    "sbx_ord_" + "a" * 21,
    "sbx_ord_" + "a" * 100_000,
    "sbx_ord_" + "A" * 20,
    "sbx_ord_" + "a" * 19 + "/",
    "sbx_ord_" + "a" * 20 + "\n",
    "sbx_ord_" + "a" * 20 + ".1",
    "sbx_../_" + "a" * 20,
    "sbx_ord_" + "\u0430" * 20,
]

ASK = """
import os, socket, sys
path, uid, gid = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
question = sys.stdin.buffer.read()
os.setgroups([]); os.setgid(gid); os.setuid(uid)
asked = socket.socket(socket.AF_UNIX)
asked.settimeout(10)
try:
    asked.connect(path)
    asked.sendall(question)
    print("answered" if asked.recv(65536) else "closed")
except OSError as error:
    print("closed" if isinstance(error, (ConnectionResetError, BrokenPipeError)) else type(error).__name__)
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def process() -> AsyncIterator[EgressdProcess]:
    async with egressd() as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def egress(process: EgressdProcess) -> AsyncIterator[EgressdClient]:
    async with client_of(process) as client:
        yield client


async def still_serves(egress: EgressdClient) -> bool:
    async with asyncio.timeout(WAIT_S):
        return (await egress.describe()).sandboxes == ()


def answer_to(process: EgressdProcess, uid: int, gid: int) -> str:
    """What a process of this user gets to hear."""
    done = subprocess.run(
        [sys.executable, "-c", ASK, str(process.place.egressd_socket), str(uid), str(gid)],
        input=frame(EgressCall(1, EgressDescribe())),
        capture_output=True,
        timeout=30,
        check=True,
    )
    return done.stdout.decode().strip()


async def test_only_apis_user_is_served_and_not_even_root_otherwise() -> None:
    api, gateway = account(API_USER), account(EGRESS_USER)
    async with egressd(allowed_uid=api.pw_uid) as process:
        path = process.place.egressd_socket
        assert os.stat(path).st_mode & 0o777 == 0o660
        assert await asyncio.to_thread(answer_to, process, api.pw_uid, api.pw_gid) == "answered"
        assert await asyncio.to_thread(answer_to, process, NOBODY, NOBODY) == "PermissionError"
        os.chmod(path, 0o666)  # noqa: S103 - so that the peer's identity alone decides
        for uid in (NOBODY, 0, gateway.pw_uid):
            assert await asyncio.to_thread(answer_to, process, uid, api.pw_gid) == "closed"
        assert await asyncio.to_thread(answer_to, process, api.pw_uid, api.pw_gid) == "answered"


async def test_other_users_see_nothing_of_the_audit_trails(process: EgressdProcess) -> None:
    assert os.stat(process.data / "egress").st_mode & 0o777 == 0o700
    assert os.listdir(process.place.egress_state) == [], "it is mounted for egressd alone"


@pytest.mark.parametrize("sandbox_id", HOSTILE_IDS, ids=lambda text: ascii(text[:40]))
async def test_no_verb_takes_a_name_that_is_not_an_id(
    process: EgressdProcess, egress: EgressdClient, sandbox_id: str
) -> None:
    bad = SandboxId(sandbox_id)
    before = sorted(process.data.rglob("*"))
    for call in (
        egress.grant(grant(secret(), sandbox_id=bad)),
        egress.release(bad),
        egress.allow_host(bad, AllowRule(host=HOST)),
        egress.set_layers(bad, [layer(HOST)]),
        egress.explain(bad, HOST),
        egress.secrets(bad),
        egress.rotate(bad, "KEY", VALUE),
        egress.revoke(bad, "KEY"),
        egress.read_audit(bad),
    ):
        with pytest.raises(InvalidRequest):
            await call
    await egress.forget_audit([bad])
    assert sorted(process.data.rglob("*")) == before
    assert await still_serves(egress)


@pytest.mark.parametrize(
    "garbage",
    [
        struct.pack(">I", MAX_FRAME_BYTES + 1),
        struct.pack(">I", 0xFFFFFFFF),
        b"GET / HTTP/1.1\r\nHost: egressd\r\n\r\n",
        b"\x00" * 10_000,
        os.urandom(100_000),
        struct.pack(">I", 100_000) + b"\x91" * 100_000,
        struct.pack(">I", 50) + b"half a frame",
    ],
)
async def test_garbage_ends_a_connection_or_is_refused(
    process: EgressdProcess, egress: EgressdClient, garbage: bytes
) -> None:
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as sock:
        await loop.sock_connect(sock, str(process.place.egressd_socket))
        with suppress(BrokenPipeError, ConnectionResetError):
            await loop.sock_sendall(sock, garbage)
    assert await still_serves(egress)


async def test_a_peer_that_never_reads_does_not_stop_others(
    process: EgressdProcess, egress: EgressdClient
) -> None:
    loop = asyncio.get_running_loop()
    await egress.grant(grant(*(secret(f"KEY{n}") for n in range(40))))
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as sock:
        await loop.sock_connect(sock, str(process.place.egressd_socket))
        ask: Any = msgspec.msgpack.encode({"id": 1, "verb": {"type": "ListSecrets", "sandbox_id": ID}})
        flood = struct.pack(">I", len(ask)) + ask
        with suppress(TimeoutError, BrokenPipeError, ConnectionResetError):
            async with asyncio.timeout(1):
                while True:
                    await loop.sock_sendall(sock, flood)
        assert len(await egress.secrets(ID)) == 40
    await egress.release(ID)
    assert await still_serves(egress)


async def test_too_many_connections_are_refused_and_those_that_are_there_go_on(
    process: EgressdProcess, egress: EgressdClient
) -> None:
    loop = asyncio.get_running_loop()
    await egress.describe()
    held: list[socket.socket] = []
    try:
        for _ in range(MAX_CONNECTIONS + 5):
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            held.append(sock)
            await loop.sock_connect(sock, str(process.place.egressd_socket))
            await asyncio.sleep(0.002)  # the queue of those that wait to be accepted is short
        async with asyncio.timeout(WAIT_S):
            assert await loop.sock_recv(held[-1], 1) == b""
        assert await still_serves(egress)
    finally:
        for sock in held:
            sock.close()
    await until(lambda: answers(process))


def answers(process: EgressdProcess) -> bool:
    """Whether a new connection is served."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(0.2)
        try:
            sock.connect(str(process.place.egressd_socket))
            sock.sendall(frame(EgressCall(1, EgressDescribe())))
            bodies = FrameReader().feed(sock.recv(65_536))
        except OSError:
            return False
    return bool(bodies) and msgspec.msgpack.decode(bodies[0], type=Reply).failure is None


async def test_files_and_descriptors_do_not_grow(process: EgressdProcess, egress: EgressdClient) -> None:
    def descriptors() -> int:
        return len(os.listdir(f"/proc/{process.pid}/fd"))

    async def rounds(count: int) -> None:
        for _ in range(count):
            await egress.grant(grant(secret()))
            await process.tell("rules")
            await egress.release(ID)

    await rounds(3)
    before = descriptors()
    await rounds(10)
    assert descriptors() <= before
    assert process.put_away() == []
    assert await still_serves(egress)
