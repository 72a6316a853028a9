"""What the broker holds of one sandbox, complete enough to go on with after a restart. Without any I/O."""

from collections.abc import Sequence

import msgspec
from msgspec import structs

from skerry.egress.messages import Authority, OwnPlaces, Rules, Secret
from skerry.errors import NotFound
from skerry.policy.document import AllowRule
from skerry.protocol.egress_verbs import NamedLayer, SecretState
from skerry.spec.ids import OwnerId, SandboxId
from skerry.spec.settings import EgressSettings

RENEWED_AFTER_MS = 7 * 24 * 3600 * 1000
"""An authority is made anew at a grant when it is older than this; it is valid for longer."""


class Certified(msgspec.Struct, frozen=True, kw_only=True):
    """The sandbox's own certificate authority.

    Attributes:
        names: The exact names that it may certify; None: any.
        made_ms: Milliseconds since 1970.
        reissued: Made after the grant, so the guest does not have it from there.
    """

    authority: Authority
    names: tuple[str, ...] | None
    made_ms: int
    reissued: bool = False

    def covers(self, names: Sequence[str] | None) -> bool:
        """Whether it is good for these names; None: any."""
        return self.names is None or (names is not None and set(names) <= set(self.names))

    def is_old(self, now_ms: int) -> bool:
        """Whether it should be made anew at the next grant."""
        return now_ms - self.made_ms > RENEWED_AFTER_MS


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """A sandbox's grant as it is now.

    Attributes:
        version: Grows with every change; 0 until a grant is in force.
        layers: Without the operator's.
        cut: A placeholder strayed whose rule says ``kill``.
    """

    sandbox_id: SandboxId
    owner: OwnerId
    version: int
    layers: tuple[NamedLayer, ...]
    secrets: tuple[Secret, ...] = ()
    certified: Certified | None = None
    cut: bool = False

    def __repr__(self) -> str:
        return f"Held({self.sandbox_id!r}, version={self.version})"

    def secret(self, name: str) -> Secret:
        """A secret by its name.

        Raises:
            NotFound: There is none.
        """
        for secret in self.secrets:
            if secret.rule.name == name:
                return secret
        raise NotFound(f"this sandbox has no secret {name!r}")

    def with_secret(self, changed: Secret) -> "Held":
        """The same with one secret in place of that of its name."""
        secrets = tuple(changed if one.rule.name == changed.rule.name else one for one in self.secrets)
        return structs.replace(self, secrets=secrets)

    def with_rule(self, rule: AllowRule) -> "Held":
        """The same with one rule more in the sandbox's own layer; itself when the rule is there."""
        *outer, own = self.layers
        if rule in own.document.allow:
            return self
        document = structs.replace(own.document, allow=(*own.document.allow, rule))
        return structs.replace(self, layers=(*outer, NamedLayer(name=own.name, document=document)))

    def with_layers(self, layers: tuple[NamedLayer, ...]) -> "Held":
        """The same with other layers; itself when they are the same."""
        return self if layers == self.layers else structs.replace(self, layers=layers)

    def used(self, counts: dict[str, int]) -> "Held":
        """The same after requests that carried secrets."""
        secrets = tuple(
            structs.replace(one, used=one.used + counts[one.rule.name])
            if counts.get(one.rule.name, 0) > 0
            else one
            for one in self.secrets
        )
        return structs.replace(self, secrets=secrets)

    @property
    def lost(self) -> bool:
        """Whether a secret's value is lost."""
        return any(one.state == "lost" for one in self.secrets)

    def rules(
        self, operator: NamedLayer, settings: EgressSettings, own: OwnPlaces, *, next_seq: int
    ) -> Rules:
        """What the sandbox's worker goes by."""
        return Rules(
            sandbox_id=self.sandbox_id,
            version=self.version,
            layers=(operator, *self.layers),
            secrets=self.secrets,
            authority=self.certified.authority if self.certified else None,
            settings=settings,
            next_seq=next_seq,
            own=own,
        )


def state_of(secret: Secret, *, now_ms: int) -> SecretState:
    """A secret as api may see it."""
    rule = secret.rule
    expired = rule.expires_at_ms is not None and rule.expires_at_ms <= now_ms
    return SecretState(
        name=rule.name,
        state="expired" if expired and secret.state == "active" else secret.state,
        hosts=rule.hosts,
        slots=rule.slots,
        placeholder=secret.placeholder,
        used=secret.used,
        expires_at_ms=rule.expires_at_ms,
    )


def settled(secret: Secret, value: bytes | None, state: str) -> Secret:
    """A secret with another value, or none."""
    return structs.replace(secret, value=value, state=state)
