"""The outbound gateway over egressd's socket."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Final

from skerry.control.clock import Clock
from skerry.control.daemon_connection import DaemonConnection
from skerry.control.daemon_link import DaemonLink, Peer
from skerry.control.tasks import Tasks
from skerry.errors import InvalidRequest
from skerry.policy.document import AllowRule
from skerry.protocol.egress_verbs import (
    AllowHost,
    AuditLines,
    EgressCall,
    EgressDescribe,
    EgressDescription,
    EgressVerb,
    Explain,
    Explanation,
    ForgetAudit,
    Grant,
    Granted,
    ListSecrets,
    NamedLayer,
    PolicyVersion,
    ReadAudit,
    Release,
    RevokeSecret,
    RotateSecret,
    SecretState,
    SetLayers,
)
from skerry.protocol.host_verbs import frame
from skerry.spec.ids import SandboxId

UNREACHABLE: Final = "EGRESSD_UNREACHABLE"

DEADLINES_S: Final[dict[type, float]] = {
    EgressDescribe: 5.0,
    Grant: 8.0,
    Release: 8.0,
    AllowHost: 8.0,
    SetLayers: 8.0,
    Explain: 5.0,
    ListSecrets: 5.0,
    RotateSecret: 8.0,
    RevokeSecret: 8.0,
    ReadAudit: 5.0,
    ForgetAudit: 10.0,
}
"""Longest time per verb, waiting for a connection included. A change waits for the worker (0.8 s) or its end,
and for the state to be put away."""


def _framed(call_id: int, verb: EgressVerb) -> bytes:
    try:
        return frame(EgressCall(id=call_id, verb=verb))
    except ValueError:
        raise InvalidRequest("policy and secrets are too large for the outbound gateway") from None


_PEER: Final[Peer[EgressVerb]] = Peer(
    name="egressd",
    framed=_framed,
    lost_code=UNREACHABLE,
    meanwhile="sandboxes go on, without a way out",
    deadlines_s=DEADLINES_S,
    # All: each does the same however often it is done.
    repeatable=tuple(DEADLINES_S),
)


class EgressdClient:
    """Implements `skerry.control.egress.Egress`. It connects, and connects again whenever egressd was gone,
    until its tasks end.

    Args:
        socket_path: egressd's socket.
        tasks: Owns the task that keeps the connection.
    """

    def __init__(self, socket_path: Path, *, tasks: Tasks, clock: Clock) -> None:
        self._waiting: set[asyncio.Event] = set()
        self._link = DaemonLink(socket_path, _PEER, tasks=tasks, clock=clock, greet=self._announce)

    async def describe(self) -> EgressDescription:
        """See `Egress.describe`."""
        return await self._link.ask(EgressDescribe(), EgressDescription)

    async def grant(self, grant: Grant) -> Granted:
        """See `Egress.grant`."""
        return await self._link.ask(grant, Granted)

    async def release(self, sandbox_id: SandboxId) -> None:
        """See `Egress.release`."""
        await self._link.ask(Release(sandbox_id), None)

    async def allow_host(self, sandbox_id: SandboxId, rule: AllowRule) -> PolicyVersion:
        """See `Egress.allow_host`."""
        return await self._link.ask(AllowHost(sandbox_id, rule), PolicyVersion)

    async def set_layers(self, sandbox_id: SandboxId, layers: Sequence[NamedLayer]) -> PolicyVersion:
        """See `Egress.set_layers`."""
        return await self._link.ask(SetLayers(sandbox_id, tuple(layers)), PolicyVersion)

    async def explain(self, sandbox_id: SandboxId, target: str, method: str = "GET") -> Explanation:
        """See `Egress.explain`."""
        return await self._link.ask(Explain(sandbox_id, target, method), Explanation)

    async def secrets(self, sandbox_id: SandboxId) -> list[SecretState]:
        """See `Egress.secrets`."""
        return await self._link.ask(ListSecrets(sandbox_id), list[SecretState])

    async def rotate(self, sandbox_id: SandboxId, name: str, value: bytes) -> None:
        """See `Egress.rotate`."""
        await self._link.ask(RotateSecret(sandbox_id, name, value), None)

    async def revoke(self, sandbox_id: SandboxId, name: str) -> None:
        """See `Egress.revoke`."""
        await self._link.ask(RevokeSecret(sandbox_id, name), None)

    async def read_audit(
        self, sandbox_id: SandboxId, *, after: int = 0, limit: int = 500, wait_ms: int = 0
    ) -> AuditLines:
        """See `Egress.read_audit`."""
        verb = ReadAudit(sandbox_id, after, limit, wait_ms)
        return await self._link.ask(verb, AuditLines, longer_s=wait_ms / 1000)

    async def forget_audit(self, keep: Sequence[SandboxId]) -> None:
        """See `Egress.forget_audit`."""
        await self._link.ask(ForgetAudit(tuple(keep)), None)

    async def reconnected(self) -> AsyncIterator[None]:
        """See `Egress.reconnected`."""
        event = asyncio.Event()
        event.set()
        self._waiting.add(event)
        try:
            while True:
                await event.wait()
                event.clear()
                yield None
        finally:
            self._waiting.discard(event)

    async def _announce(self, connection: DaemonConnection[EgressVerb]) -> None:
        # Whoever is refused is not told so, but sees the connection close.
        await connection.call(EgressDescribe(), timeout_s=DEADLINES_S[EgressDescribe])
        for event in self._waiting:
            event.set()
