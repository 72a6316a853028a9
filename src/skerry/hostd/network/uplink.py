"""Puts the second line (`uplink_rules`) into the host's own network namespace, and takes it away."""

import asyncio
import socket
from ipaddress import ip_address

import structlog

from skerry.errors import HostUnusable
from skerry.hostd.network import uplink_rules
from skerry.hostd.network.uplink_rules import Endpoint, Uplink
from skerry.hostd.sys import nftables
from skerry.spec.ids import InstanceId
from skerry.spec.settings import EgressSettings

RESOLVE_S = 5.0

_log = structlog.get_logger("skerry.hostd.network")


class UplinkTable:
    """The table of one instance. Made by `installed`."""

    def __init__(self, instance: InstanceId, script: str) -> None:
        self._instance = instance
        self._script = script

    @classmethod
    async def installed(
        cls, instance: InstanceId, settings: EgressSettings, *, uid: int, gid: int
    ) -> "UplinkTable":
        """Load the table, in place of an older one.

        Args:
            uid, gid: Of the gateway's workers.

        Raises:
            HostUnusable: It cannot be loaded.
        """
        uplink = Uplink(
            uid=uid,
            gid=gid,
            resolvers=tuple(_endpoint(text) for text in settings.resolvers),
            proxies=await _resolved(settings.upstream_proxy),
            internal=uplink_rules.networks(prefix for one in settings.internal for prefix in one.cidr),
        )
        table = cls(instance, uplink_rules.script(instance, uplink))
        await asyncio.to_thread(nftables.load, table._script)
        return table

    async def keep(self) -> None:
        """Load the table again whenever somebody removes it, as ``nft flush ruleset`` does. Ends never."""
        name = uplink_rules.table_name(self._instance)
        removals = nftables.Removals()
        loop, changed = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(removals, changed.set)
        try:
            while True:
                await changed.wait()
                changed.clear()
                # Loading tells of a removal too, since it removes what was there.
                if removals.take(name):
                    await self._restore(name)
        finally:
            loop.remove_reader(removals)
            removals.close()

    async def _restore(self, name: str) -> None:
        try:
            if name not in await asyncio.to_thread(nftables.tables):
                await asyncio.to_thread(nftables.load, self._script)
                _log.warning("second_line_restored")
        except HostUnusable as problem:  # the first line holds, and the next change is another attempt
            _log.error("second_line_missing", error=problem.message, detail=problem.detail)

    async def remove(self) -> None:
        """Remove the table. Idempotent.

        Raises:
            HostUnusable: It cannot be removed.
        """
        await asyncio.to_thread(nftables.load, uplink_rules.removal(self._instance))


def _endpoint(text: str) -> Endpoint:
    host, port = _split(text)
    return ip_address(host.partition("%")[0]), port  # an interface has no place in a rule


async def _resolved(proxy: str) -> tuple[Endpoint, ...]:
    """Addresses that a proxy has now; none when that cannot be found out. A proxy on the public internet
    needs no exception.
    """
    if not proxy:
        return ()
    host, port = _split(proxy)
    try:
        async with asyncio.timeout(RESOLVE_S):
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, TimeoutError) as error:
        _log.warning("upstream_proxy_not_resolved", error=str(error))
        return ()
    return tuple({(ip_address(str(address[0]).partition("%")[0]), port) for *_, address in found})


def _split(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), int(port)
