"""A sandbox's whole policy, quick to ask. Pure; every door (transparent TCP, CONNECT, absolute form, explain)
asks the same methods (G8).

**Layers.** The operator's, then ``policy:<name>``, then the sandbox's own. Something is allowed when every
layer allows it. TLS is treated by the strictest layer, limits are the smallest of all layers.

**Within a layer** a destination or request is allowed when one rule allows it, so a rule more never takes
away what another gives; denials do, whatever is allowed. Nothing depends on the order of rules. ``default:
public`` only has hosts that no rule of its layer names.

**Above all** stand the built-in denials: the gateway's and the host's own addresses, and the ranges of
`skerry.policy.addresses`, unless the operator's ``[[egress.internal]]`` has both the name and the address. To
reach such a network every layer but the operator's must name the host in a rule: ``public`` means public.

**TLS** of a host with a secret is always inspected. Otherwise, in each layer: ``tls: inspect`` of any rule
that matches, or requests that have to be looked at (no matching rule is free of limits), inspect; then the
most specific rules count: ``splice`` splices, ``auto`` splices an address, and an exact name that is not on
the list of shared fronts. Layers with ``default: public`` splice what they do not name.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address

from skerry.policy import owner_actions
from skerry.policy.built_in import BuiltIn, Host, Own, denied
from skerry.policy.document import SecretRule
from skerry.policy.endpoints import endpoint
from skerry.policy.index import HostIndex
from skerry.policy.layers import OPERATOR, CompiledLayer, Layer
from skerry.policy.names import Pattern
from skerry.policy.narrowing import excess_over
from skerry.policy.overrides import overrides
from skerry.policy.paths import check as is_target
from skerry.policy.request_verdict import NO_LIMITS, Limits, RequestVerdict, limits_of
from skerry.policy.rules import MAIL_PORTS, Binding, CompiledRule, Field, Request, compile_binding
from skerry.policy.tls_mode import closest_of, mode_of
from skerry.policy.verdict import Mode, Reason, Verdict
from skerry.spec.limits import MAX_HOST_NAME_BYTES
from skerry.spec.settings import InternalNetwork

__all__ = ["NO_LIMITS", "OPERATOR", "Binding", "Host", "Layer", "Limits", "Own", "Policy", "RequestVerdict"]

_REMEMBERED = 4096
_METHODS = 16


@dataclass(slots=True)
class _Destination:
    """All that is known about one host and port.

    Attributes:
        rules: Of each layer that names the host, its matching rules, the least limiting first.
        free: Rules look at nothing of a request.
        carried: Of a free destination: by method, what may be carried, as long as only methods count.
    """

    verdict: Verdict
    rules: tuple[tuple[CompiledRule, ...], ...] = ()
    bindings: tuple[Binding, ...] = ()
    free: bool = False
    carried: dict[str, tuple[Binding, ...]] = field(default_factory=dict)


class Policy:
    """Immutable. Answers about the same host and port are remembered, in a bounded table.

    Args:
        layers: Outer first, in the stored form (`skerry.policy.reading`, `skerry.policy.deno_fields`).
        secrets: In the stored form; a secret that some layer does not let be used is bound, but never usable.
        internal: The operator's networks.

    Raises:
        BadPattern: Something is not in the stored form.
    """

    __slots__ = ("_built_in", "_layers", "_names", "_secrets", "_seen")

    def __init__(
        self,
        layers: Sequence[Layer],
        secrets: Sequence[SecretRule] = (),
        internal: Sequence[InternalNetwork] = (),
        *,
        own: Own | None = None,
    ) -> None:
        self._layers = tuple(CompiledLayer(one.name, one.document) for one in layers)
        self._built_in = BuiltIn(own or Own(), internal)
        self._secrets: HostIndex[tuple[int | None, Binding]] = HostIndex()
        self._names: list[Pattern] = []
        for rule in secrets:
            self._add_secret(rule, layers)
        self._seen: dict[tuple[Host, int], _Destination] = {}

    def decide(self, host: Host, port: int) -> Verdict:
        """Whether a connection may be made, and how its bytes are treated.

        Args:
            host: A name (canonical; anything else is denied), or an address that was dialled as such. Where a
                client dials an address but its TLS hello or request names a host, that name must be asked
                about too.
        """
        return self._look(host, port).verdict

    def bound(self, host: Host, port: int) -> tuple[SecretRule, ...]:
        """The secrets that are bound to a host."""
        return tuple(one.rule for one in self._look(host, port).bindings)

    def may_dial(
        self, host: Host, address: IPv4Address | IPv6Address, port: int | None = None
    ) -> Reason | None:
        """Whether an address that a host resolved to may be dialled; None: it may.

        The connection itself was allowed by `decide`. Must be asked about the very address that is then
        connected to (R10).

        Args:
            port: None: the strictest answer of all ports but that of own listeners.
        """
        for layer in self._layers:
            if any(one.has_port(port) for one in layer.deny.of_address(address)):
                return Reason.HOST_DENIED
        reason = self._built_in.refusal(host, address, port)
        if reason is None and self._built_in.is_ordinary(address):
            return None
        return reason if reason is not None or self._is_named(host, port) else Reason.PRIVATE_ADDRESS

    def name_allowed(self, name: str) -> bool:
        """Whether some port of a name may be reached; for DNS."""
        ports = {443}
        for layer in self._layers:
            for rule in layer.allow.of_name(name):
                ports.update(rule.ports or ())
            for deny in layer.deny.of_name(name, any_length=True):
                # Where any port is allowed but some are denied, one beside them is open.
                ports.update(port + 1 for port in deny.rule.ports or () if port < 65_535)
        return any(self._look(name, port).verdict.allowed for port in ports)

    def decide_request(
        self,
        host: Host,
        port: int,
        method: str,
        raw_target: bytes,
        fields: Sequence[Field],
        websocket: bool = False,
    ) -> RequestVerdict:
        """Whether an HTTP request may be sent to a host that the connection was allowed to.

        Args:
            method: As it came; methods have case.
            raw_target: Origin form or ``*``.
            fields: As received.
            websocket: It asks for an upgrade to WebSocket.
        """
        found = self._look(host, port)
        verdict = found.verdict
        if not verdict.allowed:
            return RequestVerdict(False, verdict.rule, b"", verdict.reason, verdict.owner_action)
        if not is_target(raw_target):
            return RequestVerdict(
                False,
                verdict.rule,
                b"",
                Reason.PATH_NOT_CANONICAL,
                owner_actions.BAD_TARGET,
                why="not a target",
            )
        if method == "CONNECT":
            return RequestVerdict(
                False, verdict.rule, b"", Reason.METHOD_NOT_ALLOWED, owner_actions.NO_TUNNEL
            )
        if found.free:
            usable = () if not found.bindings else found.carried.get(method)
            if usable is not None:
                return RequestVerdict(
                    True, verdict.rule, raw_target, None, "", NO_LIMITS, found.bindings, usable
                )
        return _judge(found, Request(method, raw_target, fields, websocket))

    def needs_inspection(self) -> bool:
        """Whether any TLS may have to be inspected, so that a certificate authority is needed.

        Also true when there are only exact names that are spliced: a hello with ECH is inspected (R16).
        """
        return bool(self._names) or any(
            not layer.allow.patterns_are_exact() or layer.allow.names() for layer in self._layers
        )

    def inspectable_names(self) -> list[str] | None:
        """All names whose TLS may be inspected, sorted; None: wildcards do not let them be listed."""
        for layer in self._layers:
            if not layer.public and layer.allow.patterns_are_exact():
                return sorted(layer.allow.names())
        names = {one.name for one in self._names}
        if not all(one.exact for one in self._names):
            return None
        for layer in self._layers:
            if not layer.allow.patterns_are_exact():
                return None
            names.update(layer.allow.names())
        return sorted(names)

    def _add_secret(self, rule: SecretRule, layers: Sequence[Layer]) -> None:
        barred = next(
            (one.name for one in layers if excess_over(rule, one.document.secrets)),
            "",
        )
        binding = compile_binding(rule, barred)
        for text in rule.hosts:
            host, port = endpoint(text, stored=True)
            self._secrets.add(host, (port, binding))
            if isinstance(host, Pattern):
                self._names.append(host)

    def _look(self, host: Host, port: int) -> _Destination:
        if isinstance(host, str) and len(host) > MAX_HOST_NAME_BYTES:
            return _Destination(denied("builtin.name", Reason.BAD_HOST_NAME, owner_actions.BAD_NAME))
        key = (host, port)
        found = self._seen.get(key)
        if found is None:
            if len(self._seen) >= _REMEMBERED:
                self._seen.clear()
            found = self._seen[key] = self._examine(host, port)
        return found

    def _examine(self, host: Host, port: int) -> _Destination:
        denial = self._built_in.denial(host, port) or self._denial(host, port)
        if denial is not None:
            return _Destination(denial)
        bindings = self._bindings(host, port)
        matched: list[tuple[CompiledRule, ...]] = []
        rule_id, mode, why, tcp, exact = "", Mode.SPLICE, "nothing has to be looked at", True, True
        for layer in self._layers:
            named = layer.allow.of(host)
            rules = tuple(sorted((one for one in named if one.has_port(port)), key=lambda one: one.order))
            if not rules:
                if named or not self._covered_by_default(layer, host, port):
                    return _Destination(_not_allowed(layer, host, port, named=bool(named)))
                rule_id = f"{layer.name}.default"
                continue
            matched.append(rules)
            rule_id = closest_of(rules).id
            if mode is Mode.SPLICE:
                mode, why = mode_of(rules, host)
            tcp = tcp and any(one.plain and one.rule.tcp for one in rules)
            exact = exact and closest_of(rules).exact
        if bindings:
            mode, why = Mode.INSPECT, f"the secret {bindings[0].rule.name} is bound to this host"
        verdict = Verdict(
            allowed=True,
            rule=rule_id,
            mode=mode,
            why_mode=why,
            bound=bool(bindings),
            tcp=tcp and not bindings,
            exact=exact,
            inspect_ech=mode is Mode.SPLICE and bool(matched),
        )
        free = all(one[0].plain and one[0].rule.websocket for one in matched)
        return _Destination(verdict, tuple(matched), bindings, free)

    def _denial(self, host: Host, port: int) -> Verdict | None:
        for layer in self._layers:
            for deny in layer.deny.of(host, any_length=True):
                if deny.has_port(port):
                    return denied(deny.id, Reason.HOST_DENIED, owner_actions.denied_by(layer.name))
        return None

    def _covered_by_default(self, layer: CompiledLayer, host: Host, port: int) -> bool:
        """Whether a layer that does not name a host allows it all the same.

        The operator's default leaves it to the inner layers to name ports of mail and internal networks.
        """
        if not layer.public or layer.name == OPERATOR:
            return layer.public
        return port not in MAIL_PORTS and (isinstance(host, str) or self._built_in.is_ordinary(host))

    def _bindings(self, host: Host, port: int) -> tuple[Binding, ...]:
        if not isinstance(host, str):
            return ()
        found: dict[str, Binding] = {}
        for wanted, binding in self._secrets.of_name(host, any_length=True):
            if wanted in (None, port):
                found.setdefault(binding.rule.name, binding)
        return tuple(found[name] for name in sorted(found))

    def _is_named(self, host: Host, port: int | None) -> bool:
        """Whether every layer but the operator's names a host in a rule."""
        return all(
            any(port is None or one.has_port(port) for one in layer.allow.of(host))
            for layer in self._layers
            if layer.name != OPERATOR
        )


