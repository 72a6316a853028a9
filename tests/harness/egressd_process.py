"""Runs `tests.harness.egressd_child` as `up` does, with a hostd that only hands out sockets of the loopback
interface.
"""

import asyncio
import json
import os
import secrets
import shutil
import socket
import struct
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec

from skerry.cli.places import RuntimeDir
from skerry.control.clock import SystemClock
from skerry.control.egress_client import EgressdClient
from skerry.control.tasks import Tasks
from skerry.daemon.data_dir import EGRESS_USER, account
from skerry.daemon.kept_files import KeptFiles
from skerry.daemon.launch import Running, launch
from skerry.daemon.lifeline import Hello
from skerry.egress.broker.held import Held
from skerry.egress.broker.vault import restore
from skerry.errors import NotFound
from skerry.protocol.host_verbs import Call, Failure, FrameReader, OpenGateway, Reply, frame
from skerry.spec.ids import InstanceId, SandboxId, new_instance_id
from skerry.spec.settings import EgressSettings, Settings
from tests.harness.egress_ground import ID, ScriptedHostd

CHILD = Path(__file__).with_name("egressd_child.py")
WAIT_S = 15.0
SETTINGS = EgressSettings(resolvers=("192.0.2.53:53",))
_UCRED = struct.Struct("=iII")


class GatewayServer:
    """hostd, as far as egressd knows it.

    Attributes:
        peers: Process, user and group of everyone who asked.
        known: Sandboxes that exist.
    """

    def __init__(self, path: Path) -> None:
        self.hostd = ScriptedHostd()
        self.peers: list[tuple[int, int, int]] = []
        self.known = {ID}
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self._listener.bind(str(path))
        path.chmod(0o666)
        self._listener.listen(16)

    async def serve(self) -> None:
        """Answer until cancelled."""
        loop = asyncio.get_running_loop()
        with self._listener:
            while True:
                sock, _ = await loop.sock_accept(self._listener)
                with sock:
                    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
                    self.peers.append(_UCRED.unpack(credentials))
                    with suppress(ConnectionError):  # it was killed meanwhile
                        for body in FrameReader().feed(await loop.sock_recv(sock, 4096)):
                            self._answer(sock, msgspec.msgpack.decode(body, type=Call))

    def stop(self) -> None:
        """Listen no more. Idempotent."""
        self._listener.close()

    def _answer(self, sock: socket.socket, call: Call) -> None:
        assert isinstance(call.verb, OpenGateway)
        if call.verb.sandbox_id in self.known:
            gateway = self.hostd.of(call.verb.sandbox_id)
            descriptors = [gateway.tcp.fileno(), gateway.udp.fileno()]
            socket.send_fds(sock, [frame(Reply(call.id))], descriptors)
        else:
            sock.send(frame(Reply(call.id, failure=Failure(NotFound.__name__, NotFound.code, "none"))))


