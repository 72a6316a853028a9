"""What nothing may reach, whatever rules say: ranges that are not on the internet, the host, Skerry. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_network

from skerry.policy import addresses, owner_actions
from skerry.policy.endpoints import Network, rule_host
from skerry.policy.index import HostIndex
from skerry.policy.names import BadName, BadPattern, Pattern, canonical
from skerry.policy.verdict import Reason, Verdict
from skerry.spec.settings import InternalNetwork

Host = str | IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class Own:
    """What belongs to Skerry or to the host itself, and so is unreachable (G6).

    Attributes:
        names: Of the control plane and of previews: exact, or ``*.name``; addresses count as well.
        addresses: The host's own. Like the built-in ranges, an internal network of the operator's may open
            them.
        listeners: Address and port of Skerry's own sockets, every address of a wildcard listener spelled out.
            Nothing opens them.
    """

    names: tuple[str, ...] = ()
    addresses: frozenset[IPv4Address | IPv6Address] = frozenset()
    listeners: frozenset[tuple[IPv4Address | IPv6Address, int]] = frozenset()


class BuiltIn:
    """The built-in denials, and what the operator exempted from them.

    Raises:
        BadPattern: A name or prefix is wrong.
    """

    __slots__ = ("_internal", "_own", "_own_names")

    def __init__(self, own: Own, internal: Sequence[InternalNetwork]) -> None:
        self._own = own
        self._own_names: HostIndex[bool] = HostIndex()
        for text in own.names:
            self._own_names.add(rule_host(text, public_suffixes=False), True, with_apex=True)
        self._internal = tuple(
            (
                tuple(rule_host(text, public_suffixes=False) for text in one.names),
                tuple(_prefix(text) for text in one.cidr),
            )
            for one in internal
        )

    def denial(self, host: Host, port: int) -> Verdict | None:
        """Why a connection is refused before any rule is asked; None when it is not."""
        if isinstance(host, str):
            if not _is_canonical(host):
                return denied("builtin.name", Reason.BAD_HOST_NAME, owner_actions.BAD_NAME)
            if self._own_names.of_name(host, any_length=True):
                return denied("builtin.self", Reason.SELF, owner_actions.SELF)
            return None
        reason = Reason.SELF if self._own_names.of_address(host) else self.refusal(host, host, port)
        if reason is Reason.SELF:
            return denied("builtin.self", reason, owner_actions.SELF)
        if reason is not None:
            return denied(f"builtin.{addresses.denied(host)}", reason, owner_actions.PRIVATE)
        return None

    def refusal(self, host: Host, address: IPv4Address | IPv6Address, port: int | None) -> Reason | None:
        """Why an address may not be dialled for a host; None: nothing built in forbids it."""
        if (address, port) in self._own.listeners:
            return Reason.SELF
        if self.is_ordinary(address) or self._is_internal(host, address):
            return None
        return Reason.SELF if address in self._own.addresses else Reason.PRIVATE_ADDRESS

    def is_ordinary(self, address: IPv4Address | IPv6Address) -> bool:
        """Whether an address is on the internet, and not this host's."""
        return address not in self._own.addresses and addresses.denied(address) is None

    def _is_internal(self, host: Host, address: IPv4Address | IPv6Address) -> bool:
        """Whether one of the operator's networks has both."""
        for patterns, networks in self._internal:
            named = host == address or any(
                isinstance(one, Pattern) and isinstance(host, str) and one.matches(host) for one in patterns
            )
            if named and any(_contains(network, address) for network in networks):
                return True
        return False


def denied(rule: str, reason: Reason, owner_action: str) -> Verdict:
    """A verdict that says no."""
    return Verdict(allowed=False, rule=rule, reason=reason, owner_action=owner_action)


def _is_canonical(name: str) -> bool:
    try:
        return canonical(name) == name
    except BadName:
        return False


def _prefix(text: str) -> Network:
    try:
        return ip_network(text)
    except ValueError:
        raise BadPattern(
            "not a prefix: write its first address and its length, such as 10.1.0.0/16"
        ) from None


def _contains(network: Network, address: IPv4Address | IPv6Address) -> bool:
    return network.version == address.version and address in network
