"""The gVisor driver: a user-space kernel (runsc, systrap) below conmon, in a control group and a network
namespace of its own.
"""

import asyncio
import os
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import structlog

from skerry.errors import Conflict, NotFound, SkerryError
from skerry.hostd.background import Background
from skerry.hostd.cgroups import mounted
from skerry.hostd.cgroups.layout import Hierarchies
from skerry.hostd.cgroups.memory_watch import MemoryWatch
from skerry.hostd.drivers import conmon, gvisor_probe
from skerry.hostd.drivers.base import AgentEndpoint, Networks, Roots, Sink
from skerry.hostd.drivers.gvisor_parts import Parts, Processes
from skerry.hostd.drivers.runsc import Runsc
from skerry.hostd.guest_agent import GuestAgent
from skerry.hostd.places import Places
from skerry.protocol.host_verbs import MemoryPressure, SandboxExited
from skerry.spec.ids import SandboxId, sandbox_of_container
from skerry.spec.sandbox import DriverReport, Ended, Isolation, Observed, Phase, StartSpec, Usage

_log = structlog.get_logger("skerry.hostd.gvisor")

UNDO_S = 20.0
LOGGED_BYTES = 1024


@dataclass(slots=True)
class _Sandbox:
    """A sandbox that is watched, or has ended and waits to be destroyed."""

    parts: Parts
    processes: Processes | None
    ended: Ended | None = None


