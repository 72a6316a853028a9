"""A host in memory, whose sandboxes are agents of a few lines; it can fail, stall, reboot and forget at
will.
"""

import asyncio
import contextlib
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec

from skerry.control.host import Listening
from skerry.errors import NotFound, RuntimeFailed
from skerry.protocol import frames, messages
from skerry.protocol.frames import FrameDecoder, FrameType
from skerry.protocol.host_verbs import Happening, HostDescription, MemoryPressure, SandboxExited
from skerry.spec.ids import SandboxId
from skerry.spec.sandbox import Capability, DriverReport, Ended, Isolation, Observed, Phase, StartSpec, Usage

IMAGE = "builtin:debian-13"
MEMORY_MIB = 8192


class ScriptedAgent:
    """What runs in a sandbox: it dials, says hello, keeps an environment, and forgets nothing when it must
    dial again.
    """

    def __init__(self, number: int) -> None:
        self.env: dict[str, str] = {}
        self.trusted: list[tuple[str, str, dict[str, str]]] = []
        self.has_authorities = True
        self.calls: Counter[str] = Counter()
        self.thawed = asyncio.Event()
        self.thawed.set()
        self.mute = False
        self._identity = number.to_bytes(16, "big")
        self._factory: Callable[[], asyncio.Protocol] | None = None
        self._served = asyncio.Event()
        self._task = asyncio.create_task(self._dial_for_ever())

    def serve(self, factory: Callable[[], asyncio.Protocol] | None) -> None:
        """From now on somebody (or nobody) listens."""
        self._factory = factory
        if factory is None:
            self._served.clear()
        else:
            self._served.set()

    def stop(self) -> None:
        """The sandbox is gone."""
        self._task.cancel()

    async def _dial_for_ever(self) -> None:
        while True:
            await self._served.wait()
            await self.thawed.wait()
            if self._factory is None or self.mute:
                await asyncio.sleep(0.001)
                continue
            with contextlib.suppress(OSError):
                await self._talk(self._factory)
            await asyncio.sleep(0.001)

    async def _talk(self, factory: Callable[[], asyncio.Protocol]) -> None:
        loop = asyncio.get_running_loop()
        guest, host = socket.socketpair()
        guest.setblocking(False)
        host.setblocking(False)
        with guest:
            await loop.connect_accepted_socket(factory, host)
            hello = {"generations": (1,), "agent": "0", "boot": self._identity, "key": self._identity}
            await loop.sock_sendall(guest, frames.frame(FrameType.HELLO, messages.encode(hello)))
            decoder = FrameDecoder(frames.FROM_HOST)
            while data := await loop.sock_recv(guest, 65536):
                await self.thawed.wait()
                decoder.feed(data)
                for frame in decoder.decode(1000):
                    if isinstance(frame, messages.Request):
                        await loop.sock_sendall(guest, self._answer(frame))

    def _answer(self, request: messages.Request) -> bytes:
        self.calls[request.method] += 1
        params = msgspec.msgpack.decode(request.params)
        value: Any = None
        if request.method == "env.update":
            self.env |= params["set"]
        elif request.method == "env.all":
            value = {"env": self.env}
        elif request.method == "process.list":
            value = {"processes": []}
        elif request.method == "stream.list":
            value = {"streams": []}
        elif request.method == "system.reclaim":
            value = {"pid": 7, "rss_bytes": 1}
        elif request.method == "trust.install":
            self.trusted.append((params["certificate_pem"], params["extra_roots_pem"], params.get("env", {})))
            value = {"system": self.has_authorities}
        elif request.method == "fs.read_dir":
            value = {"entries": []}
        elif request.method == "trust.install":
            value = {"system": True}
        return _response(request, value)


def _response(request: messages.Request, value: Any) -> bytes:
    return frames.frame(FrameType.RESPONSE, messages.encode((request.id, True, value)), stream=request.id)


class _Machine:
    def __init__(self, spec: StartSpec, agent: ScriptedAgent) -> None:
        self.spec = spec
        self.agent = agent
        self.phase = Phase.RUNNING
        self.ended: Ended | None = None


class _Listening:
    def __init__(
        self, host: "ScriptedHost", sandbox_id: SandboxId, factory: Callable[[], asyncio.Protocol]
    ) -> None:
        self._host, self._id, self._factory = host, sandbox_id, factory

    def close(self) -> None:
        if self._host.factories.get(self._id) is self._factory:
            self._host.serve(self._id, None)


