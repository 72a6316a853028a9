"""The verbs between api and egressd. Framed as in `skerry.protocol.host_verbs`: 4 bytes length, msgpack;
``EgressCall`` with an ID, answered by one ``Reply`` of the same ID in any order.

Only api's user may connect. Values of secrets pass here once and are never sent back.
"""

import msgspec

from skerry.policy.document import AllowRule, PolicyDocument, SecretRule
from skerry.policy.verdict import Mode, Reason
from skerry.spec.ids import OwnerId, SandboxId


class SecretGrant(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A secret and how it may be used.

    Attributes:
        value: None when it is lost (every daemon that held it has ended): uses are refused until it is
            rotated.
        placeholder: None: egressd makes one. Given when a sandbox that has one already is granted again.
    """

    rule: SecretRule
    value: bytes | None
    placeholder: str | None = None

    def __repr__(self) -> str:
        return f"SecretGrant({self.rule.name!r}, …)"


class NamedLayer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A policy document and what its rules are called: ``sandbox``, ``policy:<name>``."""

    name: str
    document: PolicyDocument


class EgressDescribe(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Ask who egressd is → `EgressDescription`."""


class Grant(msgspec.Struct, frozen=True, tag=True, kw_only=True, forbid_unknown_fields=True):
    """From now on serve a sandbox's packets by these rules → `Granted`. An earlier grant is replaced.

    Nothing of the sandbox gets out before. The operator's own layer is added by egressd, which reads it
    itself.

    Attributes:
        layers: Outer first; the last is the sandbox's own, which `AllowHost` extends.
    """

    sandbox_id: SandboxId
    owner: OwnerId
    layers: tuple[NamedLayer, ...]
    secrets: tuple[SecretGrant, ...] = ()


class Release(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Forget a sandbox and everything of it but its audit trail → None. Idempotent."""

    sandbox_id: SandboxId


class AllowHost(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Add a rule to the sandbox's own layer → `PolicyVersion`. Outer layers still bound it."""

    sandbox_id: SandboxId
    rule: AllowRule


class SetLayers(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Replace a sandbox's layers → `PolicyVersion`. Flows that no longer fit are closed within 1 s."""

    sandbox_id: SandboxId
    layers: tuple[NamedLayer, ...]


class Explain(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Ask what would happen → `Explanation`.

    Attributes:
        target: A URL, ``name:port`` or ``address:port``.
    """

    sandbox_id: SandboxId
    target: str
    method: str = "GET"


class ListSecrets(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """→ list of `SecretState`."""

    sandbox_id: SandboxId


class RotateSecret(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Use another value from the next request on → None. Also brings a revoked or lost one back."""

    sandbox_id: SandboxId
    name: str
    value: bytes

    def __repr__(self) -> str:
        return f"RotateSecret({self.sandbox_id!r}, {self.name!r}, …)"


class RevokeSecret(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Forget a value → None. Requests that would carry it are refused within 1 s, streams that do are cut."""

    sandbox_id: SandboxId
    name: str


class ReadAudit(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Lines of a sandbox's audit trail, also after its end → `AuditLines`.

    Attributes:
        after: Only lines with a higher sequence number.
        limit: 1 to 1,000.
        wait_ms: When there is none yet, wait this long for one; 0 to 30,000.
    """

    sandbox_id: SandboxId
    after: int = 0
    limit: int = 500
    wait_ms: int = 0


class ForgetAudit(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Delete the audit trails of all sandboxes but these → None."""

    keep: tuple[SandboxId, ...]


class Granted(msgspec.Struct, frozen=True, kw_only=True):
    """What the sandbox must get before its first process.

    Attributes:
        placeholders: By name of the secret.
        certificate_pem: The sandbox's own certificate authority, to be trusted inside; None when nothing will
            be inspected.
        extra_roots_pem: Further roots to be trusted inside, if the operator says so; may be empty.
    """

    placeholders: dict[str, str]
    certificate_pem: str | None
    extra_roots_pem: str = ""
    version: int = 1


class PolicyVersion(msgspec.Struct, frozen=True):
    """A sandbox's policy has this version now.

    Attributes:
        certificate_pem: Something will be inspected that the sandbox's earlier certificate does not cover:
            this one must be trusted inside from now on, in addition. It has the same name and key as the
            earlier one, if there was any.
    """

    version: int
    certificate_pem: str | None = None


class SlotView(msgspec.Struct, frozen=True, kw_only=True):
    """Where a secret would go."""

    secret: str
    slot: str


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """What would happen to a request or connection, and why."""

    allowed: bool
    target: str
    rule: str
    mode: Mode | None
    why: str
    reason: Reason | None = None
    owner_action: str = ""
    slots: tuple[SlotView, ...] = ()
    version: int = 1


class SecretState(msgspec.Struct, frozen=True, kw_only=True):
    """A secret without its value.

    Attributes:
        state: ``active``, ``revoked``, ``expired`` or ``lost``.
    """

    name: str
    state: str
    hosts: tuple[str, ...]
    slots: tuple[str, ...]
    placeholder: str
    used: int
    expires_at_ms: int | None = None


class AuditLines(msgspec.Struct, frozen=True):
    """JSON texts, oldest first; the sequence number of the last one, and whether the trail goes on."""

    lines: list[str]
    last: int
    ended: bool


class SandboxEgress(msgspec.Struct, frozen=True, kw_only=True):
    """What egressd has of one sandbox.

    Attributes:
        worker_pid: None while it has sent nothing.
        lost: A secret's value is lost.
        cut: A placeholder strayed whose rule says ``kill``: nothing gets out until another grant.
        problem: Why nothing of this sandbox gets out now, in words; empty when it does.
    """

    sandbox_id: SandboxId
    version: int
    worker_pid: int | None
    lost: bool = False
    cut: bool = False
    problem: str = ""


class EgressDescription(msgspec.Struct, frozen=True, kw_only=True):
    """Who answers, what it can do, and every sandbox that it serves.

    Attributes:
        problems: Why outbound connections cannot work here, in words with what to do; empty when they can.
    """

    version: str
    pid: int
    sandboxes: tuple[SandboxEgress, ...]
    problems: tuple[str, ...] = ()


EgressVerb = (
    EgressDescribe
    | Grant
    | Release
    | AllowHost
    | SetLayers
    | Explain
    | ListSecrets
    | RotateSecret
    | RevokeSecret
    | ReadAudit
    | ForgetAudit
)


class EgressCall(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One request; ``id`` is the caller's, unique on its connection."""

    id: int
    verb: EgressVerb

    def __repr__(self) -> str:
        return f"EgressCall({self.id}, {type(self.verb).__name__})"
