"""An outbound gateway in memory; it can fail, stall, restart and forget at will."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from typing import Any

from skerry.errors import NotFound
from skerry.policy.document import AllowRule
from skerry.policy.verdict import Mode
from skerry.protocol.egress_verbs import (
    AuditLines,
    EgressDescription,
    Explanation,
    Grant,
    Granted,
    NamedLayer,
    PolicyVersion,
    SandboxEgress,
    SecretState,
)
from skerry.spec.ids import SandboxId

CERTIFICATE = "-----BEGIN CERTIFICATE-----\nof {sandbox_id} {number}\n-----END CERTIFICATE-----\n"


class _Served:
    def __init__(self, grant: Grant, certificate_pem: str | None) -> None:
        self.grant = grant
        self.layers = grant.layers
        self.values = {one.rule.name: one.value for one in grant.secrets}
        self.revoked: set[str] = set()
        self.certificate_pem = certificate_pem
        self.version = 1
        self.added: list[AllowRule] = []


class ScriptedEgress:
    """Implements `skerry.control.egress.Egress`.

    Attributes:
        served: What it has a grant of.
        audit: Lines by sandbox.
        faults: Errors that the next calls of a method raise, by its name; nothing has happened then.
        called: How often each method was called.
        stalled: Methods that wait until their event is set.
        inspects: A sandbox with secrets gets an authority. Turn it off where the agent is in no sandbox: it
            would change the trust of the machine.
        extra_roots_pem: Given with every grant.
        next_certificate: Handed out with the next change of a policy.
        problems: Why nothing gets out.
    """

    def __init__(self) -> None:
        self.served: dict[SandboxId, _Served] = {}
        self.audit: dict[SandboxId, list[str]] = {}
        self.faults: dict[str, list[BaseException]] = {}
        self.called: Counter[str] = Counter()
        self.stalled: dict[str, asyncio.Event] = {}
        self.inspects = True
        self.extra_roots_pem = ""
        self.next_certificate: str | None = None
        self.problems: tuple[str, ...] = ()
        self._made = 0
        self._watchers: list[asyncio.Queue[None]] = []

    # What tests do to it.

    def forget_all(self) -> None:
        """Every daemon that held something has ended; another egressd answers."""
        self.served.clear()
        self.restart()

    def restart(self) -> None:
        """Another egressd answers, with all that the earlier one had."""
        for queue in self._watchers:
            queue.put_nowait(None)

    # Egress.

    async def describe(self) -> EgressDescription:
        """See `Egress`."""
        await self._enter("describe")
        sandboxes = tuple(
            SandboxEgress(
                sandbox_id=one,
                version=served.version,
                worker_pid=None,
                lost=any(value is None for value in served.values.values()),
            )
            for one, served in self.served.items()
        )
        return EgressDescription(version="1", pid=2, sandboxes=sandboxes, problems=self.problems)

    async def grant(self, grant: Grant) -> Granted:
        """See `Egress`."""
        await self._enter("grant")
        self._made += 1
        certificate_pem = None
        if grant.secrets and self.inspects:
            certificate_pem = CERTIFICATE.format(sandbox_id=grant.sandbox_id, number=self._made)
        self.served[grant.sandbox_id] = _Served(grant, certificate_pem)
        return Granted(
            placeholders={one.rule.name: one.placeholder or "made-here" for one in grant.secrets},
            certificate_pem=certificate_pem,
            extra_roots_pem=self.extra_roots_pem,
        )

    async def release(self, sandbox_id: SandboxId) -> None:
        """See `Egress`."""
        await self._enter("release")
        self.served.pop(sandbox_id, None)

    async def allow_host(self, sandbox_id: SandboxId, rule: AllowRule) -> PolicyVersion:
        """See `Egress`."""
        await self._enter("allow_host")
        served = self._served(sandbox_id)
        served.added.append(rule)
        return self._changed(served)

    async def set_layers(self, sandbox_id: SandboxId, layers: Sequence[NamedLayer]) -> PolicyVersion:
        """See `Egress`."""
        await self._enter("set_layers")
        served = self._served(sandbox_id)
        served.layers = tuple(layers)
        return self._changed(served)

    async def explain(self, sandbox_id: SandboxId, target: str, method: str = "GET") -> Explanation:
        """See `Egress`."""
        await self._enter("explain")
        self._served(sandbox_id)
        return Explanation(
            allowed=True, target=target, rule="sandbox.allow[0]", mode=Mode.SPLICE, why=f"{method} is allowed"
        )

    async def secrets(self, sandbox_id: SandboxId) -> list[SecretState]:
        """See `Egress`."""
        await self._enter("secrets")
        served = self._served(sandbox_id)
        return [
            SecretState(
                name=one.rule.name,
                state=_state(served, one.rule.name),
                hosts=one.rule.hosts,
                slots=one.rule.slots,
                placeholder=one.placeholder or "",
                used=0,
            )
            for one in served.grant.secrets
        ]

    async def rotate(self, sandbox_id: SandboxId, name: str, value: bytes) -> None:
        """See `Egress`."""
        await self._enter("rotate")
        served = self._with_secret(sandbox_id, name)
        served.values[name] = value
        served.revoked.discard(name)

    async def revoke(self, sandbox_id: SandboxId, name: str) -> None:
        """See `Egress`."""
        await self._enter("revoke")
        served = self._with_secret(sandbox_id, name)
        served.values[name] = b""
        served.revoked.add(name)

    async def read_audit(
        self, sandbox_id: SandboxId, *, after: int = 0, limit: int = 500, wait_ms: int = 0
    ) -> AuditLines:
        """See `Egress`."""
        await self._enter("read_audit")
        lines = self.audit.get(sandbox_id, [])[after : after + limit]
        return AuditLines(lines, after + len(lines), sandbox_id not in self.served)

    async def forget_audit(self, keep: Sequence[SandboxId]) -> None:
        """See `Egress`."""
        await self._enter("forget_audit")
        kept = {*keep, *self.served}
        self.audit = {one: lines for one, lines in self.audit.items() if one in kept}

    async def reconnected(self) -> AsyncIterator[None]:
        """See `Egress`."""
        queue: asyncio.Queue[None] = asyncio.Queue()
        queue.put_nowait(None)
        self._watchers.append(queue)
        try:
            while True:
                await queue.get()
                yield
        finally:
            self._watchers.remove(queue)

    def _changed(self, served: _Served) -> PolicyVersion:
        served.version += 1
        certificate, self.next_certificate = self.next_certificate, None
        return PolicyVersion(served.version, certificate)

    def _served(self, sandbox_id: SandboxId) -> _Served:
        if sandbox_id not in self.served:
            raise NotFound("egressd does not serve this sandbox")
        return self.served[sandbox_id]

    def _with_secret(self, sandbox_id: SandboxId, name: str) -> _Served:
        served = self._served(sandbox_id)
        if name not in served.values:
            raise NotFound("the sandbox has no such secret")
        return served

    async def _enter(self, method: str) -> None:
        self.called[method] += 1
        if method in self.stalled:
            await self.stalled[method].wait()
        await asyncio.sleep(0)
        faults = self.faults.get(method)
        if faults:
            raise faults.pop(0)


def _state(served: _Served, name: str) -> str:
    if name in served.revoked:
        return "revoked"
    return "lost" if served.values[name] is None else "active"


def layer_names(served: Any) -> list[str]:
    """The names of a served sandbox's layers, outer first."""
    return [layer.name for layer in served.layers]
