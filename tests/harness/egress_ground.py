"""The broker without processes: a zygote whose workers are tasks of a few lines, a keeper in memory, sockets
of the loopback interface.
"""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import msgspec

from skerry.egress.broker.audit_files import Trails
from skerry.egress.broker.background import Background
from skerry.egress.broker.control_channel import decode_to_worker, encode
from skerry.egress.broker.gateway import Gateway
from skerry.egress.broker.held import Held
from skerry.egress.broker.policies import Policies
from skerry.egress.broker.sandbox import Ground
from skerry.egress.broker.service import Broker, Surroundings
from skerry.egress.broker.vault import Vault, restore
from skerry.egress.broker.zygote_client import ZygoteClient
from skerry.egress.messages import (
    MAX_MESSAGE_BYTES,
    Adopted,
    FromWorker,
    Line,
    OwnPlaces,
    Rules,
    Stop,
    Written,
)
from skerry.errors import NotFound
from skerry.policy.document import AllowRule, PolicyDocument, SecretRule
from skerry.protocol.egress_verbs import Grant, NamedLayer, SecretGrant
from skerry.spec.ids import OwnerId, SandboxId
from skerry.spec.settings import EgressSettings

ID = SandboxId("sbx_ord_" + "a" * 20)
OWNER = OwnerId("own_1")
VALUE = b"real-value-of-the-secret-0123456789"
HOST = "api.example.com"
MAX_RULES_BYTES = 200_000


def layer(*hosts: str, name: str = "sandbox") -> NamedLayer:
    """A layer that allows hosts."""
    return NamedLayer(name=name, document=PolicyDocument(allow=tuple(AllowRule(host=host) for host in hosts)))


def secret(name: str = "KEY", value: bytes | None = VALUE, placeholder: str | None = None) -> SecretGrant:
    """A secret of `HOST`."""
    return SecretGrant(rule=SecretRule(name=name, hosts=(HOST,)), value=value, placeholder=placeholder)


def grant(*secrets: SecretGrant, sandbox_id: SandboxId = ID, hosts: Sequence[str] = (HOST,)) -> Grant:
    """A grant."""
    return Grant(sandbox_id=sandbox_id, owner=OWNER, layers=(layer(*hosts),), secrets=secrets)


class ScriptedWorker:
    """Goes by what it is told and remembers it.

    Attributes:
        rules: Everything that it was told to go by.
        deaf: It reads, and adopts nothing.
    """

    def __init__(self, control: socket.socket, on_end: Callable[[int], None], pid: int) -> None:
        self.pid = pid
        self.rules: list[Rules] = []
        self.written: list[int] = []
        self.deaf = False
        self.next_seq = 0
        self._control = control
        self._on_end = on_end
        self._task = asyncio.get_running_loop().create_task(self._live())

    def say(self, message: FromWorker) -> None:
        """Tell the broker."""
        self._control.send(encode(message))

    def say_raw(self, data: bytes) -> None:
        """Tell it something else."""
        self._control.send(data)

    def line(self, *, confirm: bool = False) -> None:
        """Write the next audit line."""
        text = b'{"seq": %d}' % self.next_seq
        self.say(Line(self.next_seq, text, confirm))
        self.next_seq += 1

    def end(self, status: int) -> None:
        """End, for whatever reason."""
        self._task.cancel()
        self._control.close()
        on_end, self._on_end = self._on_end, lambda _: None
        on_end(status)

    async def _live(self) -> None:
        loop = asyncio.get_running_loop()
        while data := await loop.sock_recv(self._control, MAX_MESSAGE_BYTES):
            match decode_to_worker(data):
                case Rules() as rules:
                    self.next_seq = self.next_seq or rules.next_seq
                    self.rules.append(rules)
                    if not self.deaf:
                        self.say(Adopted(rules.version))
                case Written(seq=seq):
                    self.written.append(seq)
                case Stop():
                    if not self.deaf:
                        loop.call_soon(self.end, 0)


class ScriptedZygote:
    """Makes `ScriptedWorker`s. In place of `skerry.egress.broker.zygote_client.ZygoteClient`."""

    def __init__(self) -> None:
        self.workers: list[ScriptedWorker] = []
        self.faults: list[Exception] = []
        self.born_deaf = False
        self._pid = 100_000

    async def fork(self, descriptors: Sequence[int], on_end: Callable[[int], None]) -> int:
        """See `ZygoteClient.fork`."""
        if self.faults:
            raise self.faults.pop(0)
        self._pid += 1
        control = socket.socket(fileno=os.dup(descriptors[0]))
        control.setblocking(False)
        worker = ScriptedWorker(control, on_end, self._pid)
        worker.deaf = self.born_deaf
        self.workers.append(worker)
        await asyncio.sleep(0)
        return self._pid

    def kill(self, pid: int) -> None:
        """See `ZygoteClient.kill`."""
        for worker in self.workers:
            if worker.pid == pid:
                asyncio.get_running_loop().call_soon(worker.end, -9)

    def close(self) -> None:
        """End all workers."""
        for worker in self.workers:
            worker.end(-9)


