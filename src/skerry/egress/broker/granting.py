"""What becomes of a grant: placeholders and values, with what an earlier grant of the sandbox has left."""

import os

from msgspec import structs

from skerry.egress.broker.held import Certified, Held
from skerry.egress.messages import Secret
from skerry.policy import placeholders
from skerry.protocol.egress_verbs import Grant, SecretGrant


def held_for(grant: Grant, earlier: Held | None) -> Held:
    """The state that a grant asks for.

    Args:
        earlier: What the same sandbox had. It is granted again when an answer was lost or api was started
            again: placeholders that the sandbox has stay good, and a value that api no longer has is kept,
            for the very rule that it came with. Else who takes over api could send every value to a host of
            theirs.
    """
    known = {secret.rule.name: secret for secret in earlier.secrets} if earlier else {}
    return Held(
        sandbox_id=grant.sandbox_id,
        owner=grant.owner,
        version=0,
        layers=grant.layers,
        secrets=tuple(_secret(secret, known.get(secret.rule.name)) for secret in grant.secrets),
        certified=_granted(earlier.certified) if earlier else None,
    )


def _granted(certified: Certified | None) -> Certified | None:
    """An authority whose certificate the guest gets with the answer to this grant."""
    return structs.replace(certified, reissued=False) if certified else None


def _secret(asked: SecretGrant, earlier: Secret | None) -> Secret:
    placeholder = asked.placeholder or (earlier.placeholder if earlier else None)
    same = earlier if earlier is not None and earlier.placeholder == placeholder else None
    if placeholder is None:
        placeholder = placeholders.make(asked.rule, os.urandom(placeholders.RANDOM_BYTES))
    if asked.value is None and same is not None and same.rule == asked.rule:
        return Secret(
            rule=asked.rule,
            placeholder=placeholder,
            value=same.value,
            state=same.state,
            used=same.used,
        )
    return Secret(
        rule=asked.rule,
        placeholder=placeholder,
        value=asked.value,
        state="lost" if asked.value is None else "active",
        used=same.used if same else 0,
    )
