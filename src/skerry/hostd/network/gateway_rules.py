"""What the gateway's namespace does with packets of sandboxes. Pure; the same for all sandboxes and for ever,
so that nothing is loaded when one starts.

Every packet ends in the socket of the interface by which it came, or nowhere: the namespace has no uplink, no
default route, and forwards nothing. Every interface has one neighbour, so the route back to a source says
whether the packet may have it: nothing is answered, and nothing is counted, before that was asked.

Source: nft(8); egress design, appendix A, with the limits per interface that it asks for.
"""

import hashlib
from dataclasses import dataclass
from string import Template
from typing import Final

from skerry.hostd.network.addresses import GATEWAY_PORT

REFUSED_READABLY: Final = 16
"""Connections beyond those that a sandbox's worker serves, which it can still refuse in words."""

MAX_NEW_PER_S: Final = 400
MAX_NEW_BURST: Final = 800
"""New connections. Each is remembered for some seconds after its end, in memory that all sandboxes share."""

MAX_QUERIES: Final = 1024
"""Ports from which it may have asked for names in the last 5 s; each is remembered, as above."""

MAX_REFUSALS_PER_S: Final = 500
"""Refused UDP packets that are answered; beyond it there is silence."""

_CHAINS: Final = """
  set connections {
    type iface_index; size 65535; flags dynamic;
  }
  set queries {
    type iface_index; size 65535; flags dynamic;
  }
  set begun {
    type iface_index; size 65535; flags dynamic,timeout; timeout 1m;
  }
  set refused {
    type iface_index; size 65535; flags dynamic,timeout; timeout 1m;
  }
  chain enter {
    type filter hook prerouting priority -450; policy drop;
    meta nfproto != ipv4 drop
    ip frag-off & 0x3fff != 0 drop
    ip hdrlength != 5 drop
    fib saddr . iif oif missing drop
    meta l4proto tcp accept
    udp dport 53 accept
    meta l4proto != udp drop
    update @refused { iif limit rate over $max_refusals } drop
    reject with icmp port-unreachable
  }
  chain bound {
    type filter hook prerouting priority mangle; policy accept;
    meta l4proto tcp ip daddr != 127.0.0.0/8 fib daddr type local reject with tcp reset
    meta l4proto tcp ct state invalid reject with tcp reset
    ct state != new accept
    meta l4proto udp add @queries { iif ct count over $max_queries } reject with icmp port-unreachable
    meta l4proto != tcp accept
    update @begun { iif limit rate over $max_new } reject with tcp reset
    add @connections { iif ct count over $max_connections } reject with tcp reset
  }
  chain turn {
    type nat hook prerouting priority dstnat; policy accept;
    meta l4proto { tcp, udp } redirect to :$gateway_port
  }
  chain arrive {
    type filter hook input priority filter; policy drop;
    meta l4proto { tcp, udp } th dport $gateway_port ct status dnat accept
  }
  chain pass {
    type filter hook forward priority filter; policy drop;
  }
  chain leave {
    type filter hook output priority filter; policy drop;
    ct direction reply accept
    tcp flags & rst == rst accept
    icmp type destination-unreachable accept
  }
"""


@dataclass(frozen=True, slots=True)
class Rules:
    """All rules of the namespace.

    Attributes:
        table: The name of their table; it says what is in it.
    """

    table: str
    _chains: str

    def script(self, present: list[str]) -> str:
        """What nft is to do so that the table is the only one.

        Args:
            present: Names of the tables that are there.
        """
        deletions = "".join(f"delete table inet {name}\n" for name in present)
        return f"{deletions}table inet {self.table} {{{self._chains}}}\n"


def rules(*, max_connections: int) -> Rules:
    """Make them.

    Args:
        max_connections: Of one sandbox at once, as its worker serves them.
    """
    chains = Template(_CHAINS).substitute(
        gateway_port=GATEWAY_PORT,
        max_connections=max_connections + REFUSED_READABLY,
        max_new=f"{MAX_NEW_PER_S}/second burst {MAX_NEW_BURST} packets",
        max_queries=MAX_QUERIES,
        max_refusals=f"{MAX_REFUSALS_PER_S}/second burst {MAX_REFUSALS_PER_S} packets",
    )
    digest = hashlib.sha256(chains.encode()).hexdigest()[:12]
    return Rules(f"gateway_{digest}", chains)


SYSTEM_VALUES: Final = (
    ("ipv4/ip_forward", "0"),
    *(
        (f"ipv4/conf/{which}/{name}", value)
        for which in ("all", "default")
        for name, value in (
            ("rp_filter", "1"),
            ("accept_source_route", "0"),
            ("accept_redirects", "0"),
            ("send_redirects", "0"),
            ("route_localnet", "0"),
            # Only the neighbour is answered, and only about the one address of its interface: a sandbox can
            # neither find out which others there are, nor fill the host's table of neighbours.
            ("arp_ignore", "2"),
            ("arp_announce", "2"),
        )
    ),
    ("ipv4/icmp_echo_ignore_all", "1"),
    # Refusals are limited by the rules, per sandbox; the kernel's limit is one for all.
    ("ipv4/icmp_ratemask", "0"),
)
"""Files below ``/proc/sys/net``. Source: ip-sysctl.rst of the kernel."""

TRACKING_VALUES: Final = (
    # Only what begins with a first packet is a connection; what comes late does not end one.
    ("netfilter/nf_conntrack_tcp_loose", "0"),
    ("netfilter/nf_conntrack_tcp_be_liberal", "1"),
    ("netfilter/nf_conntrack_tcp_timeout_syn_sent", "10"),
    ("netfilter/nf_conntrack_tcp_timeout_syn_recv", "10"),
    ("netfilter/nf_conntrack_tcp_timeout_last_ack", "10"),
    ("netfilter/nf_conntrack_tcp_timeout_time_wait", "5"),
    ("netfilter/nf_conntrack_tcp_timeout_close", "3"),
    ("netfilter/nf_conntrack_udp_timeout", "5"),
    ("netfilter/nf_conntrack_udp_timeout_stream", "5"),
)
"""Files that are there once a rule asks for connections. Source: nf_conntrack-sysctl.rst of the kernel."""