class ScriptedHost:
    """Implements `skerry.control.host.Host`.

    Attributes:
        machines: What exists on it.
        faults: Errors that the next calls of a verb raise, by its name; a started sandbox is not there then.
        called: How often each verb was called.
        stalled: Verbs that wait until their event is set.
        mute_agents: Agents of sandboxes that are started do not dial.
        has_authorities: The image of sandboxes that are started has a list of authorities.
    """

    def __init__(self, *, boot_id: str = "boot-1", usable: bool = True) -> None:
        self.boot_id = boot_id
        self.usable = usable
        self.machines: dict[SandboxId, _Machine] = {}
        self.factories: dict[SandboxId, Callable[[], asyncio.Protocol]] = {}
        self.faults: dict[str, list[BaseException]] = {}
        self.called: Counter[str] = Counter()
        self.stalled: dict[str, asyncio.Event] = {}
        self.mute_agents = False
        self.has_authorities = True
        self._watchers: list[asyncio.Queue[Happening | None]] = []
        self._made = 0

    # What tests do to it.

    def agent(self, sandbox_id: SandboxId) -> ScriptedAgent:
        """What runs in a sandbox."""
        return self.machines[sandbox_id].agent

    def running(self) -> set[SandboxId]:
        """Sandboxes that run and are not frozen."""
        return {one for one, machine in self.machines.items() if machine.phase is Phase.RUNNING}

    def frozen(self) -> set[SandboxId]:
        """Sandboxes that are frozen."""
        return {one for one, machine in self.machines.items() if machine.phase is Phase.FROZEN}

    def die(self, sandbox_id: SandboxId, ended: Ended, *, tell: bool = True) -> None:
        """Let a sandbox end by itself."""
        machine = self.machines[sandbox_id]
        machine.phase, machine.ended = Phase.ENDED, ended
        machine.agent.stop()
        if tell:
            self.publish(SandboxExited(sandbox_id, ended))

    def press(self, sandbox_id: SandboxId) -> None:
        """Let a sandbox's memory be almost used up."""
        self.publish(MemoryPressure(sandbox_id, 1 << 30))

    def vanish(self, sandbox_id: SandboxId) -> None:
        """Let a sandbox be gone without a trace."""
        self.machines.pop(sandbox_id).agent.stop()

    def reboot(self) -> None:
        """Start the machine anew."""
        for sandbox_id in list(self.machines):
            self.vanish(sandbox_id)
        self.boot_id += "'"

    def publish(self, happening: Happening | None) -> None:
        """Report something; None: something may have been missed."""
        for queue in self._watchers:
            queue.put_nowait(happening)

    def serve(self, sandbox_id: SandboxId, factory: Callable[[], asyncio.Protocol] | None) -> None:
        """Somebody listens for a sandbox's agent, or nobody does."""
        if factory is None:
            self.factories.pop(sandbox_id, None)
        else:
            self.factories[sandbox_id] = factory
        machine = self.machines.get(sandbox_id)
        if machine is not None:
            machine.agent.serve(factory)

    def close(self) -> None:
        """Stop everything."""
        for machine in self.machines.values():
            machine.agent.stop()

    # Host.

    async def describe(self) -> HostDescription:
        """See `Host`."""
        await self._enter("describe")
        report = DriverReport(
            isolation=Isolation.FAKE,
            usable=self.usable,
            version="1",
            capabilities=frozenset(Capability),
            missing=() if self.usable else ("it was switched off; switch it on",),
        )
        return HostDescription(
            version="1",
            pid=1,
            boot_id=self.boot_id,
            drivers=(report,),
            images={IMAGE: "sha256:1"},
            memory_mib=MEMORY_MIB,
        )

    async def start(self, spec: StartSpec) -> None:
        """See `Host`."""
        await self._enter("start")
        if spec.sandbox_id in self.machines:
            raise RuntimeFailed("started twice")
        self._made += 1
        machine = _Machine(spec, ScriptedAgent(self._made))
        self.machines[spec.sandbox_id] = machine
        machine.agent.mute = self.mute_agents
        machine.agent.has_authorities = self.has_authorities
        machine.agent.serve(self.factories.get(spec.sandbox_id))

    async def listen(
        self, sandbox_id: SandboxId, protocol_factory: Callable[[], asyncio.Protocol]
    ) -> Listening:
        """See `Host`."""
        await self._enter("listen")
        self.serve(sandbox_id, protocol_factory)
        return _Listening(self, sandbox_id, protocol_factory)

    async def pause(self, sandbox_id: SandboxId) -> None:
        """See `Host`."""
        await self._enter("pause")
        machine = self._machine(sandbox_id)
        machine.phase = Phase.FROZEN
        machine.agent.thawed.clear()

    async def resume(self, sandbox_id: SandboxId) -> None:
        """See `Host`."""
        await self._enter("resume")
        machine = self._machine(sandbox_id)
        machine.phase = Phase.RUNNING
        machine.agent.thawed.set()

    async def destroy(self, sandbox_id: SandboxId) -> Ended:
        """See `Host`."""
        await self._enter("destroy")
        machine = self.machines.pop(sandbox_id, None)
        if machine is None:
            return Ended(exit_code=None, oom=False)
        machine.agent.stop()
        return machine.ended or Ended(exit_code=137, oom=False)

    async def inspect(self) -> list[Observed]:
        """See `Host`."""
        await self._enter("inspect")
        return [
            Observed(sandbox_id=one, isolation=Isolation.FAKE, phase=machine.phase, ended=machine.ended)
            for one, machine in self.machines.items()
        ]

    async def stats(self, sandbox_id: SandboxId) -> Usage:
        """See `Host`."""
        self._machine(sandbox_id)
        return Usage(memory_bytes=1, cpu_us=1, processes=1, disk_bytes=1)

    async def events(self) -> AsyncIterator[Happening | None]:
        """See `Host`."""
        queue: asyncio.Queue[Happening | None] = asyncio.Queue()
        queue.put_nowait(None)
        self._watchers.append(queue)
        try:
            while True:
                yield await queue.get()
        finally:
            self._watchers.remove(queue)

    async def _enter(self, verb: str) -> None:
        self.called[verb] += 1
        if verb in self.stalled:
            await self.stalled[verb].wait()
        await asyncio.sleep(0)
        faults = self.faults.get(verb)
        if faults:
            raise faults.pop(0)

    def _machine(self, sandbox_id: SandboxId) -> _Machine:
        machine = self.machines.get(sandbox_id)
        if machine is None or machine.phase is Phase.ENDED:
            raise NotFound("there is no such sandbox on this host")
        return machine