def _judge(found: _Destination, request: Request) -> RequestVerdict:
    """Look at a request."""
    rule_id = found.verdict.rule
    chosen: list[CompiledRule] = []
    limited = canonical = False
    for rules in found.rules:
        fitting, refusal = _fitting(rules, request)
        if fitting is None:
            return _refused(rules, request, refusal, found)
        chosen.append(fitting)
        limited = limited or fitting.limited
        canonical = canonical or fitting.paths is not None
    if chosen and not rule_id.endswith(".default"):
        rule_id = chosen[-1].id
    usable, only_methods = [], True
    for one in found.bindings:
        only_methods = only_methods and not one.limited and not one.needs_path
        if one.may_be_carried(request):
            usable.append(one)
            limited = limited or one.limited
            canonical = canonical or one.needs_path
    if limited and overrides(request.fields, request.query):
        return RequestVerdict(
            False, rule_id, b"", Reason.OVERRIDE_HEADER, owner_actions.OVERRIDE, bindings=found.bindings
        )
    target = request.target() if canonical else None
    sent = request.raw_target if target is None else target.encoded
    carried = tuple(usable)
    if found.free and only_methods and len(found.carried) < _METHODS:
        found.carried[request.method] = carried
    return RequestVerdict(True, rule_id, sent, None, "", limits_of(chosen), found.bindings, carried)


