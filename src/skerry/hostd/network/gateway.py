"""The gateway's network namespace: one per instance, without a way out, kept by a file over restarts of
hostd.

Only what the kernel says counts: which slot is whose stands in the alias of its interface.
"""

import errno
import os
import queue
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from skerry.hostd.network import gateway_rules
from skerry.hostd.network.addresses import (
    GATEWAY_PORT,
    GUEST_INTERFACE,
    GUEST_INTERFACE_INDEX,
    PREFIX_LENGTH,
    gateway_address,
    guest_address,
    interface,
    slot_of,
)
from skerry.hostd.network.namespace_thread import NamespaceThread
from skerry.hostd.sys import conntrack, network_namespace, nftables, rtnetlink
from skerry.hostd.sys.netlink import NETFILTER, ROUTE, Netlink

_BACKLOG = 128
_LEAVING_GROUP = 1
_OPERATING_LOOKS, _OPERATING_PAUSE_S = 20, 0.001
_SYSTEM_VALUES = Path("/proc/sys/net")


@dataclass(frozen=True, slots=True)
class GatewaySockets:
    """Where the packets of one sandbox arrive.

    Attributes:
        tcp: Listens; gets every connection.
        udp: Gets packets to port 53.
    """

    tcp: socket.socket
    udp: socket.socket

    def close(self) -> None:
        """Close both. Idempotent."""
        self.tcp.close()
        self.udp.close()


