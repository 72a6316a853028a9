"""Everything that a stranger, or an api that was taken over, may try on hostd's socket: all of it is refused,
and hostd goes on.
"""

import asyncio
import contextlib
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio

from skerry.control.host_client import HostdClient
from skerry.errors import InvalidRequest, NotFound, NotSupported, SkerryError
from skerry.hostd.server import MAX_CONNECTIONS
from skerry.protocol.host_verbs import MAX_FRAME_BYTES, FrameReader, Reply
from skerry.spec.ids import SandboxId
from skerry.spec.sandbox import Isolation
from tests.conftest import REPOSITORY, Built
from tests.harness.guest import Guest, guest_on, new_id, spec
from tests.harness.hostd_process import HostdProcess, client_of, instance
from tests.harness.waiting import until_awaited

pytestmark = [
    pytest.mark.needs_root,
    pytest.mark.timeout(120),
    pytest.mark.asyncio(loop_scope="module"),  # one hostd for all: none of this may harm it
]

WAIT_S = 15.0
NOBODY = 65534

HOSTILE_IDS = [
    "",
    ".",
    "..",
    "/",
    "../../../etc/passwd",
    "/etc/passwd",
    "sbx_ord_" + "a" * 19,
    "sbx_ord_" + "a" * 21,
    "sbx_ord_" + "a" * 100_000,
    "sbx_ord_" + "A" * 20,
    "sbx_ord_" + "a" * 19 + "/",
    "sbx_ord_" + "a" * 20 + "\n",
    "sbx_ord_" + "a" * 20 + "\0",
    "sbx_../_" + "a" * 20,
    "sbx_ord_" + "\u0430" * 20,
    "skerry-abc123-ord-" + "a" * 20,
    "%2e%2e",
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hostd(built: Built) -> AsyncIterator[HostdProcess]:
    async with instance(built) as process:
        yield process


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def host(hostd: HostdProcess) -> AsyncIterator[HostdClient]:
    async with client_of(hostd) as client:
        yield client


async def still_serves(host: HostdClient) -> bool:
    async with asyncio.timeout(WAIT_S):
        return await host.inspect() == []


def files_of(hostd: HostdProcess) -> set[str]:
    return {str(path) for path in hostd.runtime_dir.rglob("*")}


@pytest.mark.parametrize("sandbox_id", HOSTILE_IDS, ids=lambda text: ascii(text[:40]))
async def test_no_verb_takes_a_name_that_is_not_an_id(
    hostd: HostdProcess, host: HostdClient, sandbox_id: str
) -> None:
    await host.describe()
    before, bad = files_of(hostd), SandboxId(sandbox_id)
    for call in (
        host.destroy(bad),
        host.pause(bad),
        host.resume(bad),
        host.stats(bad),
        host.start(msgspec.structs.replace(spec(Isolation.GVISOR), sandbox_id=bad)),
        host.listen(bad, asyncio.Protocol),
    ):
        with pytest.raises(InvalidRequest):
            await call

    assert files_of(hostd) == before
    assert await still_serves(host)


@pytest.mark.parametrize(
    ("changes", "family"),
    [
        ({"image": "/etc/shadow"}, NotFound),
        ({"image": "builtin:debian-13,upperdir=/etc"}, NotFound),
        ({"image": "x" * 500_000}, NotFound),
        ({"isolation": Isolation.FAKE}, NotSupported),
        ({"isolation": Isolation.NAMESPACE}, NotSupported),
        ({"memory_mib": 1 << 62}, InvalidRequest),
        ({"memory_mib": -(1 << 62)}, InvalidRequest),
        ({"cpus": float("nan")}, InvalidRequest),
        ({"cpus": -1.0}, InvalidRequest),
        ({"disk_mib": 0}, InvalidRequest),
        ({"max_processes": 1 << 40}, InvalidRequest),
    ],
)
async def test_a_start_out_of_bounds_is_refused(
    hostd: HostdProcess, host: HostdClient, changes: dict[str, object], family: type[SkerryError]
) -> None:
    await host.describe()
    before = files_of(hostd)
    with pytest.raises(family):
        await host.start(msgspec.structs.replace(spec(Isolation.GVISOR), **changes))

    assert files_of(hostd) == before


async def test_sandboxes_of_another_instance_are_out_of_reach(built: Built, host: HostdClient) -> None:
    async with (
        instance(built) as other,
        client_of(other) as other_host,
        guest_on(other_host, Isolation.GVISOR) as guest,
    ):
        with pytest.raises(NotFound):
            await host.pause(guest.id)
        with pytest.raises(NotFound):
            await host.stats(guest.id)
        await host.destroy(guest.id)

        assert (await guest.shell("echo untouched")).stdout == "untouched\n"


async def test_an_id_that_is_used_cannot_be_started_over(host: HostdClient) -> None:
    async with guest_on(host, Isolation.GVISOR) as guest:
        with pytest.raises(SkerryError):
            await host.start(spec(Isolation.GVISOR, guest.id))

        assert (await guest.shell("echo mine")).stdout == "mine\n"


@pytest.mark.parametrize("uid", [NOBODY, 0], ids=["stranger", "root"])
async def test_only_one_user_is_served_and_not_even_root_otherwise(built: Built, uid: int) -> None:
    async with instance(built, allowed_uid=4711) as hostd:
        os.chmod(hostd.socket, 0o666)  # noqa: S103 - so that the peer's identity alone decides
        assert await asyncio.to_thread(_answer_to, hostd.socket, uid) == "closed"
        assert await asyncio.to_thread(_answer_to, hostd.socket, 4711) == "answered"


async def test_the_socket_itself_keeps_strangers_out(hostd: HostdProcess) -> None:
    assert hostd.socket.stat().st_mode & 0o777 == 0o660
    assert await asyncio.to_thread(_answer_to, hostd.socket, NOBODY) == "PermissionError"


async def test_other_users_of_the_machine_see_no_file_of_a_sandbox(
    hostd: HostdProcess, host: HostdClient
) -> None:
    async with guest_on(host, Isolation.GVISOR):
        code = (
            "import os, sys; os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
            "for entry in os.scandir(sys.argv[1]):\n"
            "    if entry.is_dir():\n"
            "        try: print(entry.name, os.listdir(entry))\n"
            "        except PermissionError: pass\n"
        )
        seen = await asyncio.to_thread(_printed_by, code, str(hostd.runtime_dir))

    assert seen == ""


@pytest.mark.parametrize(
    "garbage",
    [
        struct.pack(">I", MAX_FRAME_BYTES + 1),
        struct.pack(">I", 0xFFFFFFFF),
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        os.urandom(4096).replace(b"\0", b"\xff"),
    ],
)
async def test_what_is_no_frame_ends_that_connection_only(
    hostd: HostdProcess, host: HostdClient, garbage: bytes
) -> None:
    with raw(hostd) as peer:
        peer.sendall(garbage)
        assert _received(peer) == b""

    assert await still_serves(host)


@pytest.mark.parametrize(
    "verb",
    [
        {"type": "Reboot"},
        {"type": "Exec", "argv": ["/bin/sh"]},
        {"type": "Mount", "source": "/", "target": "/mnt"},
        {"type": "Start", "spec": {"root": "/etc"}},
        {"type": "Destroy", "sandbox_id": ["sbx_ord_" + "a" * 20]},
        {"type": "Inspect", "path": "/"},
        None,
        "Describe",
        7,
    ],
)
async def test_verbs_that_do_not_exist_are_refused_and_the_connection_goes_on(
    hostd: HostdProcess, verb: object
) -> None:
    with raw(hostd) as peer:
        peer.sendall(_frame({"id": 1, "verb": verb}))
        refused = _reply(peer)
        peer.sendall(_frame({"id": 2, "verb": {"type": "Inspect"}}))
        answered = _reply(peer)

    assert refused.failure is not None
    assert refused.failure.family == "InvalidRequest"
    assert (answered.id, answered.failure) == (2, None)


async def test_descriptors_sent_to_hostd_are_not_kept(hostd: HostdProcess) -> None:
    assert hostd._process is not None
    kept = Path(f"/proc/{hostd._process.pid}/fd")
    with raw(hostd) as peer:
        peer.sendall(_frame({"id": 0, "verb": {"type": "Inspect"}}))
        _reply(peer)
        before = len(os.listdir(kept))
        reading, writing = os.pipe()
        for number in range(50):
            socket.send_fds(
                peer, [_frame({"id": number, "verb": {"type": "Inspect"}})], [reading, writing] * 10
            )
            _reply(peer)
        after = len(os.listdir(kept))
        os.close(reading)
        os.close(writing)

    assert after == before


async def test_a_flood_of_connections_is_cut_off_and_ends_with_the_flooder(
    hostd: HostdProcess, host: HostdClient
) -> None:
    assert await still_serves(host)
    with contextlib.ExitStack() as stack:
        peers = [
            stack.enter_context(await asyncio.to_thread(_connected, hostd))
            for _ in range(2 * MAX_CONNECTIONS)
        ]
        for peer in peers[MAX_CONNECTIONS:]:
            assert await asyncio.to_thread(_received, peer) == b""
        assert await still_serves(host)

    await until_awaited(lambda: asyncio.to_thread(_is_served, hostd), what="an answer after the flood")


async def test_a_flood_of_calls_that_nobody_reads_costs_little_memory_and_disturbs_nobody(
    hostd: HostdProcess, host: HostdClient
) -> None:
    assert hostd._process is not None
    before_kib = _resident_kib(hostd._process.pid)
    with raw(hostd) as peer:
        peer.setblocking(False)
        call = _frame({"id": 1, "verb": {"type": "Describe"}})
        sent = 0
        with contextlib.suppress(BlockingIOError):
            while sent < (64 << 20):
                sent += peer.send(call * 100)
        assert await still_serves(host)
        grown_kib = _resident_kib(hostd._process.pid) - before_kib

    assert sent < (64 << 20)
    assert grown_kib < 32 << 10


async def test_a_guest_sees_only_its_own_agent_and_channel_of_the_host(host: HostdClient) -> None:
    async with guest_on(host, Isolation.GVISOR) as one, guest_on(host, Isolation.GVISOR):
        listed = await one.shell("ls -A /run/skerry /.skerry", user="root")
        written = await one.shell(
            "touch /run/skerry/x; rm /run/skerry/agent.sock; echo >/.skerry/skerry-agent", user="root"
        )
        as_app = await one.run(
            "/usr/bin/python3",
            "-c",
            "import socket; socket.socket(socket.AF_UNIX).connect('/run/skerry/agent.sock')",
        )

    assert listed.stdout.split() == ["/.skerry:", "skerry-agent", "/run/skerry:", "agent.sock"]
    assert written.stderr.count("Read-only file system") == 3
    assert "Permission denied" in as_app.stderr


async def test_listeners_that_are_never_used_are_bounded(hostd: HostdProcess, host: HostdClient) -> None:
    for _ in range(50):
        (await host.listen(new_id(), asyncio.Protocol)).close()
    guest = await Guest.started(host, spec(Isolation.GVISOR))
    await guest.destroy()

    assert guest.id not in os.listdir(hostd.runtime_dir / "agents")


def raw(hostd: HostdProcess) -> socket.socket:
    """A connection without any manners."""
    peer = socket.socket(socket.AF_UNIX)
    peer.settimeout(WAIT_S)
    try:
        peer.connect(str(hostd.socket))
    except OSError:
        peer.close()
        raise
    return peer


def _connected(hostd: HostdProcess) -> socket.socket:
    """A connection, as soon as there is room in the backlog."""
    while True:
        with contextlib.suppress(BlockingIOError):
            return raw(hostd)
        time.sleep(0.01)


def _frame(message: object) -> bytes:
    body = msgspec.msgpack.encode(message)
    return struct.pack(">I", len(body)) + body


def _reply(peer: socket.socket) -> Reply:
    reader = FrameReader()
    while True:
        data = peer.recv(65_536)
        assert data, "closed"
        for body in reader.feed(data):
            return msgspec.msgpack.decode(body, type=Reply)


def _received(peer: socket.socket) -> bytes:
    try:
        return peer.recv(1)
    except ConnectionResetError:
        return b""


def _is_served(hostd: HostdProcess) -> bool:
    with raw(hostd) as peer:
        try:
            peer.sendall(_frame({"id": 1, "verb": {"type": "Inspect"}}))
            return bool(peer.recv(1))
        except OSError:
            return False


def _answer_to(path: Path, uid: int) -> str:
    """What a process of that user gets when it asks."""
    code = (
        "import os, socket, sys\n"
        f"os.setgroups([]); os.setgid({uid}); os.setuid({uid})\n"
        "peer = socket.socket(socket.AF_UNIX); peer.settimeout(10)\n"
        "try:\n"
        "    peer.connect(sys.argv[1])\n"
        "    peer.sendall(bytes.fromhex(sys.argv[2]))\n"
        "    print('answered' if peer.recv(1) else 'closed')\n"
        "except (ConnectionResetError, BrokenPipeError): print('closed')\n"
        "except OSError as error: print(type(error).__name__)\n"
    )
    asked = _frame({"id": 1, "verb": {"type": "Inspect"}}).hex()
    return _printed_by(code, str(path), asked)


def _printed_by(code: str, *arguments: str) -> str:
    """What a Python program prints."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        cwd=REPOSITORY,
        check=True,
    )
    return done.stdout.strip()


def _resident_kib(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise AssertionError("no such process")
