"""The second line behind the gateway's workers: where the host itself lets them connect to. Pure.

The workers decide by policy which addresses they dial. Should one be taken over, the host's packet filter
still keeps it from everything that is not on the public internet. It knows their packets by the user and
group of the socket.

It is a table of its own, after all address translation and beside the tables of others: it can only refuse,
and only these sockets.

Source: nft(8).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import Final

from skerry.policy.addresses import denied_ranges
from skerry.spec.ids import InstanceId

Address = IPv4Address | IPv6Address
Endpoint = tuple[Address, int]

_REFUSED: Final = "reject with icmpx admin-prohibited"
_FAMILIES: Final = ((4, "ip"), (6, "ip6"))


@dataclass(frozen=True, slots=True)
class Uplink:
    """What the workers of an instance may reach.

    Attributes:
        uid, gid: Of their processes.
        resolvers: By TCP and UDP.
        proxies: By TCP.
        internal: Networks that policy may open, by TCP.
    """

    uid: int
    gid: int
    resolvers: tuple[Endpoint, ...] = ()
    proxies: tuple[Endpoint, ...] = ()
    internal: tuple[IPv4Network | IPv6Network, ...] = ()


def table_name(instance: InstanceId) -> str:
    """The table of an instance."""
    return f"skerry_{instance}"


def removal(instance: InstanceId) -> str:
    """What nft is to do so that there is no table of an instance, whether there is one or not."""
    return f"table inet {table_name(instance)}\ndelete table inet {table_name(instance)}\n"


def script(instance: InstanceId, uplink: Uplink) -> str:
    """What nft is to do so that the table of an instance is as it should be, whatever it was."""
    open_ports = [
        *((endpoint, "udp") for endpoint in uplink.resolvers),
        *((endpoint, "tcp") for endpoint in (*uplink.resolvers, *uplink.proxies)),
    ]
    rules = [
        *(rule for family in _FAMILIES for rule in _exceptions(family, open_ports)),
        f"meta l4proto != tcp {_REFUSED}",
        *(rule for family in _FAMILIES for rule in _internal(family, uplink.internal)),
        f"fib daddr type {{ local, broadcast, multicast, anycast }} {_REFUSED}",
        *(_denied(family) for family in _FAMILIES),
    ]
    lines = "\n    ".join(rules)
    return f"""{removal(instance)}table inet {table_name(instance)} {{
  chain leave {{
    type filter hook output priority filter + 10; policy accept;
    meta skuid {uplink.uid} meta skgid {uplink.gid} jump worker
  }}
  chain worker {{
    {lines}
  }}
}}
"""


def networks(texts: Iterable[str]) -> tuple[IPv4Network | IPv6Network, ...]:
    """Read prefixes as settings have them.

    Raises:
        ValueError: One is not a prefix.
    """
    return tuple(ip_network(text, strict=False) for text in texts)


def _exceptions(family: tuple[int, str], ports: Sequence[tuple[Endpoint, str]]) -> list[str]:
    version, header = family
    found = [
        f"{address} . {protocol} . {port}"
        for (address, port), protocol in ports
        if address.version == version
    ]
    if not found:
        return []
    return [f"{header} daddr . meta l4proto . th dport {{ {', '.join(sorted(set(found)))} }} accept"]


def _internal(family: tuple[int, str], wanted: Sequence[IPv4Network | IPv6Network]) -> list[str]:
    version, header = family
    return [f"{header} daddr {network} accept" for network in wanted if network.version == version]


def _denied(family: tuple[int, str]) -> str:
    version, header = family
    ranges = ", ".join(f"{first}-{last}" for first, last in denied_ranges(version))
    return f"{header} daddr {{ {ranges} }} {_REFUSED}"