class MemoryKeeper:
    """Keeps files in this process. Implements `skerry.egress.broker.vault.Keeper`."""

    def __init__(self) -> None:
        self.files: dict[SandboxId, int] = {}
        self.faults: list[OSError] = []
        self.saves = 0

    async def keep(self, sandbox_id: SandboxId, descriptor: int) -> None:
        """See `Keeper`."""
        await asyncio.sleep(0)
        if self.faults:
            raise self.faults.pop(0)
        self.saves += 1
        await self.forget(sandbox_id)
        self.files[sandbox_id] = os.dup(descriptor)

    async def forget(self, sandbox_id: SandboxId) -> None:
        """See `Keeper`."""
        if sandbox_id in self.files:
            os.close(self.files.pop(sandbox_id))

    def kept(self) -> list[Held]:
        """What a new process would be given."""
        return restore([os.dup(descriptor) for descriptor in self.files.values()])

    def close(self) -> None:
        """Forget everything."""
        for descriptor in self.files.values():
            os.close(descriptor)


class ScriptedHostd:
    """Hands out sockets of the loopback interface.

    Attributes:
        missing: So often it says that there is no such sandbox.
    """

    def __init__(self) -> None:
        self.missing = 0
        self.asked = 0
        self._gateways: dict[SandboxId, Gateway] = {}

    async def open_gateway(self, sandbox_id: SandboxId) -> Gateway:
        """See `skerry.egress.broker.gateway.open_gateway`."""
        self.asked += 1
        await asyncio.sleep(0)
        if self.missing > 0:
            self.missing -= 1
            raise NotFound("there is no such sandbox on this host")
        mine = self.of(sandbox_id)
        return Gateway(mine.tcp.dup(), mine.udp.dup())

    def of(self, sandbox_id: SandboxId) -> Gateway:
        """A sandbox's sockets."""
        if sandbox_id not in self._gateways:
            ends = (
                socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK),
                socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK),
            )
            for end in ends:
                end.bind(("127.0.0.1", 0))
            ends[0].listen(16)
            self._gateways[sandbox_id] = Gateway(*ends)
        return self._gateways[sandbox_id]

    def connect(self, sandbox_id: SandboxId = ID) -> None:
        """Let the sandbox open a connection, which stays in the queue until somebody accepts it."""
        with socket.create_connection(self.of(sandbox_id).tcp.getsockname()):
            pass

    def query(self, sandbox_id: SandboxId = ID) -> None:
        """Let the sandbox send a packet to port 53."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"?", self.of(sandbox_id).udp.getsockname())

    def drain(self, sandbox_id: SandboxId = ID) -> None:
        """Take everything that waits, as a worker does."""
        gateway = self.of(sandbox_id)
        for take in (lambda: gateway.tcp.accept()[0].close(), lambda: gateway.udp.recv(1)):
            try:
                while True:
                    take()
            except BlockingIOError:
                continue

    def close(self) -> None:
        """Close all sockets."""
        for gateway in self._gateways.values():
            gateway.close()


class Scene:
    """A broker and everything around it."""

    def __init__(self, directory: Path, *, now_ms: Callable[[], int]) -> None:
        self.zygote = ScriptedZygote()
        self.keeper = MemoryKeeper()
        self.hostd = ScriptedHostd()
        self.directory = directory
        self._now_ms = now_ms

    @property
    def worker(self) -> ScriptedWorker:
        """The last one that was started."""
        return self.zygote.workers[-1]

    @asynccontextmanager
    async def broker(self, *, restored: Sequence[Held] = ()) -> AsyncIterator[Broker]:
        """One life of the broker."""
        operator = NamedLayer(name="operator", document=PolicyDocument(default="public"))
        trails = Trails(self.directory, max_bytes=1 << 20)
        async with Background() as background:
            ground = Ground(
                policies=Policies(operator, EgressSettings(), OwnPlaces, self._now_ms),
                zygote=cast(ZygoteClient, self.zygote),
                trails=trails,
                vault=Vault(self.keeper),
                background=background,
                open_gateway=self.hostd.open_gateway,
                max_rules_bytes=MAX_RULES_BYTES,
            )
            broker = Broker(ground, Surroundings())
            broker.restore(restored)
            yield broker
            await broker.close()

    def close(self) -> None:
        """Take everything away."""
        self.zygote.close()
        self.hostd.close()
        self.keeper.close()


def seq_of(line: str) -> int:
    """The number in an audit line."""
    return int(msgspec.json.decode(line)["seq"])
