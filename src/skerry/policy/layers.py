"""One document of a policy, indexed. Pure."""

from dataclasses import dataclass
from typing import Protocol

from skerry.policy.document import DenyRule, PolicyDocument
from skerry.policy.endpoints import stored_host
from skerry.policy.index import HostIndex
from skerry.policy.rules import CompiledRule, compile_rule, implicit_rules

OPERATOR = "operator"
"""The name of the outermost layer, whose ``default: public`` also has the operator's internal networks."""

SANDBOX = "sandbox"
"""The name of the innermost layer, which the sandbox's owner can extend."""


class Layer(Protocol):
    """A document and what its rules are called; `skerry.protocol.egress_verbs.NamedLayer` is one."""

    @property
    def name(self) -> str:
        """``operator``, ``policy:<name>`` or ``sandbox``."""
        ...

    @property
    def document(self) -> PolicyDocument:
        """In the stored form."""
        ...


@dataclass(frozen=True, slots=True)
class CompiledDeny:
    """A `DenyRule` and what it is called."""

    id: str
    rule: DenyRule

    def has_port(self, port: int | None) -> bool:
        """Whether the denial is about this port; None: whether it is about any."""
        return not self.rule.ports or port is None or port in self.rule.ports


class CompiledLayer:
    """One document, indexed."""

    __slots__ = ("allow", "deny", "name", "public")

    def __init__(self, name: str, document: PolicyDocument) -> None:
        self.name = name
        self.public = document.default == "public"
        self.allow: HostIndex[CompiledRule] = HostIndex()
        self.deny: HostIndex[CompiledDeny] = HostIndex()
        for at, rule in enumerate(document.allow):
            compiled = compile_rule(f"{name}.allow[{at}]", rule)
            self.allow.add(compiled.host, compiled)
        secrets = [(f"secrets[{at}]", one.hosts) for at, one in enumerate(document.secrets or ())]
        for compiled in implicit_rules(name, secrets):
            self.allow.add(compiled.host, compiled)
        for at, deny in enumerate(document.deny):
            self.deny.add(stored_host(deny.host), CompiledDeny(f"{name}.deny[{at}]", deny), with_apex=True)
