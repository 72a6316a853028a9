"""How one layer wants TLS to be treated. Pure."""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address

from skerry.policy.document import TlsChoice
from skerry.policy.rules import CompiledRule
from skerry.policy.shared_fronts import is_shared_front
from skerry.policy.verdict import Mode


def closest_of(rules: Sequence[CompiledRule]) -> CompiledRule:
    """The most specific rule; of several the least limiting, which stands first."""
    return max(rules, key=lambda one: one.specificity)


def mode_of(rules: Sequence[CompiledRule], host: str | IPv4Address | IPv6Address) -> tuple[Mode, str]:
    """How a layer wants TLS to be treated."""
    for one in rules:
        if one.rule.tls is TlsChoice.INSPECT:
            return Mode.INSPECT, f"{one.id} says so"
    if not any(one.plain for one in rules):
        return Mode.INSPECT, f"{rules[0].id} looks at requests"
    highest = closest_of(rules).specificity
    closest = [one for one in rules if one.specificity == highest]
    for one in closest:
        if one.rule.tls is TlsChoice.SPLICE:
            continue
        if not one.exact:
            return Mode.INSPECT, f"{one.id} is a wildcard"
        if isinstance(host, str) and is_shared_front(host):
            return Mode.INSPECT, "its servers answer for names of several customers"
    return Mode.SPLICE, f"{closest[0].id} has nothing that would have to be looked at"
