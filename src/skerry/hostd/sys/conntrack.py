"""The connections that a network namespace remembers: requests for `Netlink(NETFILTER)`.

Source: <linux/netfilter/nfnetlink_conntrack.h>, net/netfilter/nf_conntrack_netlink.c of Linux.
"""

import errno
import socket
import struct
from collections.abc import Collection
from ipaddress import IPv4Address
from typing import Final

from skerry.hostd.sys.netlink import Netlink, Request, attributes, nested

_GET: Final = 1 << 8 | 1
_DELETE: Final = 1 << 8 | 2

_TUPLE_ORIGINAL: Final = 1
_TUPLE_ADDRESSES: Final = 1
_SOURCE: Final = 1

_FAMILY: Final = struct.pack("=BBH", socket.AF_INET, 0, 0)


def forget(netlink: Netlink, sources: Collection[IPv4Address]) -> int:
    """Forget every connection that one of these addresses has begun; returns how many.

    Takes 10 ms and more, for the kernel looks through all of its table.

    Raises:
        OSError: The kernel refused.
    """
    wanted = {address.packed for address in sources}
    found = [
        original
        for body in netlink.list(Request(_GET, _FAMILY))
        if _source(original := attributes(body[len(_FAMILY) :]).get(_TUPLE_ORIGINAL, b"")) in wanted
    ]
    for original in found:
        try:
            netlink.ask(Request(_DELETE, _FAMILY + nested(_TUPLE_ORIGINAL, original)))
        except OSError as error:
            if error.errno != errno.ENOENT:  # it may have ended meanwhile
                raise
    return len(found)


def _source(original: bytes) -> bytes:
    return attributes(attributes(original).get(_TUPLE_ADDRESSES, b"")).get(_SOURCE, b"")