def _fitting(rules: Sequence[CompiledRule], request: Request) -> tuple[CompiledRule | None, Reason]:
    """The first rule that allows a request, or why the one that came closest does not."""
    worst = Reason.METHOD_NOT_ALLOWED
    for one in rules:
        refusal = one.refusal(request)
        if refusal is None:
            return one, worst
        if _STAGES.index(refusal) > _STAGES.index(worst):
            worst = refusal
    return None, worst


_STAGES = (
    Reason.METHOD_NOT_ALLOWED,
    Reason.PATH_NOT_ALLOWED,
    Reason.PATH_NOT_CANONICAL,
    Reason.WEBSOCKET_NOT_ALLOWED,
    Reason.CREDENTIALS_NOT_ALLOWED,
)


def _refused(
    rules: Sequence[CompiledRule], request: Request, reason: Reason, found: _Destination
) -> RequestVerdict:
    closest = closest_of(rules)
    return RequestVerdict(
        False,
        closest.id,
        b"",
        reason,
        owner_actions.request_refused(reason, closest),
        bindings=found.bindings,
        why=request.why_not if reason is Reason.PATH_NOT_CANONICAL else "",
    )


def _not_allowed(layer: CompiledLayer, host: Host, port: int, *, named: bool) -> Verdict:
    if named or (layer.public and port in MAIL_PORTS):
        reason = Reason.PORT_NOT_ALLOWED
    elif isinstance(host, str):
        reason = Reason.HOST_NOT_ALLOWED
    else:
        reason = Reason.ADDRESS_NOT_ALLOWED
    return denied(f"{layer.name}.default", reason, owner_actions.not_allowed(layer.name, host, port))
