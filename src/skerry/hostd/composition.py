"""Puts storage, drivers and service of one instance together, and takes them apart."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog

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
from skerry.hostd.network.sandbox_networks import SandboxNetworks
from skerry.hostd.network.uplink import UplinkTable
from skerry.hostd.places import Places
from skerry.hostd.service import HostService
from skerry.hostd.storage.root_store import RootStore
from skerry.hostd.trial import Trials
from skerry.spec.ids import egress_group
from skerry.spec.sandbox import DriverReport, Isolation
from skerry.spec.settings import EgressSettings, Settings

_log = structlog.get_logger("skerry.hostd")


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


@dataclass(slots=True)
class _Network:
    """The way out of sandboxes.

    Attributes:
        uplink: The second line; None also when nothing will use the first.
        networks: None when there can be none.
        problem: Why not.
    """

    uplink: UplinkTable | None = None
    networks: SandboxNetworks | None = None
    problem: str = ""


@asynccontextmanager
async def composed(
    places: Places, settings: Settings, *, egress_uid: int | None = None
) -> AsyncIterator[Host]:
    """Make everything, find the sandboxes that are there, and at the end do what `Host.keep` says.

    The process must be root, in the instance's private mount namespace.

    Args:
        egress_uid: User of the gateway's workers; None: there will be none.

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
        network = await _network(places, settings.egress, egress_uid)
        happenings = Happenings()
        drivers, unusable = _drivers(places, settings, store, network, happenings.publish, background)
        listeners = AgentListeners(places, asyncio.get_running_loop().time)
        service = HostService(
            drivers=drivers,
            unusable=unusable,
            images={name: settings.image_digests.get(name, "") for name in settings.images},
            listeners=listeners,
            background=background,
            networks=network.networks,
            trials=Trials(listeners, settings.image) if settings.image in settings.images else None,
        )
        await service.recover()
        background.start(store.guard(), name="disk-guard")
        if network.uplink is not None:
            background.start(network.uplink.keep(), name="second-line")
        host = Host(service, happenings, background)
        try:
            yield host
        finally:
            try:
                if not host.keep:
                    await service.destroy_all()
            finally:
                await service.close()
                if network.networks is not None:
                    await network.networks.close(keep=host.keep)
                await store.close(keep=host.keep)
    if not host.keep:
        if network.uplink is not None:
            await network.uplink.remove()
        places.remove()


async def _network(places: Places, settings: EgressSettings, egress_uid: int | None) -> _Network:
    """Set up the way out of sandboxes, both lines of it; or find out why there can be none."""
    found = _Network()
    try:
        if egress_uid is not None:
            gid = egress_group(places.instance)
            found.uplink = await UplinkTable.installed(places.instance, settings, uid=egress_uid, gid=gid)
        found.networks = await SandboxNetworks.opened(places, max_connections=settings.limits.connections)
    except HostUnusable as problem:
        _log.error("no_network", error=problem.message, detail=problem.detail)
        found.problem = problem.message
    return found


def _drivers(
    places: Places,
    settings: Settings,
    store: RootStore,
    network: _Network,
    sink: Sink,
    background: Background,
) -> tuple[list[Driver], list[DriverReport]]:
    """Every driver that can be made here, and why the others cannot."""
    drivers: list[Driver] = []
    unusable: list[DriverReport] = []
    guest_agent = GuestAgent(Path(settings.agent_path), places.guest_agents)
    try:
        if network.networks is None:
            raise HostUnusable(network.problem)
        drivers.append(
            GVisorDriver(
                places=places,
                hierarchies=mounted.hierarchies(),
                runsc_path=settings.runsc_path,
                guest_agent=guest_agent,
                images={name: Path(path) for name, path in settings.images.items()},
                roots=store,
                networks=network.networks,
                sink=sink,
                background=background,
            )
        )
    except HostUnusable as problem:
        unusable.append(DriverReport(Isolation.GVISOR, False, "", CAPABILITIES, missing=(problem.message,)))
    if settings.test_drivers:
        drivers.append(FakeDriver(places=places, guest_agent=guest_agent, sink=sink, background=background))
    return drivers, unusable
