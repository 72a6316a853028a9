"""Secrets that are put into requests whatever the client sent (mode ``set``): two must not meet. Pure."""

from collections.abc import Sequence

from skerry.policy.credential_headers import alike
from skerry.policy.document import SecretRule
from skerry.policy.endpoints import endpoint
from skerry.policy.names import Pattern
from skerry.policy.parameters import plain_name
from skerry.policy.slots import Slot, SlotKind, parse

_PARTS_OF_BASIC = ("user", "password")

Host = tuple[Pattern, int | None, SecretRule]


def place(slot: Slot) -> str:
    """What of a request a slot fills, however it does: the header's name, the parameter's, or a segment."""
    match slot.kind:
        case SlotKind.HEADER | SlotKind.BASIC:
            return alike(slot.field).decode("ascii")
        case SlotKind.QUERY:
            return f"query:{plain_name(slot.name)}"
        case SlotKind.PATH:
            return slot.text


def conflicts(rules: Sequence[SecretRule]) -> list[str]:
    """Pairs of secrets that would both be put into one place of one request.

    User and password of Basic may be two secrets.
    """
    taken: dict[tuple[str, str], dict[int | None, str]] = {}
    found: dict[tuple[str, str], str] = {}
    for host, port, rule in _hosts(rules):
        for part in {part for text in rule.slots for part in _parts(parse(text))}:
            for above in _covering(host):
                other = _other(taken.get((above, part), {}), port, rule.name)
                if other is not None:
                    text = f"secrets.{rule.name}.slots: {other} is put there on {host.text} already"
                    found.setdefault((rule.name, other), text)
                    break
            else:
                taken.setdefault((host.text, part), {}).setdefault(port, rule.name)
    return list(found.values())


def _hosts(rules: Sequence[SecretRule]) -> list[Host]:
    """Hosts of such secrets; each comes after all wildcards that it is below."""
    hosts: list[Host] = []
    for rule in rules:
        for text in rule.hosts if rule.mode == "set" else ():
            host, port = endpoint(text, stored=True)
            if isinstance(host, Pattern):
                hosts.append((host, port, rule))
    return sorted(hosts, key=lambda one: one[0].name.count("."))


def _parts(slot: Slot) -> tuple[str, ...]:
    """The place, in two where two secrets can share it."""
    own = place(slot)
    if slot.kind is SlotKind.BASIC:
        return (f"{own} {slot.name}",)
    return tuple(f"{own} {part}" for part in _PARTS_OF_BASIC) if own == "authorization" else (own,)


def _covering(host: Pattern) -> list[str]:
    """The host, and all wildcards that it could be below."""
    labels = host.name.split(".")
    return [host.text, *("*." + ".".join(labels[at:]) for at in range(1, len(labels)))]


def _other(ports: dict[int | None, str], port: int | None, name: str) -> str | None:
    """Another secret on such a host, on the same port or where one of the two has any."""
    meeting = ports.values() if port is None else [ports[one] for one in (port, None) if one in ports]
    return next((other for other in meeting if other != name), None)
