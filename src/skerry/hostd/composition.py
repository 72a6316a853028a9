"""Puts storage, drivers and service of one instance together, and takes them apart."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from skerry.errors import HostUnusable
from skerry.hostd.background import Background
from skerry.hostd.cgroups import mounted
from skerry.hostd.drivers.base import Driver, Sink
from skerry.hostd.drivers.fake import FakeDriver
from skerry.hostd.drivers.gvisor import GVisorDriver
from skerry.hostd.drivers.gvisor_probe import CAPABILITIES
from skerry.hostd.guest_agent import GuestAgent
from skerry.hostd.happenings import Happenings
from skerry.hostd.listeners import AgentListeners
from skerry.hostd.places import Places
from skerry.hostd.service import HostService
from skerry.hostd.storage.root_store import RootStore
from skerry.hostd.trial import Trials
from skerry.spec.sandbox import DriverReport, Isolation
from skerry.spec.settings import Settings


@dataclass(slots=True)
class Host:
    """One instance's host side, recovered and working.

    Attributes:
        keep: What to do at the end: leave sandboxes as they are, or end them and leave nothing.
    """

    service: HostService
    happenings: Happenings
    background: Background
    keep: bool = True


@asynccontextmanager
async def composed(places: Places, settings: Settings) -> AsyncIterator[Host]:
    """Make everything, find the sandboxes that are there, and at the end do what `Host.keep` says.

    The process must be root, in the instance's private mount namespace.

    Raises:
        HostUnusable: Storage cannot be used. A driver that cannot be used only says so in its report.
        SkerryError: At the end, without ``keep``: something could not be removed.
    """
    places.make()
    data_dir = Path(settings.data_dir) / "host"
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    store = RootStore(data_dir, places.mounts)
    async with Background() as background:
        await store.open()
        happenings = Happenings()
        drivers, unusable = _drivers(places, settings, store, happenings.publish, background)
        listeners = AgentListeners(places, asyncio.get_running_loop().time)
        service = HostService(
            drivers=drivers,
            unusable=unusable,
            images={name: settings.image_digests.get(name, "") for name in settings.images},
            listeners=listeners,
            background=background,
            trials=Trials(listeners, settings.image) if settings.image in settings.images else None,
        )
        await service.recover()
        background.start(store.guard(), name="disk-guard")
        host = Host(service, happenings, background)
        try:
            yield host
        finally:
            try:
                if not host.keep:
                    await service.destroy_all()
            finally:
                await service.close()
                await store.close(keep=host.keep)
    if not host.keep:
        places.remove()


def _drivers(
    places: Places, settings: Settings, store: RootStore, sink: Sink, background: Background
) -> tuple[list[Driver], list[DriverReport]]:
    """Every driver that can be made here, and why the others cannot."""
    drivers: list[Driver] = []
    unusable: list[DriverReport] = []
    guest_agent = GuestAgent(Path(settings.agent_path), places.guest_agents)
    try:
        drivers.append(
            GVisorDriver(
                places=places,
                hierarchies=mounted.hierarchies(),
                runsc_path=settings.runsc_path,
                guest_agent=guest_agent,
                images={name: Path(path) for name, path in settings.images.items()},
                roots=store,
                sink=sink,
                background=background,
            )
        )
    except HostUnusable as problem:
        unusable.append(DriverReport(Isolation.GVISOR, False, "", CAPABILITIES, missing=(problem.message,)))
    if settings.test_drivers:
        drivers.append(FakeDriver(places=places, guest_agent=guest_agent, sink=sink, background=background))
    return drivers, unusable