class Gateway:
    """The namespace, and what can be done in it. Nothing here awaits; use it by its two threads.

    Args:
        pin: The file that holds the namespace; it is made when there is none.

    Attributes:
        making: Does what gives a sandbox its network.
        removing: Does what takes it away, which the kernel takes its time for.

    Raises:
        OSError: The namespace cannot be made.
    """

    def __init__(self, pin: Path) -> None:
        self._pin = pin
        found = network_namespace.open_pinned(pin)
        if found is None:
            pin.unlink(missing_ok=True)
            network_namespace.create(pin)
            found = network_namespace.open_pinned(pin)
        if found is None:
            raise OSError(errno.EINVAL, "it holds no network namespace", str(pin))
        self._namespace = found
        self.making = NamespaceThread(found, "gateway")
        self.removing = NamespaceThread(found, "gateway-removal")
        self._leaving: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._links = self.making.do(partial(Netlink, ROUTE))
        self._old_links = self.removing.do(partial(Netlink, ROUTE))
        self._connections = self.removing.do(partial(Netlink, NETFILTER))

    def close(self) -> None:
        """Let go of it; it stays, with all that is in it."""
        self.making.close()
        self.removing.close()
        for netlink in (self._links, self._old_links, self._connections):
            netlink.close()
        os.close(self._namespace)

    def set_up(self, *, max_connections: int) -> None:
        """Load the rules unless they are there, and set the kernel's values. By `making`.

        Raises:
            HostUnusable: The rules cannot be loaded.
            OSError: A value cannot be set.
        """
        for name, value in gateway_rules.SYSTEM_VALUES:
            _write(_SYSTEM_VALUES / name, value)
        rules = gateway_rules.rules(max_connections=max_connections)
        present = nftables.tables()
        if present != [rules.table]:
            nftables.load(rules.script(present))
        for name, value in gateway_rules.TRACKING_VALUES:
            _write(_SYSTEM_VALUES / name, value)

    def attach(self, slot: int, alias: str, pin: Path) -> None:
        """Make a network namespace, held by a file, whose only way out is a slot. By `making`.

        When it fails parts may be left, for `leave` and `network_namespace.remove`.

        Raises:
            OSError: The kernel refused.
        """
        guest_links: list[Netlink] = []
        try:
            network_namespace.create(pin, partial(self._connect, slot, guest_links))
            index = rtnetlink.index_of(self._links, interface(slot))
            self._links.ask(
                rtnetlink.set_alias(index, alias),
                rtnetlink.add_address(index, gateway_address(slot), PREFIX_LENGTH),
                rtnetlink.set_up(index),
            )
            _wait_until_it_operates(guest_links[0])
        finally:
            for netlink in guest_links:
                netlink.close()

    def _connect(self, slot: int, links: list[Netlink]) -> None:
        """In the sandbox's namespace: make both ends, and set its own one up."""
        links.append(Netlink(ROUTE))
        links[0].ask(
            rtnetlink.add_veth(
                GUEST_INTERFACE,
                GUEST_INTERFACE_INDEX,
                peer=interface(slot),
                peer_namespace=self._namespace,
            ),
            rtnetlink.add_address(GUEST_INTERFACE_INDEX, guest_address(slot), PREFIX_LENGTH),
            rtnetlink.add_default_route(gateway_address(slot)),
        )

    def leave(self, slot: int) -> None:
        """Mark what there is of a slot for `remove_leaving`. By `making`.

        Raises:
            OSError: The kernel refused.
        """
        try:
            index = rtnetlink.index_of(self._links, interface(slot))
            self._links.ask(rtnetlink.set_group(index, _LEAVING_GROUP))
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise
        self._leaving.put(slot)

    def remove_leaving(self) -> None:
        """Remove all that is marked: interfaces with both ends, and what the kernel remembers of connections,
        which else would count for the next sandbox. By `removing`.

        However many there are, it takes some 30 ms, for which others need not wait; so those that come
        meanwhile are removed together.

        Raises:
            OSError: The kernel refused.
        """
        slots: list[int] = []
        with suppress(queue.Empty):
            while True:
                slots.append(self._leaving.get_nowait())
        if not slots:
            return  # an earlier call did it
        try:
            self._remove(slots)
        except BaseException:
            for slot in slots:
                self._leaving.put(slot)
            raise

    def _remove(self, slots: list[int]) -> None:
        try:
            self._old_links.ask(rtnetlink.delete_group(_LEAVING_GROUP))
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise
        conntrack.forget(self._connections, [guest_address(slot) for slot in slots])

    def taken(self) -> list[tuple[int, str]]:
        """Slots that have an interface, and its alias, in the order they were made. By `making`.

        Raises:
            OSError: The kernel refused.
        """
        found = sorted(rtnetlink.links(self._links), key=lambda link: link.index)
        return [(slot, link.alias) for link in found if (slot := slot_of(link.name)) is not None]

    def listen(self, slot: int) -> GatewaySockets:
        """Make the sockets of a slot. By `making`.

        They belong to the interface itself: once it is gone they get nothing, also when the slot has another.

        Raises:
            OSError: EADDRINUSE: somebody has sockets that were made earlier; ENODEV: it has no interface.
        """
        address = (str(gateway_address(slot)), GATEWAY_PORT)
        tcp = _bound(socket.SOCK_STREAM, slot, address)
        try:
            tcp.listen(_BACKLOG)
            udp = _bound(socket.SOCK_DGRAM, slot, address)
        except BaseException:
            tcp.close()
            raise
        return GatewaySockets(tcp, udp)


def _wait_until_it_operates(netlink: Netlink) -> None:
    """Else the first packet might be lost, and a connection take a second. No error if it needs longer."""
    for _ in range(_OPERATING_LOOKS):
        if rtnetlink.operates(netlink, GUEST_INTERFACE_INDEX):
            return
        time.sleep(_OPERATING_PAUSE_S)


def _bound(kind: socket.SocketKind, slot: int, address: tuple[str, int]) -> socket.socket:
    sock = socket.socket(socket.AF_INET, kind | socket.SOCK_NONBLOCK)
    try:
        if kind == socket.SOCK_STREAM:
            # Connections of an earlier listener are no obstacle, another listener is. For UDP the option
            # would mean that two may have the packets.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface(slot).encode())
        sock.bind(address)
    except BaseException:
        sock.close()
        raise
    return sock


def _write(path: Path, value: str) -> None:
    with suppress(FileNotFoundError):  # of another version of the kernel
        path.write_text(value)
