"""What one sandbox may reach: the intent in its record, the gateway's grant, and what the guest must trust.

The record is written first, then the gateway is told. Values of secrets pass through `grant` once and are
kept nowhere here.
"""

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec
import structlog

from skerry.control.store.records import EgressIntent
from skerry.control.trust import ADDING, TRUST_VARIABLES
from skerry.errors import Conflict, NotFound, RuntimeFailed, SkerryError
from skerry.policy.document import AllowRule, SecretRule
from skerry.protocol.egress_verbs import Grant, Granted, NamedLayer, PolicyVersion, SecretGrant
from skerry.spec.ids import OwnerId, SandboxId

if TYPE_CHECKING:
    from skerry.control.agent import AgentClient
    from skerry.control.ground import Ground

_log = structlog.get_logger("skerry.control")

RELEASE_S = 2.0
"""The end of a sandbox is held up no longer by a gateway that does not answer."""

MAX_OWN_RULES = 1000
"""Rules of a sandbox's own, with those that were added while it ran."""


class Outbound:
    """One sandbox's way out. Everything that tells the gateway something is done one after another.

    Args:
        intent: From its record; None: the gateway does not serve it.
        served: An earlier run of the server has had it granted.

    Attributes:
        served: As far as is known here, the gateway has a grant of it.
    """

    def __init__(
        self,
        ground: "Ground",
        sandbox_id: SandboxId,
        agent: "AgentClient",
        intent: EgressIntent | None,
        *,
        served: bool,
    ) -> None:
        self._ground = ground
        self._sandbox_id = sandbox_id
        self._agent = agent
        self._one_at_a_time = asyncio.Lock()
        self._told_version: int | None = None
        self._stale = False
        self._released = False
        self._untrusted: str | None = None
        self._installed = ""
        self._extra_roots_pem = ""
        self.intent = intent
        self.served = served

    async def grant(self, owner: OwnerId, values: Mapping[str, bytes]) -> Granted:
        """Have the gateway serve the sandbox. Taken back by `release`.

        Args:
            values: Of its secrets, by name; a secret whose value is missing is lost until it is rotated.

        Raises:
            SkerryError: The gateway's refusal, or it cannot be reached; what it did is unknown.
        """
        async with self._one_at_a_time:
            intent = self._wanted()
            layers, version = await self._layers(intent)
            secrets = tuple(
                SecretGrant(rule=one.rule, value=values.get(one.rule.name), placeholder=one.placeholder)
                for one in intent.secrets
            )
            granted = await self._ground.egress.grant(
                Grant(sandbox_id=self._sandbox_id, owner=owner, layers=layers, secrets=secrets)
            )
            if self._released:
                await self.release()  # it ended meanwhile, and which of the two came first is unknown
                return granted
            self._told_version, self._stale, self.served = version, False, True
            self._extra_roots_pem = granted.extra_roots_pem
            return granted

    async def grant_again(self, owner: OwnerId) -> None:
        """The gateway has lost the sandbox: serve it again, without the values of its secrets.

        Raises:
            SkerryError: As `grant`, or the guest does not answer; the next comparison tries again.
        """
        granted = await self.grant(owner, {})
        self._untrusted = granted.certificate_pem or ""
        names = [one.rule.name for one in self._wanted().secrets]
        if names:
            _log.warning("secrets_lost", sandbox=self._sandbox_id, names=names)
        await self._trust_what_is_new()

    async def set_up_guest(self, granted: Granted | None, env: Mapping[str, str]) -> None:
        """Before the first process: what it must trust, and its environment.

        Variables about trust are defaults: those of the client win.
        """
        if granted is None:
            await self._set_env(env)
            return
        variables = await self._install(granted.certificate_pem or "")
        await self._set_env({**variables, **granted.placeholders, **env})

    async def allow(self, rule: AllowRule) -> int:
        """Add a rule to the sandbox's own layer: record first, then the gateway.

        Returns:
            The policy's version, which is in force.

        Raises:
            NotFound: The gateway does not serve the sandbox.
            Conflict: Too many were added.
            SkerryError: The gateway could not be told; it will be.
        """
        async with self._one_at_a_time:
            intent = self._wanted()
            rules = intent.layer.allow
            if rule not in rules:
                if len(rules) >= MAX_OWN_RULES:
                    raise Conflict(f"the sandbox has {len(rules)} rules of its own, and that is the limit")
                layer = msgspec.structs.replace(intent.layer, allow=(*rules, rule))
                changed = msgspec.structs.replace(intent, layer=layer)
                await self._ground.store.save_egress(self._sandbox_id, changed)
                self.intent = changed
                self._stale = True
            version = await self._ground.egress.allow_host(self._sandbox_id, rule)
            self._stale = False
            self._take_note(version)
        await self._trust_what_is_new()
        return version.version

    async def keep_up(self, version: int | None) -> None:
        """Tell the gateway the layers if it was not told the present ones.

        Args:
            version: Of the named policy, as it is stored now; None: the sandbox goes by none.

        Raises:
            SkerryError: The gateway or the guest could not be told; the next comparison tries again.
        """
        async with self._one_at_a_time:
            if not self.served:
                return
            if version != self._told_version or self._stale:
                layers, told = await self._layers(self._wanted())
                self._take_note(await self._ground.egress.set_layers(self._sandbox_id, layers))
                self._told_version, self._stale = told, False
        await self._trust_what_is_new()

    async def release(self) -> None:
        """Nothing of the sandbox gets out any more. Idempotent; what fails is done at the next comparison."""
        if self.intent is None:
            return
        self.served = False
        self._released = True
        try:
            async with asyncio.timeout(RELEASE_S):
                await self._ground.egress.release(self._sandbox_id)
        except TimeoutError:
            _log.warning("release_put_off", sandbox=self._sandbox_id)
        except SkerryError as error:
            _log.warning("release_failed", sandbox=self._sandbox_id, error=error.message, detail=error.detail)

    def secret_rules(self) -> tuple[SecretRule, ...]:
        """How its secrets may be used.

        Raises:
            NotFound: It has no network of its own.
        """
        return tuple(one.rule for one in self._wanted().secrets)

    def check_served(self) -> None:
        """Whether the gateway can be asked about it.

        Raises:
            NotFound: It has no network of its own.
        """
        self._wanted()

    def _wanted(self) -> EgressIntent:
        if self.intent is None:
            raise NotFound(
                "this sandbox has no network of its own, so the gateway has nothing about it",
                code="NO_NETWORK",
            )
        return self.intent

    async def _layers(self, intent: EgressIntent) -> tuple[tuple[NamedLayer, ...], int | None]:
        """The layers, and the version of the named policy among them."""
        own = NamedLayer(name="sandbox", document=intent.layer)
        if intent.policy is None:
            return (own,), None
        policy = await self._ground.policies.get(intent.policy)
        if policy is None:
            raise RuntimeFailed(f"the policy {intent.policy.name!r} of this sandbox is not there any more")
        return (NamedLayer(name=f"policy:{policy.name}", document=policy.document), own), policy.version

    def _take_note(self, version: PolicyVersion) -> None:
        if version.certificate_pem not in (None, self._installed):
            self._untrusted = version.certificate_pem

    async def _trust_what_is_new(self) -> None:
        """Let a sandbox that runs trust another authority. Programs that read theirs at their start must be
        started anew.
        """
        certificate_pem = self._untrusted
        if certificate_pem is None:
            return
        variables = await self._install(certificate_pem)
        present = await self._agent.env_all() if variables else {}
        await self._set_env({name: value for name, value in variables.items() if name not in present})
        if self._untrusted == certificate_pem:
            self._untrusted = None

    async def _install(self, certificate_pem: str) -> dict[str, str]:
        """Have the guest trust an authority (empty: none) and the operator's roots; the variables for that.

        In an image without authorities of its own, a list with nothing but the added ones would cut off
        programs that bring theirs.
        """
        if not certificate_pem and not self._extra_roots_pem:
            return {}
        variables = TRUST_VARIABLES
        installed = await self._agent.install_trust(certificate_pem, self._extra_roots_pem, env=variables)
        if not installed.system and not self._extra_roots_pem:
            variables = ADDING
            await self._agent.install_trust(certificate_pem, self._extra_roots_pem, env=variables)
        self._installed = certificate_pem
        return variables

    async def _set_env(self, variables: Mapping[str, str]) -> None:
        if variables:
            await self._agent.env_update(set=dict[str | bytes, str | bytes](variables.items()))
