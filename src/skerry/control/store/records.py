"""What is stored of a sandbox, of a token and of a named policy."""

import msgspec

from skerry.lifecycle.events import Stage
from skerry.policy.document import PolicyDocument, SecretRule
from skerry.spec.ids import OwnerId, SandboxId, TokenId
from skerry.spec.sandbox import EndReason, Isolation, StartSpec

SHARED = OwnerId("")
"""The owner of policies that sandboxes of every owner may choose."""


class PolicyRef(msgspec.Struct, frozen=True):
    """A named policy; ``owner`` is `SHARED` or the sandbox's own."""

    owner: OwnerId
    name: str


class PolicyRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A named policy. The version counts how often it was set."""

    owner: OwnerId
    name: str
    document: PolicyDocument
    version: int
    updated_at_ms: int

    @property
    def ref(self) -> PolicyRef:
        """Which one it is."""
        return PolicyRef(self.owner, self.name)


class SecretIntent(msgspec.Struct, frozen=True):
    """A secret of a sandbox without its value, which is stored nowhere."""

    rule: SecretRule
    placeholder: str


class EgressIntent(msgspec.Struct, frozen=True, kw_only=True):
    """What the gateway is told of a sandbox, but for values of secrets.

    Attributes:
        layer: The sandbox's own: what its create asked for, and what was allowed since.
        policy: The named policy above it.
    """

    layer: PolicyDocument
    secrets: tuple[SecretIntent, ...] = ()
    policy: PolicyRef | None = None


class SandboxRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One sandbox. Its environment is not here: the agent has it, and it may hold secrets.

    Attributes:
        owner: None for a member of the warm pool.
        token_id: The token that created it; it alone may come back as primary client.
        boot_id: The boot of the machine in which it was started.
        created_at_ms: When its client got it, for a pool member when it was made.
        egress: None: the gateway does not serve it (a pool member, or a driver without a network of its own).
    """

    sandbox_id: SandboxId
    owner: OwnerId | None
    token_id: TokenId | None
    stage: Stage
    boot_id: str
    isolation: Isolation
    image: str
    image_digest: str
    memory_mib: int
    cpus: float
    disk_mib: int
    max_processes: int
    session: bool
    stop_at_ms: int | None
    labels: dict[str, str]
    created_at_ms: int
    stopped_at_ms: int | None = None
    end_reason: EndReason | None = None
    exit_code: int | None = None
    egress: EgressIntent | None = None

    def start_spec(self) -> StartSpec:
        """What the host is asked to start."""
        return StartSpec(
            sandbox_id=self.sandbox_id,
            isolation=self.isolation,
            image=self.image,
            memory_mib=self.memory_mib,
            cpus=self.cpus,
            disk_mib=self.disk_mib,
            max_processes=self.max_processes,
        )


class Given(msgspec.Struct, frozen=True, kw_only=True):
    """What makes a pool member a client's sandbox."""

    owner: OwnerId
    token_id: TokenId
    session: bool
    stop_at_ms: int | None
    labels: dict[str, str]
    created_at_ms: int
    egress: EgressIntent | None = None


class Quotas(msgspec.Struct, frozen=True):
    """How many sandboxes may be starting or running at once; None: as many as the wider limit allows."""

    server: int
    owner: int
    token: int | None = None


class TokenRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One token; its value is known only to its holder."""

    token_id: TokenId
    sha256: str
    owner: OwnerId
    name: str
    scopes: tuple[str, ...]
    created_at_ms: int
    expires_at_ms: int | None
    revoked_at_ms: int | None
    max_running: int | None
    policy: str | None = None
