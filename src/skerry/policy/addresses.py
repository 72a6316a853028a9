"""Addresses that nothing may reach unless the operator opens them. Pure.

An explicit table (R11) and not `ipaddress.is_global`, whose meaning changed between patch releases. Forms
that carry an IPv4 address inside IPv6 are refused as a whole, whatever they carry: mapped, compatible, NAT64,
6to4, Teredo. A host that has nothing but NAT64 therefore needs IPv4 through a CLAT. Documentation prefixes
are not in the table; nobody routes them.

Own addresses of the host are not known here; see `skerry.policy.compiled.Own`.
"""

from bisect import bisect_right
from ipaddress import IPv4Address, IPv6Address, ip_network

Address = IPv4Address | IPv6Address

_TABLE = (
    ("0.0.0.0/8", "this-network"),
    ("10.0.0.0/8", "private"),
    ("100.64.0.0/10", "shared"),
    ("100.100.100.200/32", "metadata"),  # Alibaba Cloud
    ("127.0.0.0/8", "loopback"),
    ("168.63.129.16/32", "metadata"),  # Azure; looks public
    ("169.254.0.0/16", "link-local"),
    ("169.254.169.254/32", "metadata"),  # AWS, GCP, Azure, OCI and others
    ("169.254.169.253/32", "metadata"),  # AWS's resolver
    ("169.254.170.2/32", "metadata"),  # ECS
    ("169.254.170.23/32", "metadata"),  # EKS
    ("172.16.0.0/12", "private"),
    ("192.0.0.0/24", "protocol"),
    ("192.0.0.192/32", "metadata"),  # OCI
    ("192.88.99.0/24", "6to4"),
    ("192.168.0.0/16", "private"),
    ("198.18.0.0/15", "benchmark"),  # also the gateway's own synthetic addresses
    ("224.0.0.0/4", "multicast"),
    ("240.0.0.0/4", "reserved"),
    ("255.255.255.255/32", "broadcast"),
    ("::/0", "reserved"),
    ("2000::/3", ""),  # global unicast: the only part of IPv6 that is open
    ("::/128", "unspecified"),
    ("::1/128", "loopback"),
    ("::ffff:0:0/96", "ipv4-mapped"),
    ("64:ff9b::/96", "nat64"),
    ("64:ff9b:1::/48", "nat64"),
    ("100::/64", "discard"),
    ("2001::/32", "teredo"),
    ("2001:10::/28", "orchid"),
    ("2001:20::/28", "orchid"),
    ("2002::/16", "6to4"),
    ("fc00::/7", "unique-local"),
    ("fd00:ec2::254/128", "metadata"),  # AWS
    ("fd00:ec2::23/128", "metadata"),  # EKS
    ("fd20:ce::254/128", "metadata"),  # GCP
    ("fe80::/10", "link-local"),
    ("fec0::/10", "site-local"),
    ("ff00::/8", "multicast"),
)


def denied(address: Address) -> str | None:
    """The name of the range that forbids an address, such as ``private``; None when it is on the internet."""
    starts, names = _V4 if address.version == 4 else _V6
    return names[bisect_right(starts, int(address)) - 1] or None


def denied_ranges(version: int) -> list[tuple[Address, Address]]:
    """First and last address of every part of IP version 4 or 6 that is forbidden, in order, as few as
    possible.
    """
    starts, names = _V4 if version == 4 else _V6
    kind: type[Address] = IPv4Address if version == 4 else IPv6Address
    ends = [*(start - 1 for start in starts[1:]), (1 << (32 if version == 4 else 128)) - 1]
    found: list[tuple[int, int]] = []
    for start, end, name in zip(starts, ends, names, strict=True):
        if name and found and found[-1][1] == start - 1:
            found[-1] = (found[-1][0], end)
        elif name:
            found.append((start, end))
    return [(kind(first), kind(last)) for first, last in found]


def _flattened(version: int) -> tuple[list[int], list[str]]:
    """Disjoint ranges by their first address; where ranges overlap the narrowest names them."""
    networks = [(ip_network(text), name) for text, name in _TABLE]
    own = sorted((net, name) for net, name in networks if net.version == version)
    end = 1 << (32 if version == 4 else 128)
    edges = {0}
    for net, _ in own:
        edges.update((int(net.network_address), int(net.broadcast_address) + 1))
    starts = sorted(edge for edge in edges if edge < end)
    names: list[str] = []
    for start in starts:
        covering = [
            (net.prefixlen, name)
            for net, name in own
            if int(net.network_address) <= start <= int(net.broadcast_address)
        ]
        names.append(max(covering)[1] if covering else "")
    return starts, names


_V4 = _flattened(4)
_V6 = _flattened(6)
