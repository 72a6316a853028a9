"""What a create says about the way out becomes what control stores and hands to the gateway."""

import secrets
from collections.abc import Mapping

import msgspec

from skerry.control.store.records import EgressIntent, PolicyRecord, SecretIntent
from skerry.errors import InvalidRequest, NotSupported
from skerry.policy import placeholders
from skerry.policy.deno_fields import SandboxFields
from skerry.policy.document import SecretRule
from skerry.policy.narrowing import narrowed
from skerry.spec.sandbox import Capability, Isolation


class EgressWish(msgspec.Struct, frozen=True):
    """The intent, to be stored, and the values of secrets, which are not.

    Attributes:
        intent: None: the sandbox has no network of its own, so the gateway has nothing to do with it.
    """

    intent: EgressIntent | None
    values: Mapping[str, bytes] = {}

    def __repr__(self) -> str:
        return "EgressWish(…)"


def egress_wish(
    fields: SandboxFields,
    policy: PolicyRecord | None,
    *,
    isolation: Isolation,
    capabilities: frozenset[Capability],
) -> EgressWish:
    """Put both together.

    Args:
        fields: Of the create, without problems.
        policy: The named policy that the sandbox goes by.

    Raises:
        NotSupported: There are secrets, and no network in which they could be used.
        InvalidRequest: The policy does not allow what a secret asks for.
    """
    if Capability.OWN_NETWORK not in capabilities:
        if fields.secrets:
            raise NotSupported(
                f"secrets: isolation {isolation.value} gives a sandbox no network of its own, so a secret "
                "could not be used; create without `secrets`, or use another isolation"
            )
        return EgressWish(None)
    rules = _within(fields.secrets, policy)
    return EgressWish(
        EgressIntent(
            layer=fields.layer,
            secrets=tuple(SecretIntent(rule, _placeholder(rule)) for rule in rules),
            policy=policy.ref if policy is not None else None,
        ),
        fields.values,
    )


def _placeholder(rule: SecretRule) -> str:
    return placeholders.make(rule, secrets.token_bytes(placeholders.RANDOM_BYTES))


def _within(rules: tuple[SecretRule, ...], policy: PolicyRecord | None) -> list[SecretRule]:
    """The rules with what they leave open taken from the policy."""
    if policy is None:
        return list(rules)
    found = [narrowed(rule, policy.document.secrets, policy.name) for rule in rules]
    problems = [f"secrets.{rule.name}: {problem}" for rule, problems in found for problem in problems]
    if problems:
        raise InvalidRequest("; ".join(problems), code="INVALID_SANDBOX_CONFIG")
    return [rule for rule, _ in found]