class EgressdProcess:
    """One instance's egressd, which can be killed and started again; its files are kept meanwhile.

    Attributes:
        printed: Everything on its standard error.
        complaints: What was not kept, and why.
    """

    def __init__(self, directory: Path, *, worker: str, allowed_uid: int, egress: EgressSettings) -> None:
        self.instance: InstanceId = new_instance_id(secrets.randbelow)
        self.data = directory / "data"
        self.place = RuntimeDir(directory / "run")
        self.printed = b""
        self.complaints: list[str] = []
        self.kept = KeptFiles(self.complaints.append)
        self._program = (sys.executable, "-B", str(CHILD), str(allowed_uid), worker)
        self._running: Running | None = None
        user = account(EGRESS_USER)
        for path in (self.data, self.data / "egress", self.place.path, self.place.egress_state):
            path.mkdir(parents=True)
        os.chown(self.data / "egress", user.pw_uid, user.pw_gid)
        (self.data / "egress").chmod(0o700)
        self.place.path.chmod(0o755)
        settings = Settings(data_dir=str(self.data), egress=egress)
        self.place.settings.write_bytes(msgspec.json.encode(settings))
        self.place.instance.write_text(json.dumps({"instance": self.instance}))
        self.gateways = GatewayServer(self.place.hostd_socket)

    @property
    def pid(self) -> int:
        """The broker's process."""
        assert self._running is not None
        return self._running.identity.pid

    @property
    def zygote(self) -> int:
        """The zygote's process."""
        (child,) = children_of(self.pid)
        return child

    async def start(self) -> None:
        """Start it and wait until it serves."""
        self._running = launch("egressd", self.place, self._print, program=self._program)
        files = self.kept.descriptors()
        await self._running.ready(Hello(handed_back=len(files)), timeout_s=30, hand_back=files)
        self._running.on_kept(self.kept.take)

    async def kill(self) -> None:
        """End it without warning, and wait."""
        assert self._running is not None
        await self._running.kill()

    async def ended(self) -> int:
        """Wait for its end by itself."""
        assert self._running is not None
        async with asyncio.timeout(WAIT_S):
            return await asyncio.shield(self._running.exited)

    def hang_up(self) -> None:
        """As when `up` dies."""
        assert self._running is not None
        self._running._parent.close()

    async def stop(self) -> bool:
        """Ask it to end; whether it did so in order."""
        assert self._running is not None
        return await self._running.stop(keep=True, timeout_s=WAIT_S)

    def close(self) -> None:
        """Forget what is kept."""
        self.kept.close()
        self.gateways.hostd.close()

    async def tell(self, line: str, sandbox_id: SandboxId = ID) -> Any:
        """Have a stub worker do something over a connection of its sandbox; None when it ended meanwhile."""
        address = self.gateways.hostd.of(sandbox_id).tcp.getsockname()
        async with asyncio.timeout(WAIT_S):
            reader, writer = await asyncio.open_connection(*address)
            try:
                writer.write(f"{line}\n".encode())
                answer = await reader.read()
            except ConnectionResetError:
                return None
            finally:
                writer.close()
        return json.loads(answer) if answer else None

    def put_away(self) -> list[Held]:
        """What a new process would be given."""
        return restore([os.dup(descriptor) for descriptor in self.kept.descriptors()])

    def visible(self) -> bytes:
        """What others can read of its processes, and everything in its files."""
        pids = (self.pid, self.zygote, *children_of(self.zygote))
        names = ("cmdline", "environ", "comm", "status")
        paths = [Path(f"/proc/{pid}/{name}") for pid in pids for name in names]
        paths += [path for top in (self.data, self.place.path) for path in top.rglob("*") if path.is_file()]
        return b"".join(path.read_bytes() for path in paths)

    def _print(self, _: str, line: bytes) -> None:
        self.printed += line


def children_of(pid: int) -> list[int]:
    """Processes that it has started and that live."""
    return [int(text) for text in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@asynccontextmanager
async def egressd(
    *,
    worker: str = "stub",
    allowed_uid: int = 0,
    egress: EgressSettings = SETTINGS,
    prepare: Callable[[EgressdProcess], None] = lambda _: None,
) -> AsyncIterator[EgressdProcess]:
    """A running egressd; at the end it must stop in order, and leave no process."""
    directory = Path(tempfile.mkdtemp(prefix="skerry-egress-"))
    os.chmod(directory, 0o711)  # noqa: S103 - egressd is not root
    made = EgressdProcess(directory, worker=worker, allowed_uid=allowed_uid, egress=egress)
    try:
        async with asyncio.TaskGroup() as group:
            serving = group.create_task(made.gateways.serve())
            prepare(made)
            try:
                await made.start()
                yield made
                assert await made.stop(), made.printed.decode()
            finally:
                if made.printed:
                    print(made.printed.decode())  # pytest shows it when a test fails
                await made.kill()
                serving.cancel()
    finally:
        made.close()
        shutil.rmtree(directory)


@asynccontextmanager
async def client_of(process: EgressdProcess) -> AsyncIterator[EgressdClient]:
    """The client that api uses."""
    async with Tasks() as tasks:
        yield EgressdClient(process.place.egressd_socket, tasks=tasks, clock=SystemClock())
