"""Networks of sandboxes: each is a namespace of its own, whose only way out is its slot at the gateway."""

import asyncio
import errno
import os
from functools import partial

import structlog

from skerry.errors import Conflict, HostUnusable, NotFound, RuntimeFailed
from skerry.hostd.keyed_locks import KeyedLocks
from skerry.hostd.network.gateway import Gateway, GatewaySockets
from skerry.hostd.network.slots import Slots
from skerry.hostd.places import Places
from skerry.hostd.sys import network_namespace
from skerry.spec.ids import SandboxId, container_name, sandbox_of_container

ATTACH_S = 10.0
REMOVE_S = 10.0
LISTEN_S = 3.0

HELD_S = 2.0
"""How long an earlier owner of a sandbox's sockets may take to let them go."""

_HELD_PAUSE_S = 0.02

_log = structlog.get_logger("skerry.hostd.network")


class SandboxNetworks:
    """Implements `skerry.hostd.drivers.base.Networks`. Made by `opened`.

    The sockets of a sandbox are made when they are first asked for: until then its connections are reset.
    They stay here as long as the sandbox does, so that they survive egressd. An egressd that survives hostd
    keeps its duplicates; hostd makes them anew when the last process that has them is gone.
    """

    def __init__(self, places: Places, gateway: Gateway) -> None:
        self._places = places
        self._gateway = gateway
        self._slots = Slots()
        self._sockets: dict[SandboxId, GatewaySockets] = {}
        self._locks = KeyedLocks()

    @classmethod
    async def opened(cls, places: Places, *, max_connections: int) -> "SandboxNetworks":
        """Make the gateway, or find it again with all sandboxes that are at it.

        Args:
            max_connections: Of one sandbox at once, as its worker serves them.

        Raises:
            HostUnusable: It cannot be made here.
        """
        try:
            networks = cls(places, Gateway(places.gateway))
        except OSError as error:
            raise HostUnusable("the gateway's network namespace cannot be made", detail=str(error)) from error
        try:
            await networks._find(max_connections)
        except OSError as error:
            networks._gateway.close()
            raise HostUnusable("the gateway's network cannot be set up", detail=str(error)) from error
        except BaseException:
            networks._gateway.close()
            raise
        return networks

    async def make(self, sandbox_id: SandboxId) -> None:
        """See `Networks.make`."""
        async with self._locks.held(sandbox_id):
            slot = self._slots.take(sandbox_id)
            alias = container_name(self._places.instance, sandbox_id)
            attach = partial(self._gateway.attach, slot, alias, self._places.network(sandbox_id))
            try:
                await self._gateway.making.run("attaching the sandbox's network", ATTACH_S, attach)
            except OSError as error:
                raise RuntimeFailed("the sandbox's network could not be made", detail=str(error)) from error

    async def remove(self, sandbox_id: SandboxId) -> None:
        """See `Networks.remove`."""
        async with self._locks.held(sandbox_id):
            sockets = self._sockets.pop(sandbox_id, None)
            if sockets is not None:
                sockets.close()
            slot = self._slots.of(sandbox_id)
            try:
                if slot is not None:
                    # By the thread that makes, so that it comes after a `make` whose caller did not wait.
                    leave = partial(self._gateway.leave, slot)
                    await self._gateway.making.run("leaving the gateway", REMOVE_S, leave)
                network_namespace.remove(self._places.network(sandbox_id))
                if slot is not None:
                    await self._remove_leaving()
            except OSError as error:
                raise RuntimeFailed(
                    "the sandbox's network could not be removed", detail=str(error)
                ) from error
            self._slots.free(sandbox_id)

    def present(self) -> list[SandboxId]:
        """See `Networks.present`."""
        pinned = (
            sandbox_of_container(self._places.instance, name) for name in os.listdir(self._places.networks)
        )
        return [*self._slots.sandboxes(), *(sandbox_id for sandbox_id in pinned if sandbox_id is not None)]

    async def sockets(self, sandbox_id: SandboxId) -> GatewaySockets:
        """Where the packets of a sandbox arrive. They stay this object's; the caller takes duplicates at
        once.

        Raises:
            NotFound: There is no such sandbox, or it has no network.
            Conflict: Another process still has those that an earlier hostd handed out.
            RuntimeFailed: They cannot be made.
        """
        async with self._locks.held(sandbox_id):
            slot = self._slots.of(sandbox_id)
            if slot is None:
                raise NotFound(f"there is no sandbox {sandbox_id} with a network on this host")
            if sandbox_id not in self._sockets:
                self._sockets[sandbox_id] = await self._listening(slot)
            return self._sockets[sandbox_id]

    async def close(self, *, keep: bool) -> None:
        """Let go of everything.

        Args:
            keep: Sandboxes go on; else the gateway goes too, and none may be left.
        """
        for sockets in self._sockets.values():
            sockets.close()
        self._sockets.clear()
        await asyncio.to_thread(self._gateway.close)
        if not keep:
            network_namespace.remove(self._places.gateway)

    async def _find(self, max_connections: int) -> None:
        making = self._gateway.making
        set_up = partial(self._gateway.set_up, max_connections=max_connections)
        await making.run("loading the gateway's rules", ATTACH_S, set_up)
        taken = await making.run("listing the gateway's interfaces", ATTACH_S, self._gateway.taken)
        for slot, alias in taken:
            sandbox_id = sandbox_of_container(self._places.instance, alias)
            if sandbox_id is None:  # an interrupted start
                _log.info("removing_unfinished_interface", slot=slot)
                await making.run("leaving the gateway", REMOVE_S, partial(self._gateway.leave, slot))
            else:
                self._slots.adopt(slot, sandbox_id)
        await self._remove_leaving()

    async def _remove_leaving(self) -> None:
        gateway = self._gateway
        await gateway.removing.run("removing the sandbox's network", REMOVE_S, gateway.remove_leaving)

    async def _listening(self, slot: int) -> GatewaySockets:
        loop = asyncio.get_running_loop()
        until_s = loop.time() + HELD_S
        while True:
            try:
                return await self._gateway.making.run(
                    "making the gateway's sockets",
                    LISTEN_S,
                    partial(self._gateway.listen, slot),
                    drop=GatewaySockets.close,
                )
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise RuntimeFailed("the gateway's sockets cannot be made", detail=str(error)) from error
            if loop.time() >= until_s:
                raise Conflict(
                    "another process still has the sandbox's sockets: use them, or end it",
                    code="GATEWAY_HELD",
                )
            await asyncio.sleep(_HELD_PAUSE_S)
