"""Rules in the form that is quick to ask. Pure."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from skerry.policy.credential_headers import has_credentials
from skerry.policy.document import AllowRule, SecretRule, TlsChoice
from skerry.policy.endpoints import Network, endpoint, stored_host
from skerry.policy.names import Pattern
from skerry.policy.paths import NotCanonical, Paths, Target, canonical, parse_all
from skerry.policy.slots import Slot, SlotKind, for_rule
from skerry.policy.verdict import Reason

Field = tuple[bytes, bytes]

MAIL_PORTS = frozenset((25, 465, 587))
"""Refused unless a rule names them (R20)."""

NEVER_CARRY = frozenset(("CONNECT", "OPTIONS", "TRACE"))
"""Methods that never carry a secret (G37): answers to them repeat the request."""

_DEFAULT_PORTS = frozenset((443,))
_METHOD = re.compile(r"[A-Z0-9!#$%&'*+.^_`|~-]{1,32}", re.ASCII)


def is_method(text: str) -> bool:
    """Whether text is a method's name as rules have it: a token in upper case."""
    return _METHOD.fullmatch(text) is not None


class Request:
    """A request as rules look at it: what costs something is worked out when it is first asked for."""

    __slots__ = ("_credentials", "_target", "fields", "method", "query", "raw_target", "websocket", "why_not")

    def __init__(self, method: str, raw_target: bytes, fields: Sequence[Field], websocket: bool) -> None:
        self.method = method
        self.raw_target = raw_target
        self.fields = fields
        self.websocket = websocket
        self.query = raw_target[raw_target.find(b"?") :] if b"?" in raw_target else b""
        self.why_not = ""
        self._target: Target | None = None
        self._credentials: bool | None = None

    def target(self) -> Target | None:
        """The canonical target; None when there is none, and then `why_not` says why."""
        if self._target is None and not self.why_not:
            try:
                self._target = canonical(self.raw_target)
            except NotCanonical as error:
                self.why_not = str(error)
        return self._target

    def has_credentials(self) -> bool:
        """Whether it brings credentials of its own."""
        if self._credentials is None:
            self._credentials = has_credentials(self.fields, self.query)
        return self._credentials


@dataclass(frozen=True, slots=True)
class CompiledRule:
    """An `AllowRule` ready to be asked.

    Attributes:
        id: Such as ``sandbox.allow[0]``.
        ports: None: any but those of mail.
        unlimited: No body or rate is limited.
        plain: Nothing of a request is looked at, and it is unlimited.
        order: Sorts the rules of one host so that the first that fits a request limits it least.
        specificity: Higher is closer to one host.
    """

    id: str
    rule: AllowRule
    host: Pattern | Network
    ports: frozenset[int] | None
    methods: frozenset[str] | None
    paths: Paths | None
    unlimited: bool = field(init=False)
    plain: bool = field(init=False)
    order: tuple[object, ...] = field(init=False)
    specificity: int = field(init=False)

    def __post_init__(self) -> None:
        rule = self.rule
        limits = (rule.max_request_bytes, rule.max_response_bytes, rule.requests_per_min)
        looks = (
            self.methods is not None,
            self.paths is not None,
            rule.credentials == "none",
        )
        specific = (
            (len(self.host.name) if self.host.wildcard else 1000)
            if isinstance(self.host, Pattern)
            else 1000 + self.host.prefixlen
        )
        object.__setattr__(self, "unlimited", all(one is None for one in limits))
        object.__setattr__(self, "plain", self.unlimited and not any(looks))
        object.__setattr__(self, "specificity", specific)
        least = tuple((one is not None, -(one or 0)) for one in limits)
        # Ends with the whole rule, so that the order in which rules are written never counts.
        object.__setattr__(self, "order", (*least, *looks, not rule.websocket, -specific, repr(rule)))

    @property
    def exact(self) -> bool:
        """One name, or addresses."""
        return not isinstance(self.host, Pattern) or self.host.exact

    @property
    def limited(self) -> bool:
        """Methods or paths count, so the request must not be taken for another one."""
        return self.methods is not None or self.paths is not None

    def has_port(self, port: int) -> bool:
        """Whether the rule is about this port."""
        return port not in MAIL_PORTS if self.ports is None else port in self.ports

    def refusal(self, request: Request) -> Reason | None:
        """Why the rule does not allow a request to its host; None when it does."""
        if self.methods is not None and request.method not in self.methods:
            return Reason.METHOD_NOT_ALLOWED
        if self.paths is not None:
            target = request.target()
            if target is None:
                return Reason.PATH_NOT_CANONICAL
            if not self.paths.allow(target.segments):
                return Reason.PATH_NOT_ALLOWED
        if request.websocket and not self.rule.websocket:
            return Reason.WEBSOCKET_NOT_ALLOWED
        if self.rule.credentials == "none" and request.has_credentials():
            return Reason.CREDENTIALS_NOT_ALLOWED
        return None


