"""What a request is told that is not sent, and what its owner can do. Texts hold names, never values of
headers or secrets."""

import json
from collections.abc import Sequence

from skerry.egress.substitution.bindings import Bindings, Bound
from skerry.egress.substitution.model import Denial
from skerry.policy import slots
from skerry.policy.names import BadPattern
from skerry.policy.owner_actions import placeholder_outside_slot
from skerry.policy.paths import Target
from skerry.policy.verdict import Reason

_LONGEST_PATTERN = 200
_LONGEST_METHOD = 20


def outside_slot(bound: Bound, new_slot: str | None) -> Denial:
    """The placeholder stands where none of the secret's slots is.

    Args:
        new_slot: What would make it one; None or no valid slot: nothing can.
    """
    if new_slot is None or not _valid(new_slot):
        slots_text = ", ".join(bound.secret.rule.slots or ("the credential headers",))
        action = f"send the placeholder of secret {bound.name} only in its slots: {slots_text}"
    else:
        action = placeholder_outside_slot(bound.name, bound.secret.rule.slots, new_slot)
    return Denial(Reason.PLACEHOLDER_OUTSIDE_SLOT, action, bound.name)


def _valid(slot: str) -> bool:
    try:
        slots.parse(slot)
    except BadPattern:
        return False
    return True


def header_slot(name: bytes, bound: Bound) -> str:
    """The slot that a placeholder in a header would need."""
    text = name.decode("latin-1")
    if any(slot.field == name.lower() for slot in bound.slots):
        # It is one already, but something else stands around the placeholder.
        return f"header:{text}=BEFORE{{}}AFTER"
    return f"header:{text}"


def path_slot(target: Target, placeholder: bytes) -> str | None:
    """The slot that a placeholder in a path would need."""
    text = placeholder.decode("ascii")
    parts: list[str] = []
    for at, segment in enumerate(target.segments):
        front, found, back = segment.partition(text)
        if found:
            more = "/**" if at + 1 < len(target.segments) else ""
            pattern = "/" + "/".join([*parts, f"{front}{{}}{back}"]) + more
            return f"path:{pattern}" if len(pattern) <= _LONGEST_PATTERN else None
        parts.append(segment)
    return None


def of_other_host(name: str, bindings: Bindings) -> Denial:
    """The placeholder of a secret that is not bound here."""
    action = (
        f'add {json.dumps(bindings.host)} to "hosts" of secret {name}, or do not send its placeholder there'
    )
    return Denial(Reason.PLACEHOLDER_OF_OTHER_HOST, action, name)


def twice(bound: Bound) -> Denial:
    """A placeholder stands in several places."""
    action = f"send the placeholder of secret {bound.name} in one place only"
    return Denial(Reason.PLACEHOLDER_OUTSIDE_SLOT, action, bound.name)


def repeated(what: str) -> Denial:
    """A header or parameter that holds credentials comes twice."""
    return Denial(Reason.MALFORMED_REQUEST, f"send the {what} once only")


def foreign(bindings: Bindings, parameter: str | None) -> Denial:
    """A credential that is not ours.

    Args:
        parameter: Of the query, that holds it: the name as our lists or slots have it; None: it is a header.
    """
    names = ", ".join(one.name for one in bindings.bound[:3])
    taken_out = "" if parameter is None else f"take the parameter {parameter} out of the query, "
    action = (
        f"{taken_out}send the placeholder of secret {names} as the credential, "
        f'or set "foreign_credentials": "strip" or "allow" in secret {names}'
    )
    return Denial(Reason.FOREIGN_CREDENTIALS, action)


def wrong_method(bound: Bound, method: bytes) -> Denial:
    """The secret is not for requests of this method."""
    text = method.decode("latin-1")
    if text in ("CONNECT", "OPTIONS", "TRACE"):
        action = f"{text} requests never carry a secret"
    elif text.isascii() and text.isalpha() and len(text) <= _LONGEST_METHOD:
        action = f'add {json.dumps(text.upper())} to "methods" of secret {bound.name}'
    else:
        action = f'see "methods" of secret {bound.name}'
    return Denial(Reason.SECRET_NOT_FOR_THIS_REQUEST, action, bound.name)


def wrong_path(bound: Bound) -> Denial:
    """The secret is not for this path."""
    action = f'add a pattern of this path to "paths" of secret {bound.name}'
    return Denial(Reason.SECRET_NOT_FOR_THIS_REQUEST, action, bound.name)


def not_canonical(bound: Bound) -> Denial:
    """The path may be read in more than one way."""
    action = f"write the path without escapes that are not needed; secret {bound.name} depends on it"
    return Denial(Reason.PATH_NOT_CANONICAL, action, bound.name)


_UNUSABLE = {
    Reason.SECRET_REVOKED: "rotate secret {}: it has been revoked",
    Reason.SECRET_EXPIRED: "create the sandbox with a later expiry of secret {}",
    Reason.SECRET_UNAVAILABLE: "rotate secret {}: its value was lost in a restart",
    Reason.BUDGET_EXHAUSTED: 'raise "requests" in the budget of secret {}',
    Reason.RATE_LIMITED: 'send fewer requests, or raise "requests_per_min" in the budget of secret {}',
    Reason.LIMIT_REACHED: 'send fewer requests at once, or raise "concurrent" in the budget of secret {}',
}


def unusable(bound: Bound, reason: Reason) -> Denial:
    """The secret cannot be used now."""
    return Denial(reason, _UNUSABLE[reason].format(bound.name), bound.name)


def stray(names: Sequence[str], *, cut: bool) -> Denial:
    """A placeholder went to a host that no secret is bound to, and its rule does not want that."""
    action = f'set "on_stray": "forward" in secret {names[0]}, or add the host to its "hosts"'
    return Denial(Reason.STRAY_PLACEHOLDER, action, names[0], cut=cut)
