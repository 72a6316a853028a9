"""Make policies in a few words."""

from typing import Any

from skerry.policy.compiled import Own, Policy
from skerry.policy.document import AllowRule, DenyRule, PolicyDocument, SecretBinding, SecretRule
from skerry.protocol.egress_verbs import NamedLayer
from skerry.spec.settings import InternalNetwork

PUBLIC = PolicyDocument(default="public")


def allow(host: str, **rest: Any) -> AllowRule:
    """An allow rule."""
    return AllowRule(host=host, **rest)


def deny(host: str, **rest: Any) -> DenyRule:
    """A denial."""
    return DenyRule(host=host, **rest)


def secret(*hosts: str, name: str = "KEY", **rest: Any) -> SecretRule:
    """A secret's rule."""
    return SecretRule(name=name, hosts=hosts, **rest)


def document(
    *rules: AllowRule,
    deny: tuple[DenyRule, ...] = (),
    default: str = "deny",
    secrets: tuple[SecretBinding, ...] | None = None,
) -> PolicyDocument:
    """A document of rules."""
    return PolicyDocument(default=default, allow=rules, deny=deny, secrets=secrets)  # type: ignore[arg-type]


def policy(
    *rules: AllowRule,
    operator: PolicyDocument = PUBLIC,
    named: PolicyDocument | None = None,
    sandbox: PolicyDocument | None = None,
    secrets: tuple[SecretRule, ...] = (),
    internal: tuple[InternalNetwork, ...] = (),
    own: Own | None = None,
) -> Policy:
    """A policy whose sandbox layer has these rules."""
    layers = [NamedLayer(name="operator", document=operator)]
    if named is not None:
        layers.append(NamedLayer(name="policy:team", document=named))
    layers.append(NamedLayer(name="sandbox", document=document(*rules) if sandbox is None else sandbox))
    return Policy(layers, secrets, internal, own=own)
