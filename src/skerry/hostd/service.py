"""What hostd does when it is asked: every argument is checked again, and the right driver called."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from msgspec import structs

import skerry
from skerry.errors import Conflict, NotFound, NotSupported, RuntimeFailed, TimedOut
from skerry.hostd import admission, validation
from skerry.hostd.background import Background
from skerry.hostd.drivers.base import Driver, Pausing
from skerry.hostd.keyed_locks import KeyedLocks
from skerry.hostd.listeners import AgentListeners
from skerry.hostd.network.gateway import GatewaySockets
from skerry.hostd.network.sandbox_networks import SandboxNetworks
from skerry.hostd.trial import Trials
from skerry.protocol.host_verbs import HostDescription
from skerry.spec.ids import SandboxId
from skerry.spec.sandbox import DriverReport, Ended, Observed, Phase, StartSpec, Usage

START_S = 25.0
DESTROY_S = 20.0
DESCRIBE_S = 25.0
SHORT_S = 4.0
DESCRIBED_FOR_S = 2.0
"""Probes start programs, so their results are kept this long."""

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class HostService:
    """Everything that hostd can be asked, free of any wire.

    Calls about one sandbox are carried out one after another, except that a destroy cuts a start short. Each
    has a deadline and raises `skerry.errors.TimedOut` when it passes.

    Args:
        drivers: At most one of each isolation.
        unusable: Reports of drivers that could not even be made here.
        images: Root images by name, with their digests.
        networks: Networks of sandboxes; None when the host has no driver that gives them any.
        trials: Runs a sandbox for real before a driver is called usable; None believes the drivers.
    """

    def __init__(
        self,
        *,
        drivers: Sequence[Driver],
        unusable: Sequence[DriverReport],
        images: Mapping[str, str],
        listeners: AgentListeners,
        background: Background,
        networks: SandboxNetworks | None = None,
        trials: Trials | None = None,
    ) -> None:
        self._drivers = {driver.isolation: driver for driver in drivers}
        self._unusable = tuple(unusable)
        self._images = dict(images)
        self._listeners = listeners
        self._background = background
        self._networks = networks
        self._trials = trials
        self._locks = KeyedLocks()
        self._describing = asyncio.Lock()
        self._reports: list[DriverReport] = []
        self._described_s = -DESCRIBED_FOR_S
        self._owners: dict[SandboxId, Driver] = {}
        self._starting: dict[SandboxId, asyncio.Task[tuple[None, Exception | None]]] = {}

    async def recover(self) -> list[Observed]:
        """Find what is there already; called once, before anything else."""
        found: list[Observed] = []
        for driver in self._drivers.values():
            observed = await driver.recover()
            self._owners.update((one.sandbox_id, driver) for one in observed)
            if self._trials is not None and any(one.phase is not Phase.ENDED for one in observed):
                self._trials.prove(driver.isolation)
            found += observed
        self._listeners.sweep(self._owners)
        return found

    async def describe(self) -> HostDescription:
        """See `skerry.protocol.host_verbs.Describe`."""
        async with _deadline("describing the host", DESCRIBE_S), self._describing:
            now_s = asyncio.get_running_loop().time()
            if now_s - self._described_s >= DESCRIBED_FOR_S:
                self._reports = [await self._report(driver) for driver in self._drivers.values()]
                self._described_s = asyncio.get_running_loop().time()
        return HostDescription(
            version=skerry.__version__,
            pid=os.getpid(),
            boot_id=_boot_id(),
            drivers=(*self._reports, *self._unusable),
            images=self._images,
            memory_mib=_memory_mib(),
        )

    async def start(self, spec: StartSpec) -> None:
        """See `skerry.protocol.host_verbs.Start`."""
        validation.check_start(spec, isolations=self._drivers, images=self._images)
        admission.check_memory(admission.MEMORY_INFO.read_text())
        sandbox_id = spec.sandbox_id
        async with _deadline("starting the sandbox", START_S), self._locks.held(sandbox_id):
            if sandbox_id in self._owners:
                raise Conflict(f"sandbox {sandbox_id} exists already")
            self._listeners.listener(sandbox_id, self._owners)
            driver = self._drivers[spec.isolation]
            endpoint = self._listeners.endpoint(sandbox_id)
            # A task of its own, so that a destroy can end it without ending whoever waits here.
            task = self._background.begin(driver.start(spec, endpoint), name="start")
            self._starting[sandbox_id] = task
            self._owners[sandbox_id] = driver
            try:
                await self._finish_start(task)
            except BaseException:
                self._forget(sandbox_id)
                raise
            finally:
                del self._starting[sandbox_id]

    async def pause(self, sandbox_id: SandboxId) -> None:
        """See `skerry.protocol.host_verbs.Pause`."""
        async with _deadline("pausing the sandbox", SHORT_S), self._locks.held(sandbox_id):
            await self._pausing(sandbox_id).pause(sandbox_id)

    async def resume(self, sandbox_id: SandboxId) -> None:
        """See `skerry.protocol.host_verbs.Resume`."""
        async with _deadline("resuming the sandbox", SHORT_S), self._locks.held(sandbox_id):
            await self._pausing(sandbox_id).resume(sandbox_id)

    async def destroy(self, sandbox_id: SandboxId) -> Ended:
        """See `skerry.protocol.host_verbs.Destroy`."""
        validation.checked_id(sandbox_id)
        starting = self._starting.get(sandbox_id)
        if starting is not None:
            starting.cancel()
        async with _deadline("destroying the sandbox", DESTROY_S), self._locks.held(sandbox_id):
            owner = self._owners.get(sandbox_id)
            ended = Ended(None, oom=False)
            for driver in [owner] if owner else list(self._drivers.values()):
                ended = await driver.destroy(sandbox_id)
            self._forget(sandbox_id)
            return ended

    async def inspect(self) -> list[Observed]:
        """See `skerry.protocol.host_verbs.Inspect`."""
        async with _deadline("inspecting the host", SHORT_S):
            found = [one for driver in self._drivers.values() for one in await driver.observe()]
        hidden = self._trials.running if self._trials is not None else ()
        return [one for one in found if one.sandbox_id not in hidden]

    async def stats(self, sandbox_id: SandboxId) -> Usage:
        """See `skerry.protocol.host_verbs.Stats`."""
        async with _deadline("measuring the sandbox", SHORT_S):
            return await self._owner(sandbox_id).stats(sandbox_id)

    def listener(self, sandbox_id: SandboxId) -> socket.socket:
        """See `skerry.protocol.host_verbs.OpenListener`. The socket stays the service's; the caller sends a
        duplicate.
        """
        validation.checked_id(sandbox_id)
        return self._listeners.listener(sandbox_id, self._owners)

    async def gateway(self, sandbox_id: SandboxId) -> GatewaySockets:
        """See `skerry.protocol.host_verbs.OpenGateway`. The sockets stay the service's; the caller takes
        duplicates at once.
        """
        self._owner(sandbox_id)
        if self._networks is None:
            raise NotFound("sandboxes of this host have no network")
        async with _deadline("opening the gateway", SHORT_S):
            return await self._networks.sockets(sandbox_id)

    async def destroy_all(self) -> None:
        """End every sandbox, and remove the listeners of those that never were.

        Raises:
            SkerryError: The first that could not be removed; the others were.
        """
        found = [one.sandbox_id for driver in self._drivers.values() for one in await driver.observe()]
        results = await asyncio.gather(*map(self.destroy, found), return_exceptions=True)
        for problem in results:
            if isinstance(problem, BaseException):
                raise problem
        self._listeners.sweep(())

    async def close(self) -> None:
        """Stop watching; sandboxes go on."""
        for driver in self._drivers.values():
            await driver.close()
        self._listeners.close()

    async def _report(self, driver: Driver) -> DriverReport:
        report = await driver.probe()
        if not report.usable or self._trials is None:
            return report
        problem = await self._trials.problem(driver)
        return report if problem is None else structs.replace(report, usable=False, missing=(problem,))

    async def _finish_start(self, task: "asyncio.Task[tuple[None, Exception | None]]") -> None:
        """Wait for a start; when the wait is cancelled, the start is too, and undone before this returns."""
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            task.cancel()
            await asyncio.wait([task])
            raise
        if task.cancelled():
            raise RuntimeFailed("the sandbox was destroyed while it was starting")
        error = task.result()[1]
        if error is not None:
            raise error

    def _forget(self, sandbox_id: SandboxId) -> None:
        self._owners.pop(sandbox_id, None)
        self._listeners.remove(sandbox_id)

    def _owner(self, sandbox_id: SandboxId) -> Driver:
        owner = self._owners.get(validation.checked_id(sandbox_id))
        if owner is None:
            raise NotFound(f"there is no sandbox {sandbox_id} on this host")
        return owner

    def _pausing(self, sandbox_id: SandboxId) -> Pausing:
        owner = self._owner(sandbox_id)
        if not isinstance(owner, Pausing):
            raise NotSupported(f"isolation {owner.isolation} cannot pause sandboxes")
        return owner


def _boot_id() -> str:
    return BOOT_ID.read_text().strip()


def _memory_mib() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20


@asynccontextmanager
async def _deadline(what: str, seconds: float) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise TimedOut(what, seconds) from None
