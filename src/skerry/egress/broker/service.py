"""What egressd does when it is asked, free of any wire."""

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass

import skerry
from skerry.egress.broker import granting, validation
from skerry.egress.broker.held import Held, settled, state_of
from skerry.egress.broker.sandbox import Ground, Sandbox
from skerry.errors import NotFound, ResourceExhausted, RuntimeFailed
from skerry.policy.document import AllowRule
from skerry.protocol.egress_verbs import (
    AuditLines,
    EgressDescription,
    Explanation,
    Grant,
    Granted,
    NamedLayer,
    PolicyVersion,
    ReadAudit,
    SecretState,
)
from skerry.spec.ids import SandboxId

MAX_SANDBOXES = 4096
MAX_FOLLOWERS = 512
MAX_READ_BYTES = 700_000
"""Of one answer, so that it fits into a frame whatever its lines are."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What is the same for all sandboxes and does not change.

    Attributes:
        extra_roots_pem: Certificate authorities that guests must trust too.
        problems: Why nothing can get out here, in words.
    """

    extra_roots_pem: str = ""
    problems: tuple[str, ...] = ()


class Broker:
    """All granted sandboxes."""

    def __init__(self, ground: Ground, surroundings: Surroundings) -> None:
        self._ground = ground
        self._surroundings = surroundings
        self._sandboxes: dict[SandboxId, Sandbox] = {}
        self._followers = 0

    def restore(self, found: Sequence[Held]) -> None:
        """Go on with what an earlier process has put away; called once, before anything else."""
        for held in found:
            sandbox = Sandbox(held, self._ground)
            self._sandboxes[held.sandbox_id] = sandbox
            sandbox.open()

    async def close(self) -> None:
        """End all workers; what was put away stays."""
        await asyncio.gather(*(sandbox.close() for sandbox in self._sandboxes.values()))
        self._ground.trails.close()

    def describe(self) -> EgressDescription:
        """See `skerry.protocol.egress_verbs.EgressDescribe`."""
        return EgressDescription(
            version=skerry.__version__,
            pid=os.getpid(),
            sandboxes=tuple(sandbox.view() for sandbox in self._sandboxes.values()),
            problems=self._surroundings.problems,
        )

    async def grant(self, grant: Grant) -> Granted:
        """See `skerry.protocol.egress_verbs.Grant`."""
        validation.check_grant(grant)
        sandbox = self._sandboxes.get(grant.sandbox_id)
        if sandbox is None:
            held = await self._grant_new(grant)
        else:
            held = await sandbox.change(lambda earlier: granting.held_for(grant, earlier))
        return Granted(
            placeholders={secret.rule.name: secret.placeholder for secret in held.secrets},
            certificate_pem=held.certified.authority.certificate_pem if held.certified else None,
            extra_roots_pem=self._surroundings.extra_roots_pem,
            version=held.version,
        )

    async def release(self, sandbox_id: SandboxId) -> None:
        """See `skerry.protocol.egress_verbs.Release`."""
        validation.checked_id(sandbox_id)
        sandbox = self._sandboxes.get(sandbox_id)
        if sandbox is not None:
            await sandbox.release()
            self._forget(sandbox)

    async def allow_host(self, sandbox_id: SandboxId, rule: AllowRule) -> PolicyVersion:
        """See `skerry.protocol.egress_verbs.AllowHost`."""

        def with_rule(held: Held) -> Held:
            changed = held.with_rule(rule)
            validation.check_layers(changed.layers)
            return changed

        return _version_of(await self._sandbox(sandbox_id).change(with_rule))

    async def set_layers(self, sandbox_id: SandboxId, layers: tuple[NamedLayer, ...]) -> PolicyVersion:
        """See `skerry.protocol.egress_verbs.SetLayers`."""
        validation.check_layers(layers)
        return _version_of(await self._sandbox(sandbox_id).change(lambda held: held.with_layers(layers)))

    def explain(self, sandbox_id: SandboxId, target: str, method: str) -> Explanation:
        """See `skerry.protocol.egress_verbs.Explain`."""
        validation.check_question(target, method)
        return self._sandbox(sandbox_id).explain(target, method)

    def secrets(self, sandbox_id: SandboxId) -> list[SecretState]:
        """See `skerry.protocol.egress_verbs.ListSecrets`."""
        now_ms = self._ground.policies.clock()
        return [state_of(secret, now_ms=now_ms) for secret in self._sandbox(sandbox_id).held.secrets]

    async def rotate(self, sandbox_id: SandboxId, name: str, value: bytes) -> None:
        """See `skerry.protocol.egress_verbs.RotateSecret`."""

        def rotated(held: Held) -> Held:
            secret = held.secret(name)
            validation.check_value(value, allow_short=secret.rule.allow_short)
            return held.with_secret(settled(secret, value, "active"))

        await self._sandbox(sandbox_id).change(rotated)

    async def revoke(self, sandbox_id: SandboxId, name: str) -> None:
        """See `skerry.protocol.egress_verbs.RevokeSecret`."""
        await self._sandbox(sandbox_id).change(
            lambda held: held.with_secret(settled(held.secret(name), None, "revoked"))
        )

    async def read_audit(self, verb: ReadAudit) -> AuditLines:
        """See `skerry.protocol.egress_verbs.ReadAudit`."""
        validation.check_read(verb)
        found = self._read(verb)
        if found.lines or found.ended or not verb.wait_ms:
            return found
        if self._followers >= MAX_FOLLOWERS:
            raise ResourceExhausted(f"{MAX_FOLLOWERS} wait for audit lines already")
        self._followers += 1
        try:
            trail, _ = self._ground.trails.find(verb.sandbox_id)
            async with asyncio.timeout(verb.wait_ms / 1000):
                await trail.grown.wait()
        except TimeoutError:
            pass
        finally:
            self._followers -= 1
        return self._read(verb)

    def forget_audit(self, keep: Sequence[SandboxId]) -> None:
        """See `skerry.protocol.egress_verbs.ForgetAudit`."""
        self._ground.trails.forget(frozenset(keep))

    async def _grant_new(self, grant: Grant) -> Held:
        if len(self._sandboxes) >= MAX_SANDBOXES:
            raise ResourceExhausted(f"{MAX_SANDBOXES} sandboxes are served, the most: end some")
        sandbox = Sandbox(granting.held_for(grant, None), self._ground)
        sandbox.completed()
        try:
            self._ground.trails.live(grant.sandbox_id)
        except OSError as error:
            raise RuntimeFailed("the audit trail cannot be opened", detail=str(error)) from error
        self._sandboxes[grant.sandbox_id] = sandbox
        sandbox.open()
        try:
            await sandbox.put_away()
        except BaseException:
            self._forget(sandbox)
            self._ground.trails.end(grant.sandbox_id)
            await sandbox.close()
            raise
        await sandbox.asked()
        return sandbox.held

    def _read(self, verb: ReadAudit) -> AuditLines:
        try:
            trail, goes_on = self._ground.trails.find(verb.sandbox_id)
            lines, last = trail.read(after=verb.after, limit=verb.limit, max_bytes=MAX_READ_BYTES)
        except OSError as error:
            raise RuntimeFailed("the audit trail cannot be read", detail=str(error)) from error
        texts = [line.decode(errors="replace") for line in lines]
        return AuditLines(texts, last, ended=not goes_on and last + 1 >= trail.next_seq)

    def _sandbox(self, sandbox_id: SandboxId) -> Sandbox:
        sandbox = self._sandboxes.get(validation.checked_id(sandbox_id))
        if sandbox is None:
            raise NotFound(f"sandbox {sandbox_id} is not served by the outbound gateway")
        return sandbox

    def _forget(self, sandbox: Sandbox) -> None:
        if self._sandboxes.get(sandbox.sandbox_id) is sandbox:
            del self._sandboxes[sandbox.sandbox_id]


def _version_of(held: Held) -> PolicyVersion:
    certified = held.certified
    new = certified is not None and certified.reissued
    return PolicyVersion(held.version, certified.authority.certificate_pem if certified and new else None)