def compile_rule(id: str, rule: AllowRule) -> CompiledRule:
    """Make a stored rule quick to ask.

    Raises:
        BadPattern: It is not in the stored form.
    """
    return CompiledRule(
        id,
        rule,
        stored_host(rule.host),
        _DEFAULT_PORTS if rule.ports is None else frozenset(rule.ports) or None,
        None if rule.methods is None else frozenset(rule.methods),
        None if rule.paths is None else parse_all(rule.paths),
    )


@dataclass(frozen=True, slots=True)
class Binding:
    """A secret on one of its hosts, ready to be asked.

    Attributes:
        slots: In the order written; the default ones when the rule names none.
        methods: None: all but HEAD and `NEVER_CARRY`.
        barred: The layer whose policy does not let the secret be used; empty: none.
        limited: Methods or paths count.
        needs_path: The path is looked at, so its canonical form is what must be sent.
    """

    rule: SecretRule
    slots: tuple[Slot, ...]
    methods: frozenset[str] | None
    paths: Paths | None
    barred: str = ""
    limited: bool = field(init=False)
    needs_path: bool = field(init=False)

    def __post_init__(self) -> None:
        in_path = any(slot.kind is SlotKind.PATH for slot in self.slots)
        object.__setattr__(self, "limited", self.rule.methods is not None or self.paths is not None)
        object.__setattr__(self, "needs_path", self.paths is not None or in_path)

    def may_be_carried(self, request: Request) -> bool:
        """Whether a request of this method and path may carry the secret."""
        if self.barred or request.method in NEVER_CARRY:
            return False
        if self.methods is None:
            if request.method == "HEAD":
                return False
        elif request.method not in self.methods:
            return False
        if self.paths is None:
            return True
        target = request.target()
        return target is not None and self.paths.allow(target.segments)


def compile_binding(rule: SecretRule, barred: str = "") -> Binding:
    """Make a secret's rule quick to ask.

    Raises:
        BadPattern: It is not in the stored form.
    """
    return Binding(
        rule,
        for_rule(rule.slots),
        None if rule.methods is None else frozenset(rule.methods),
        None if rule.paths is None else parse_all(rule.paths),
        barred,
    )


def implicit_rules(layer: str, hosts: Iterable[tuple[str, tuple[str, ...]]]) -> list[CompiledRule]:
    """Rules for the hosts of a policy's secrets, which need not be allowed once more.

    Args:
        hosts: What each rule is called, and the hosts of one secret.
    """
    found: list[CompiledRule] = []
    for id, texts in hosts:
        for text in texts:
            host, port = endpoint(text, stored=True)
            rule = AllowRule(
                host=text, ports=() if port is None else (port,), tls=TlsChoice.AUTO, websocket=True
            )
            ports = None if port is None else frozenset((port,))
            found.append(CompiledRule(f"{layer}.{id}", rule, host, ports, None, None))
    return found