class GVisorDriver:
    """Implements `Driver` and `Pausing`.

    Args:
        runsc_path: The binary; empty when there is none.
        guest_agent: The agent's binary as guests see it.
        images: Root images by name.
        sink: Gets what happens.
    """

    def __init__(
        self,
        *,
        places: Places,
        hierarchies: Hierarchies,
        runsc_path: str,
        guest_agent: GuestAgent,
        images: Mapping[str, Path],
        roots: Roots,
        networks: Networks,
        sink: Sink,
        background: Background,
    ) -> None:
        self._places = places
        self._hierarchies = hierarchies
        self._has_runsc = bool(runsc_path)
        self._runsc = Runsc(Path(runsc_path), places.runsc)
        self._guest_agent = guest_agent
        self._images = images
        self._roots = roots
        self._networks = networks
        self._sink = sink
        self._background = background
        self._sandboxes: dict[SandboxId, _Sandbox] = {}
        self._watch = MemoryWatch(background)
        self._loop = asyncio.get_running_loop()
        # More at once would only make each slower, past the deadline of a create.
        self._starts = asyncio.Semaphore(max(2, os.cpu_count() or 1))

    @property
    def isolation(self) -> Isolation:
        """See `Driver.isolation`."""
        return Isolation.GVISOR

    async def probe(self) -> DriverReport:
        """See `Driver.probe`."""
        runsc = self._runsc if self._has_runsc else None
        return await gvisor_probe.probe_with(runsc, str(self._guest_agent.source))

    async def recover(self) -> list[Observed]:
        """See `Driver.recover`."""
        for sandbox_id in sorted(await self._traces()):
            parts = self._parts(sandbox_id)
            if not parts.place.started.exists():
                await self._remove_interrupted(sandbox_id, parts)
            elif (processes := parts.processes()) is not None:
                self._adopt(sandbox_id, parts, processes)
            else:
                await parts.end()  # its file server may live, or its parent be about to write the status
                self._sandboxes[sandbox_id] = _Sandbox(parts, None, parts.outcome())
        return await self.observe()

    async def _remove_interrupted(self, sandbox_id: SandboxId, parts: Parts) -> None:
        """Remove what an interrupted start left. What cannot be removed stays listed, for `destroy`."""
        _log.info("removing_interrupted_start", sandbox=sandbox_id)
        try:
            await self._remove(sandbox_id, parts)
        except SkerryError as error:
            _log.error("removal_failed", sandbox=sandbox_id, error=error.message, detail=error.detail)
            self._sandboxes[sandbox_id] = _Sandbox(parts, None, Ended(None, oom=False))

    async def start(self, spec: StartSpec, endpoint: AgentEndpoint) -> None:
        """See `Driver.start`."""
        sandbox_id = spec.sandbox_id
        if sandbox_id in self._sandboxes:
            raise Conflict(f"sandbox {sandbox_id} exists already")
        parts = self._parts(sandbox_id)
        async with self._starts, AsyncExitStack() as undo:
            agent_dir = self._guest_agent.installed()
            undo.push_async_callback(self._undo, sandbox_id, parts)
            root = await self._roots.prepare(sandbox_id, self._images[spec.image], spec.disk_mib)
            processes = await parts.create(spec, endpoint, root, agent_dir)
            undo.callback(processes.close)
            self._adopt(sandbox_id, parts, processes)
            undo.pop_all()

    async def pause(self, sandbox_id: SandboxId) -> None:
        """See `Pausing.pause`."""
        await self._existing(sandbox_id).parts.group.freeze()

    async def resume(self, sandbox_id: SandboxId) -> None:
        """See `Pausing.resume`."""
        self._existing(sandbox_id).parts.group.thaw()

    async def observe(self) -> list[Observed]:
        """See `Driver.observe`."""
        return [
            Observed(sandbox_id, Isolation.GVISOR, _phase(sandbox), sandbox.ended)
            for sandbox_id, sandbox in self._sandboxes.items()
        ]

    async def stats(self, sandbox_id: SandboxId) -> Usage:
        """See `Driver.stats`."""
        usage = self._existing(sandbox_id).parts.group.usage()
        disk_bytes = await self._roots.usage(sandbox_id)
        return Usage(usage.held_bytes, usage.cpu_us, usage.processes, disk_bytes)

    async def destroy(self, sandbox_id: SandboxId) -> Ended:
        """See `Driver.destroy`."""
        sandbox = self._sandboxes.get(sandbox_id)
        if sandbox is None:
            if sandbox_id in await self._traces():
                return await self._remove(sandbox_id, self._parts(sandbox_id))
            return Ended(None, oom=False)
        self._unwatch(sandbox)
        ended = await self._remove(sandbox_id, sandbox.parts)
        del self._sandboxes[sandbox_id]
        return sandbox.ended or ended

    async def close(self) -> None:
        """See `Driver.close`."""
        for sandbox in self._sandboxes.values():
            self._unwatch(sandbox)
        self._sandboxes.clear()
        self._watch.close()
        mounted.remove_if_empty(self._hierarchies, self._places.group)

    def _parts(self, sandbox_id: SandboxId) -> Parts:
        name = self._places.sandbox(sandbox_id).name
        group = mounted.group_at(self._hierarchies, f"{self._places.group}/{name}")
        return Parts(sandbox_id, places=self._places, networks=self._networks, group=group, runsc=self._runsc)

    async def _traces(self) -> set[SandboxId]:
        """Every sandbox of this instance of which anything is there, found from the kernel and the files."""
        names = mounted.groups_below(self._hierarchies, self._places.group)
        found = {self._places.sandbox_of_directory(name) for name in os.listdir(self._places.sandboxes)}
        found.update(sandbox_of_container(self._places.instance, name) for name in names)
        found.update(await self._roots.present())
        found.update(self._networks.present())
        return {sandbox_id for sandbox_id in found if sandbox_id is not None}

    def _adopt(self, sandbox_id: SandboxId, parts: Parts, processes: Processes) -> None:
        """Watch a running sandbox until it ends or is destroyed."""
        self._watch.add(
            parts.group,
            parts.memory_threshold_bytes(),
            on_pressure=lambda held_bytes: self._sink(MemoryPressure(sandbox_id, held_bytes)),
            on_kill=lambda: self._background.start(parts.group.kill(), name="end-after-out-of-memory"),
        )
        sandbox = _Sandbox(parts, processes)
        self._sandboxes[sandbox_id] = sandbox
        self._loop.add_reader(processes.sandbox, self._exited, sandbox_id, sandbox)

    def _exited(self, sandbox_id: SandboxId, sandbox: _Sandbox) -> None:
        processes = sandbox.processes
        if processes is not None:
            self._loop.remove_reader(processes.sandbox)
            self._background.start(self._collect(sandbox_id, sandbox), name="collect-exit")

    async def _collect(self, sandbox_id: SandboxId, sandbox: _Sandbox) -> None:
        """Learn how a sandbox ended by itself, and tell."""
        await sandbox.parts.end()
        ended = sandbox.parts.outcome()
        if self._sandboxes.get(sandbox_id) is not sandbox or sandbox.processes is None:
            return  # destroyed meanwhile
        self._unwatch(sandbox)
        sandbox.ended = ended
        _log.info(
            "sandbox_ended",
            sandbox=sandbox_id,
            exit_code=ended.exit_code,
            oom=ended.oom,
            said=conmon.read_log(sandbox.parts.place.log, max_bytes=LOGGED_BYTES),
        )
        self._sink(SandboxExited(sandbox_id, ended))

    def _unwatch(self, sandbox: _Sandbox) -> None:
        self._watch.remove(sandbox.parts.group)
        if sandbox.processes is not None:
            self._loop.remove_reader(sandbox.processes.sandbox)
            sandbox.processes.close()
            sandbox.processes = None

    async def _remove(self, sandbox_id: SandboxId, parts: Parts) -> Ended:
        await parts.end()
        ended = parts.outcome()
        await parts.free(lambda: self._roots.release(sandbox_id))
        return ended

    async def _undo(self, sandbox_id: SandboxId, parts: Parts) -> None:
        """Remove what a failed or cancelled start has made; nothing may interrupt it."""
        _log.info(
            "undoing_start", sandbox=sandbox_id, said=conmon.read_log(parts.place.log, max_bytes=LOGGED_BYTES)
        )
        async with asyncio.timeout(UNDO_S):
            await self._remove(sandbox_id, parts)

    def _existing(self, sandbox_id: SandboxId) -> _Sandbox:
        sandbox = self._sandboxes.get(sandbox_id)
        if sandbox is None:
            raise NotFound(f"there is no sandbox {sandbox_id} on this host")
        return sandbox


def _phase(sandbox: _Sandbox) -> Phase:
    if sandbox.ended is not None:
        return Phase.ENDED
    if sandbox.processes is None or sandbox.processes.sandbox.has_ended():
        return Phase.UNKNOWN  # how it ended is being found out
    return Phase.FROZEN if sandbox.parts.group.is_frozen() else Phase.RUNNING
