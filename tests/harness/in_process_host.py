"""The host side without a hostd process: the real service and driver, called directly."""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from skerry.control.host import Listening
from skerry.hostd.background import Background
from skerry.hostd.drivers.base import Driver, Sink
from skerry.hostd.drivers.fake import FakeDriver
from skerry.hostd.guest_agent import GuestAgent
from skerry.hostd.happenings import Happenings
from skerry.hostd.listeners import AgentListeners
from skerry.hostd.places import Places
from skerry.hostd.service import HostService
from skerry.protocol.host_verbs import Happening, HostDescription
from skerry.spec.ids import InstanceId, SandboxId
from skerry.spec.sandbox import Ended, Observed, StartSpec, Usage

IMAGES = {"builtin:debian-13": "sha256:0"}
INSTANCE = InstanceId("test00")

MakeDriver = Callable[[Places, Sink, Background], Driver]


class InProcessHost:
    """Implements `skerry.control.host.Host` around drivers in this process."""

    def __init__(self, service: HostService, happenings: Happenings, drivers: list[Driver]) -> None:
        self.drivers = drivers
        self._service = service
        self._happenings = happenings

    @classmethod
    @asynccontextmanager
    async def around(
        cls, places: Places, make_drivers: list[MakeDriver], *, keep: bool = False
    ) -> AsyncIterator["InProcessHost"]:
        """A host in a runtime directory, which may hold sandboxes of an earlier one.

        Args:
            keep: Leave sandboxes running at the end, for the next host in the same directory.
        """
        places.make()
        async with Background() as background:
            happenings = Happenings()
            drivers = [make(places, happenings.publish, background) for make in make_drivers]
            service = HostService(
                drivers=drivers,
                unusable=(),
                images=IMAGES,
                listeners=AgentListeners(places, asyncio.get_running_loop().time),
                background=background,
            )
            await service.recover()
            try:
                yield cls(service, happenings, drivers)
            finally:
                if not keep:
                    await service.destroy_all()
                await service.close()

    async def describe(self) -> HostDescription:
        """See `Host.describe`."""
        return await self._service.describe()

    async def start(self, spec: StartSpec) -> None:
        """See `Host.start`."""
        await self._service.start(spec)

    async def listen(
        self, sandbox_id: SandboxId, protocol_factory: Callable[[], asyncio.Protocol]
    ) -> Listening:
        """See `Host.listen`."""
        listener = self._service.listener(sandbox_id).dup()
        loop = asyncio.get_running_loop()
        return await loop.create_unix_server(protocol_factory, sock=listener)

    async def pause(self, sandbox_id: SandboxId) -> None:
        """See `Host.pause`."""
        await self._service.pause(sandbox_id)

    async def resume(self, sandbox_id: SandboxId) -> None:
        """See `Host.resume`."""
        await self._service.resume(sandbox_id)

    async def destroy(self, sandbox_id: SandboxId) -> Ended:
        """See `Host.destroy`."""
        return await self._service.destroy(sandbox_id)

    async def inspect(self) -> list[Observed]:
        """See `Host.inspect`."""
        return await self._service.inspect()

    async def stats(self, sandbox_id: SandboxId) -> Usage:
        """See `Host.stats`."""
        return await self._service.stats(sandbox_id)

    async def events(self) -> AsyncIterator[Happening | None]:
        """See `Host.events`."""
        with self._happenings.subscribed() as subscription:
            yield None
            while True:
                yield await subscription.next()


def fake_driver(agent: Path) -> MakeDriver:
    """Makes the fake driver, which runs the real agent as an ordinary process."""

    def make(places: Places, sink: Sink, background: Background) -> Driver:
        guest_agent = GuestAgent(agent, places.guest_agents)
        return FakeDriver(places=places, guest_agent=guest_agent, sink=sink, background=background)

    return make


@asynccontextmanager
async def fake_host(agent: Path) -> AsyncIterator[InProcessHost]:
    """A host with the fake driver and a runtime directory of its own; needs no root."""
    # Not pytest's own directory: the path of a socket may have 108 bytes (unix(7)).
    directory = Path(tempfile.mkdtemp(prefix="skerry-"))
    try:
        async with InProcessHost.around(Places(directory, INSTANCE), [fake_driver(agent)]) as host:
            yield host
    finally:
        shutil.rmtree(directory)
