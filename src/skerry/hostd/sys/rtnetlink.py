"""Network interfaces, addresses and routes: requests for `Netlink(ROUTE)`.

Source: rtnetlink(7), <linux/if_link.h>, <linux/veth.h>.
"""

import socket
import struct
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Final

from skerry.hostd.sys.netlink import CREATE, Netlink, Request, attribute, attributes, nested, number, text

_NEWLINK: Final = 16
_DELLINK: Final = 17
_GETLINK: Final = 18
_SETLINK: Final = 19
_NEWADDR: Final = 20
_NEWROUTE: Final = 24

_IFLA_IFNAME: Final = 3
_IFLA_OPERSTATE: Final = 16
_IFLA_LINKINFO: Final = 18
_IFLA_IFALIAS: Final = 20
_IFLA_GROUP: Final = 27
_IFLA_NET_NS_FD: Final = 28
_IFLA_INFO_KIND: Final = 1
_IFLA_INFO_DATA: Final = 2
_VETH_INFO_PEER: Final = 1
_IFA_ADDRESS: Final = 1
_IFA_LOCAL: Final = 2
_RTA_GATEWAY: Final = 5

_IFF_UP: Final = 1
_OPERATES: Final = b"\x06"  # IF_OPER_UP
_MAIN_TABLE, _STATIC, _UNIVERSE, _UNICAST = 254, 4, 0, 1

_LINK: Final = struct.Struct("=BxHiII")
_ADDRESS: Final = struct.Struct("=BBBBi")
_ROUTE: Final = struct.Struct("=8BI")


@dataclass(frozen=True, slots=True)
class Link:
    """One network interface.

    Attributes:
        index: Its number, which no other interface of the namespace gets.
        alias: What somebody wrote at it; may be empty.
    """

    index: int
    name: str
    alias: str


def add_veth(name: str, index: int, *, peer: str, peer_namespace: int) -> Request:
    """Make a pair of interfaces, each of which gets what the other sends; the first one is up.

    The second cannot be yet: it comes up only when the kernel has tied it to the first.

    Args:
        index: The number that the first one gets.
        peer_namespace: Descriptor of the network namespace in which the second one is made.
    """
    second = _link() + text(_IFLA_IFNAME, peer) + number(_IFLA_NET_NS_FD, peer_namespace)
    information = nested(
        _IFLA_LINKINFO,
        text(_IFLA_INFO_KIND, "veth"),
        nested(_IFLA_INFO_DATA, attribute(_VETH_INFO_PEER, second)),
    )
    first = _link(index, flags=_IFF_UP) + text(_IFLA_IFNAME, name)
    return Request(_NEWLINK, first + information, CREATE)


def set_up(index: int) -> Request:
    """Let an interface work."""
    return Request(_SETLINK, _link(index, flags=_IFF_UP))


def set_alias(index: int, alias: str) -> Request:
    """Write something at an interface; at most 255 bytes."""
    return Request(_SETLINK, _link(index) + attribute(_IFLA_IFALIAS, alias.encode()))


def add_address(index: int, address: IPv4Address, prefix_length: int) -> Request:
    """Give an interface an address and the route of its prefix."""
    body = _ADDRESS.pack(socket.AF_INET, prefix_length, 0, _UNIVERSE, index)
    values = attribute(_IFA_LOCAL, address.packed) + attribute(_IFA_ADDRESS, address.packed)
    return Request(_NEWADDR, body + values, CREATE)


def add_default_route(gateway: IPv4Address) -> Request:
    """Send everything that has no better route to a neighbour."""
    body = _ROUTE.pack(socket.AF_INET, 0, 0, 0, _MAIN_TABLE, _STATIC, _UNIVERSE, _UNICAST, 0)
    return Request(_NEWROUTE, body + attribute(_RTA_GATEWAY, gateway.packed), CREATE)


def set_group(index: int, group: int) -> Request:
    """Put an interface into a group, from 1."""
    return Request(_SETLINK, _link(index) + number(_IFLA_GROUP, group))


def delete_group(group: int) -> Request:
    """Remove all interfaces of a group; of a pair, both. The kernel needs some 30 ms, however many there are.

    ENODEV: there is none.
    """
    return Request(_DELLINK, _link() + number(_IFLA_GROUP, group))


def index_of(netlink: Netlink, name: str) -> int:
    """The number of the interface of that name.

    Raises:
        OSError: ENODEV: there is none.
    """
    return _read(netlink.find(Request(_GETLINK, _link() + text(_IFLA_IFNAME, name)))).index


def operates(netlink: Netlink, index: int) -> bool:
    """Whether packets that are sent by an interface go anywhere.

    Both ends of a pair being up is not enough: the kernel lets the first one work a moment later. To ask
    makes that moment now, from Linux 6.13 on (rtnl_getlink in net/core/rtnetlink.c).
    """
    found = attributes(netlink.find(Request(_GETLINK, _link(index)))[_LINK.size :])
    return found.get(_IFLA_OPERSTATE) == _OPERATES


def links(netlink: Netlink) -> list[Link]:
    """Every interface."""
    return [_read(body) for body in netlink.list(Request(_GETLINK, _link()))]


def _link(index: int = 0, *, flags: int = 0) -> bytes:
    """The fixed part of a message about an interface; of the flags only those that are set count."""
    return _LINK.pack(socket.AF_UNSPEC, 0, index, flags, flags)


def _read(body: bytes) -> Link:
    index = int(_LINK.unpack_from(body)[2])
    found = attributes(body[_LINK.size :])
    name, alias = (
        found.get(kind, b"").rstrip(b"\0").decode(errors="replace") for kind in (_IFLA_IFNAME, _IFLA_IFALIAS)
    )
    return Link(index, name, alias)
