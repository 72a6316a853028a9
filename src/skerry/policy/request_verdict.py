"""What is decided about one HTTP request. Pure."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from skerry.policy.rules import Binding, CompiledRule
from skerry.policy.verdict import Reason


@dataclass(frozen=True, slots=True)
class Limits:
    """The smallest limits of all layers.

    Attributes:
        max_request_bytes, max_response_bytes: Of a body; None: no limit.
        rates: Rule and requests per minute, one of each layer that limits them; each rule has one bucket for
            the whole sandbox.
    """

    max_request_bytes: int | None = None
    max_response_bytes: int | None = None
    rates: tuple[tuple[str, int], ...] = ()


NO_LIMITS = Limits()


@dataclass(slots=True)
class RequestVerdict:
    """The answer to "may this request be sent?".

    Attributes:
        rule: The innermost layer's rule that allowed it, or the rule or layer that refused.
        target: What must be sent: the canonical form where paths count, else as it came.
        bindings: Secrets bound to the host, whether or not this request may carry them.
        usable: Those that it may carry, by method, path and the layers' policies.
        why: In words, when a target is not canonical.
    """

    allowed: bool
    rule: str
    target: bytes
    reason: Reason | None = None
    owner_action: str = ""
    limits: Limits = NO_LIMITS
    bindings: tuple[Binding, ...] = ()
    usable: tuple[Binding, ...] = ()
    why: str = ""


def limits_of(chosen: Sequence[CompiledRule]) -> Limits:
    """The smallest limits of the rules that allowed a request, one of each layer."""
    for one in chosen:
        if one.unlimited:
            continue
        break
    else:
        return NO_LIMITS
    return Limits(
        _smallest([one.rule.max_request_bytes for one in chosen]),
        _smallest([one.rule.max_response_bytes for one in chosen]),
        tuple((one.id, one.rule.requests_per_min) for one in chosen if one.rule.requests_per_min is not None),
    )


def _smallest(limits: Collection[int | None]) -> int | None:
    return min((one for one in limits if one is not None), default=None)
