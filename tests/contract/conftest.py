"""One bench for every driver, with what the driver needs."""

import os
import secrets
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from skerry.hostd.background import Background
from skerry.hostd.cgroups import mounted
from skerry.hostd.drivers.base import Driver, Sink
from skerry.hostd.drivers.gvisor import GVisorDriver
from skerry.hostd.guest_agent import GuestAgent
from skerry.hostd.network.sandbox_networks import SandboxNetworks
from skerry.hostd.places import Places
from skerry.hostd.storage.root_store import RootStore
from skerry.spec.ids import new_instance_id
from skerry.spec.sandbox import Capability, Isolation
from tests.conftest import Built, unavailable
from tests.harness import private_mounts
from tests.harness.in_process_host import InProcessHost, MakeDriver, fake_driver

CAPABILITIES = {
    Isolation.FAKE: frozenset({Capability.PAUSE}),
    Isolation.GVISOR: frozenset(
        {
            Capability.PAUSE,
            Capability.MEMORY_LIMIT,
            Capability.CPU_LIMIT,
            Capability.PROCESS_LIMIT,
            Capability.DISK_LIMIT,
            Capability.OWN_NETWORK,
            Capability.OWN_ROOT,
        }
    ),
}
"""What each driver must be able to do: a driver that loses one fails here."""


@dataclass(frozen=True, slots=True)
class Bench:
    """A driver under test in a runtime directory of its own.

    Attributes:
        make: Makes another driver object.
    """

    isolation: Isolation
    places: Places
    make: MakeDriver

    @asynccontextmanager
    async def host(self, *, keep: bool = False) -> AsyncIterator[InProcessHost]:
        """A host around a new driver object, over the sandboxes that are there."""
        async with InProcessHost.around(self.places, [self.make], keep=keep) as host:
            yield host

    def needs(self, capability: Capability) -> None:
        """Skip the test for drivers that do not have the ability."""
        if capability not in CAPABILITIES[self.isolation]:
            pytest.skip(f"{self.isolation} does not claim {capability}")


@pytest.fixture(params=[Isolation.FAKE, Isolation.GVISOR], ids=str)
def isolation(request: pytest.FixtureRequest) -> Isolation:
    """Each driver."""
    found: Isolation = request.param
    return found


@pytest.fixture
def runtime_dir() -> Iterator[Path]:
    """A directory with a short path: that of a socket may have 108 bytes (unix(7))."""
    directory = Path(tempfile.mkdtemp(prefix="skerry-"))
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
async def bench(isolation: Isolation, runtime_dir: Path, built: Built) -> AsyncIterator[Bench]:
    """The driver; at the end nothing of it may be left."""
    places = Places(runtime_dir, new_instance_id(secrets.randbelow))
    places.make()
    if isolation is Isolation.FAKE:
        yield Bench(isolation, places, fake_driver(built.agent))
    else:
        if os.geteuid() != 0:
            unavailable("needs root")
        private_mounts.enter()
        data_dir = runtime_dir / "data"
        store = RootStore(data_dir, places.mounts)
        await store.open()
        networks = await SandboxNetworks.opened(places, max_connections=64)
        try:
            yield Bench(isolation, places, _gvisor(built, store, networks))
        finally:
            await networks.close(keep=False)
            await store.close(keep=False)
            shutil.rmtree(data_dir)
    places.remove()
    assert os.listdir(runtime_dir) == []


def _gvisor(built: Built, store: RootStore, networks: SandboxNetworks) -> MakeDriver:
    def make(places: Places, sink: Sink, background: Background) -> Driver:
        return GVisorDriver(
            places=places,
            hierarchies=mounted.hierarchies(),
            runsc_path=str(built.runsc),
            guest_agent=GuestAgent(built.agent, places.guest_agents),
            images={"builtin:debian-13": built.image},
            roots=store,
            networks=networks,
            sink=sink,
            background=background,
        )

    return make
