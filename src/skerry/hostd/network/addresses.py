"""Which addresses and names belong to a slot. Pure.

A slot is one sandbox's place at the gateway: an interface ``g<n>`` in the gateway's namespace, whose other
end is the sandbox's, and two addresses that are each other's only neighbours.
"""

import re
from ipaddress import IPv4Address
from typing import Final

SLOTS: Final = 4096
PREFIX_LENGTH: Final = 31
"""A link of exactly two addresses (RFC 3021)."""

GUEST_INTERFACE: Final = "eth0"
GUEST_INTERFACE_INDEX: Final = 2
"""The next after ``lo``."""

GATEWAY_PORT: Final = 20_000
"""Where every sandbox's own sockets listen: TCP all connections, UDP packets to port 53."""

_FIRST: Final = int(IPv4Address("10.201.0.0"))
_NAME: Final = re.compile(r"g(0|[1-9]\d{0,3})", re.ASCII)


def interface(slot: int) -> str:
    """The gateway's interface of a slot."""
    return f"g{slot}"


def slot_of(interface_name: str) -> int | None:
    """The inverse of `interface`; None for other names."""
    match = _NAME.fullmatch(interface_name)
    slot = int(match[1]) if match else SLOTS
    return slot if slot < SLOTS else None


def gateway_address(slot: int) -> IPv4Address:
    """The address of the gateway's side."""
    return IPv4Address(_FIRST + 2 * slot)


def guest_address(slot: int) -> IPv4Address:
    """The one address that the sandbox may send from."""
    return IPv4Address(_FIRST + 2 * slot + 1)
