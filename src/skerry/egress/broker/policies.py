"""How the broker asks `skerry.policy`, and has certificate authorities made by what it says."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from skerry.egress import ca
from skerry.egress.broker.held import Certified, Held, state_of
from skerry.egress.messages import OwnPlaces, Rules
from skerry.egress.own_places import own_of
from skerry.errors import InvalidRequest
from skerry.policy.compiled import Policy
from skerry.policy.explain import explain
from skerry.policy.verdict import Reason
from skerry.protocol.egress_verbs import Explanation, NamedLayer, SlotView
from skerry.spec.settings import EgressSettings

_UNUSABLE = {
    "expired": Reason.SECRET_EXPIRED,
    "lost": Reason.SECRET_UNAVAILABLE,
    "revoked": Reason.SECRET_REVOKED,
}


def now_ms() -> int:
    """The machine's wall clock: milliseconds since 1970."""
    return time.time_ns() // 1_000_000


@dataclass(frozen=True, slots=True)
class Policies:
    """Makes policies out of what is held.

    Attributes:
        operator: The operator's own layer.
        own: Tells what belongs to Skerry or the host now.
        clock: Milliseconds since 1970.
    """

    operator: NamedLayer
    settings: EgressSettings
    own: Callable[[], OwnPlaces]
    clock: Callable[[], int] = now_ms

    def of(self, held: Held) -> Policy:
        """A sandbox's policy.

        Raises:
            InvalidRequest: A rule in it makes no sense.
        """
        try:
            return Policy(
                (self.operator, *held.layers),
                [secret.rule for secret in held.secrets],
                self.settings.internal,
                own=own_of(self.own()),
            )
        except ValueError as error:
            raise InvalidRequest(f"the policy cannot be used: {error}") from None

    def rules(self, held: Held, *, next_seq: int) -> Rules:
        """What a sandbox's worker goes by."""
        return held.rules(self.operator, self.settings, self.own(), next_seq=next_seq)

    def certified(self, held: Held, policy: Policy) -> Certified | None:
        """The authority that the sandbox needs: the one that it has, if that will do."""
        if not policy.needs_inspection():
            return held.certified
        names = policy.inspectable_names()
        earlier = held.certified
        at_ms = self.clock()
        if (
            earlier is not None
            and earlier.covers(names)
            and not (held.version == 0 and earlier.is_old(at_ms))
        ):
            return earlier
        authority = ca.make_authority(
            held.sandbox_id, names, at_ms, earlier=earlier.authority if earlier else None
        )
        return Certified(
            authority=authority,
            names=None if names is None else tuple(names),
            made_ms=at_ms,
            reissued=held.version != 0,
        )

    def explain(self, held: Held, policy: Policy, target: str, method: str) -> Explanation:
        """See `skerry.protocol.egress_verbs.Explain`."""
        at_ms = self.clock()
        states = {one.rule.name: state_of(one, now_ms=at_ms).state for one in held.secrets}
        unusable = {name: _UNUSABLE[state] for name, state in states.items() if state in _UNUSABLE}
        found = explain(policy, target, method, unusable=unusable)
        return Explanation(
            allowed=found.allowed,
            target=found.target,
            rule=found.rule,
            mode=found.mode,
            why=found.why,
            reason=found.reason,
            owner_action=found.owner_action,
            slots=tuple(SlotView(secret=secret, slot=slot) for secret, slot in found.slots),
            version=held.version,
        )
