"""What can be asked of a sandbox's way out: what would happen, what happened, what else it may reach, and its
secrets.
"""

import builtins

from skerry.control.egress import Egress
from skerry.errors import InvalidRequest, NotFound
from skerry.policy.deno_fields import allow_rule
from skerry.policy.names import BadPattern
from skerry.policy.values import problem_of_text
from skerry.protocol.egress_verbs import AuditLines, Explanation, SecretState
from skerry.service.lookup import Lookup
from skerry.service.requests import Allowed, Principal
from skerry.service.tokens import SANDBOX, require
from skerry.spec.ids import SandboxId

MAX_TARGET_CHARACTERS = 8192
MAX_METHOD_CHARACTERS = 32
MAX_AUDIT_LINES = 1000
MAX_AUDIT_WAIT_MS = 30_000


class Outbound:
    """The way out of every sandbox of an owner."""

    def __init__(self, lookup: Lookup, egress: Egress) -> None:
        self._lookup = lookup
        self._egress = egress

    async def explain(self, who: Principal, sandbox_id: str, target: str, method: str = "GET") -> Explanation:
        """What would happen to a request or connection of a running sandbox, and why.

        Args:
            target: A URL, ``name:port`` or ``address:port``.

        Raises:
            InvalidRequest: The target cannot be understood.
            NotFound, SandboxEnded: As `Service.connect`; also for a sandbox without a network of its own.
        """
        served = await self._served(who, sandbox_id)
        if not 0 < len(target) <= MAX_TARGET_CHARACTERS or not 0 < len(method) <= MAX_METHOD_CHARACTERS:
            raise InvalidRequest("target: expected a URL, such as https://example.com/, or name:port")
        return await self._egress.explain(served, target, method)

    async def allow(self, who: Principal, sandbox_id: str, pattern: str) -> Allowed:
        """Let a running sandbox reach one more destination; outer policies still bound it.

        Args:
            pattern: As an entry of ``allow_net``.

        Raises:
            InvalidRequest: It is no such entry.
            Conflict: Too many were added.
            NotFound, SandboxEnded: As `explain`.
        """
        require(who, SANDBOX)
        sandbox = await self._lookup.running(who, sandbox_id)
        try:
            rule = allow_rule(pattern)
        except BadPattern as error:
            raise InvalidRequest(f"host: {error.message}") from None
        version = await sandbox.outbound.allow(rule)
        return Allowed(version=version, rule=rule)

    async def audit(
        self, who: Principal, sandbox_id: str, *, after: int = 0, limit: int = 500, wait_ms: int = 0
    ) -> AuditLines:
        """What a sandbox tried to reach, oldest first; also after its end, as long as it is listed.

        Args:
            after: Only lines with a higher number.
            limit: 1 to `MAX_AUDIT_LINES`.
            wait_ms: When there is none yet, wait this long for one.

        Raises:
            InvalidRequest: A number is out of its range.
            NotFound: Code ``SANDBOX_NOT_FOUND``.
        """
        require(who, SANDBOX)
        record = await self._lookup.record(who, sandbox_id)
        if after < 0 or not 1 <= limit <= MAX_AUDIT_LINES or not 0 <= wait_ms <= MAX_AUDIT_WAIT_MS:
            raise InvalidRequest(
                f"expected after >= 0, limit from 1 to {MAX_AUDIT_LINES}, wait_ms up to {MAX_AUDIT_WAIT_MS}"
            )
        return await self._egress.read_audit(record.sandbox_id, after=after, limit=limit, wait_ms=wait_ms)

    async def secrets(self, who: Principal, sandbox_id: str) -> builtins.list[SecretState]:
        """The secrets of a running sandbox, without their values.

        Raises:
            NotFound, SandboxEnded: As `explain`.
        """
        return await self._egress.secrets(await self._served(who, sandbox_id))

    async def rotate(self, who: Principal, sandbox_id: str, name: str, value: str) -> None:
        """Use another value of a secret from the next request on; a revoked or lost one works again.

        Raises:
            InvalidRequest: The value may not stand in a request; it is not repeated.
            NotFound: There is no such secret; or as `explain`.
        """
        require(who, SANDBOX)
        sandbox = await self._lookup.running(who, sandbox_id)
        rule = next((one for one in sandbox.outbound.secret_rules() if one.name == name), None)
        if rule is None:
            raise NotFound("this sandbox has no such secret", code="SECRET_NOT_FOUND")
        problem = problem_of_text(value, allow_short=rule.allow_short)
        if problem is not None:
            raise InvalidRequest(f"secret {name}: {problem}")
        await self._egress.rotate(sandbox.sandbox_id, name, value.encode())

    async def revoke(self, who: Principal, sandbox_id: str, name: str) -> None:
        """Forget the value of a secret: no request carries it any more when this returns.

        Raises:
            NotFound: There is no such secret; or as `explain`.
        """
        await self._egress.revoke(await self._served(who, sandbox_id), name)

    async def _served(self, who: Principal, sandbox_id: str) -> SandboxId:
        require(who, SANDBOX)
        sandbox = await self._lookup.running(who, sandbox_id)
        sandbox.outbound.check_served()
        return sandbox.sandbox_id
