"""The outbound gateway as control sees it: asynchronous messages only, like `skerry.control.host`."""

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from skerry.policy.document import AllowRule
from skerry.protocol.egress_verbs import (
    AuditLines,
    EgressDescription,
    Explanation,
    Grant,
    Granted,
    NamedLayer,
    PolicyVersion,
    SecretState,
)
from skerry.spec.ids import SandboxId


class Egress(Protocol):
    """What lets sandboxes reach the outside, and holds their secrets.

    Every method has a deadline of its own. All raise `skerry.errors.TimedOut` when it passes, `HostUnusable`
    (code ``EGRESSD_UNREACHABLE``, retryable) when egressd cannot be reached, and egressd's own refusals
    (`InvalidRequest`, `NotFound` for a sandbox without a grant or an unknown secret, `ResourceExhausted`).
    What a method did stays done over restarts of egressd; over the end of every daemon only the audit trail
    stays.
    """

    async def describe(self) -> EgressDescription:
        """Who egressd is, and every sandbox that it serves."""
        ...

    async def grant(self, grant: Grant) -> Granted:
        """Serve a sandbox's packets by these rules from now on, in place of an earlier grant. Comes before
        the sandbox's first process, but may come before or after its start on the host. May be repeated:
        given placeholders are kept."""
        ...

    async def release(self, sandbox_id: SandboxId) -> None:
        """Forget a sandbox and its secrets; nothing of it gets out any more. Idempotent."""
        ...

    async def allow_host(self, sandbox_id: SandboxId, rule: AllowRule) -> PolicyVersion:
        """Add a rule to the sandbox's own layer. The worker goes by the version that is returned. Adding a
        rule that is there changes nothing. When the answer has a certificate, it must be installed in the
        guest."""
        ...

    async def set_layers(self, sandbox_id: SandboxId, layers: Sequence[NamedLayer]) -> PolicyVersion:
        """Replace all layers but the operator's. Flows that no longer fit are closed when this returns. When
        the answer has a certificate, it must be installed in the guest."""
        ...

    async def explain(self, sandbox_id: SandboxId, target: str, method: str = "GET") -> Explanation:
        """What would happen to a request for a URL, or a connection to ``name:port``."""
        ...

    async def secrets(self, sandbox_id: SandboxId) -> list[SecretState]:
        """The sandbox's secrets, without their values, in the order of the grant."""
        ...

    async def rotate(self, sandbox_id: SandboxId, name: str, value: bytes) -> None:
        """Use another value from the next request on; also brings a revoked or lost secret back."""
        ...

    async def revoke(self, sandbox_id: SandboxId, name: str) -> None:
        """Forget a secret's value; when this returns, no request carries it any more. Idempotent."""
        ...

    async def read_audit(
        self, sandbox_id: SandboxId, *, after: int = 0, limit: int = 500, wait_ms: int = 0
    ) -> AuditLines:
        """Lines of the audit trail, also after the sandbox's end; see `egress_verbs.ReadAudit`. An unknown
        sandbox has an empty, ended trail."""
        ...

    async def forget_audit(self, keep: Sequence[SandboxId]) -> None:
        """Delete the audit trails of all sandboxes but these and those that are served now."""
        ...

    def reconnected(self) -> AsyncIterator[None]:
        """Ends never. The first comes at once; one more whenever the connection to egressd was made again, so
        that it may be another process now, which serves fewer sandboxes: the caller must `describe`."""
        ...
