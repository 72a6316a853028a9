"""The name servers that this host itself asks."""

import ipaddress
from pathlib import Path

RESOLV_CONF = Path("/etc/resolv.conf")
MAX_SERVERS = 3
"""Source: MAXNS, resolv.conf(5)."""

_PORT = 53


def host_resolvers(file: Path = RESOLV_CONF) -> tuple[str, ...]:
    """``address:port`` of each; empty when the file is missing or names none."""
    try:
        lines = file.read_text(errors="replace").splitlines()
    except OSError:
        return ()
    found: list[str] = []
    for line in lines:
        words = line.split()
        if len(words) >= 2 and words[0] == "nameserver":
            try:
                address = ipaddress.ip_address(words[1])
            except ValueError:
                continue
            if isinstance(address, ipaddress.IPv6Address) and address.scope_id:
                continue  # reached through one interface only, which no rule of the packet filter can say
            found.append(f"[{address}]:{_PORT}" if address.version == 6 else f"{address}:{_PORT}")
    return tuple(found[:MAX_SERVERS])
