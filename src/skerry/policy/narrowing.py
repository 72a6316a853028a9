"""A named policy says what secrets may be sent along with a create: it can narrow, never widen. Pure.

What a create leaves open (`slots`, `methods`, `paths`) it takes from the policy; what it says itself must be
within.
"""

import msgspec

from skerry.policy.document import SecretBinding, SecretRule
from skerry.policy.endpoints import endpoint
from skerry.policy.names import Pattern
from skerry.policy.paths import parse as parse_path
from skerry.policy.slots import for_rule


def narrowed(
    rule: SecretRule, bindings: tuple[SecretBinding, ...] | None, policy: str
) -> tuple[SecretRule, list[str]]:
    """The rule with what it left open filled in, and what it asks too much, in words.

    Args:
        bindings: Of the policy's document, in the stored form; None: it says nothing about secrets.
        policy: Its name, for the texts.
    """
    if bindings is None:
        return rule, []
    binding = _of_name(rule.name, bindings)
    if binding is None:
        return rule, [f'the policy "{policy}" has no secret of this name']
    filled = msgspec.structs.replace(
        rule,
        slots=rule.slots or binding.slots,
        methods=binding.methods if rule.methods is None else rule.methods,
        paths=binding.paths if rule.paths is None else rule.paths,
    )
    return filled, [f'the policy "{policy}" does not allow {one} for it' for one in _excess(filled, binding)]


def excess_over(rule: SecretRule, bindings: tuple[SecretBinding, ...] | None) -> bool:
    """Whether a rule asks for more than a layer allows."""
    if bindings is None:
        return False
    binding = _of_name(rule.name, bindings)
    return binding is None or bool(_excess(rule, binding))


def _of_name(name: str, bindings: tuple[SecretBinding, ...]) -> SecretBinding | None:
    return next((one for one in bindings if one.name == name), None)


def _excess(rule: SecretRule, binding: SecretBinding) -> list[str]:
    found = [f"the host {host}" for host in rule.hosts if not _host_within(host, binding.hosts)]
    allowed = for_rule(binding.slots)
    found += [
        f"the slot {slot.text}"
        for slot in for_rule(rule.slots)
        if not any(one.covers(slot) for one in allowed)
    ]
    found += _methods_beyond(rule.methods, binding.methods)
    found += _paths_beyond(rule.paths, binding.paths)
    return found


def _host_within(text: str, allowed: tuple[str, ...]) -> bool:
    host, port = endpoint(text, stored=True)
    for other in allowed:
        wide, only = endpoint(other, stored=True)
        if only not in (None, port):
            continue
        if isinstance(host, Pattern) and isinstance(wide, Pattern) and wide.covers(host):
            return True
    return False


def _methods_beyond(asked: tuple[str, ...] | None, allowed: tuple[str, ...] | None) -> list[str]:
    if allowed is None:
        # HEAD must be named, so naming it asks for more than naming nothing.
        return ["the method HEAD"] if asked is not None and "HEAD" in asked else []
    if asked is None:
        return ["all methods"]
    return [f"the method {one}" for one in asked if one not in allowed]


def _paths_beyond(asked: tuple[str, ...] | None, allowed: tuple[str, ...] | None) -> list[str]:
    if allowed is None:
        return []
    if asked is None:
        return ["all paths"]
    wide = [parse_path(one) for one in allowed]
    return [f"the path {one}" for one in asked if not any(w.covers(parse_path(one)) for w in wide)]
