"""Deno's own fields, `allow_net` and `secrets`, become the sandbox's own layer and the rules of its secrets.
Pure. All problems are found at once. No text repeats a secret's value.

* `allow_net` absent: the public internet. ``[]``: nothing. A list: those hosts; without a port any TCP port
  but 25, 465 and 587; WebSocket, and protocols other than TLS and HTTP, pass.
* A secret's hosts are allowed implicitly, on the port that is given, else on any; never as raw TCP.
* Besides ``hosts`` and ``value`` a secret may have the members of `SecretExtras`.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

from skerry.policy import checking, endpoints, placeholder_prefixes, set_secrets, shapes
from skerry.policy.document import AllowRule, Budget, PolicyDocument, SecretRule, TlsChoice
from skerry.policy.names import BadPattern, Pattern
from skerry.policy.slots import SlotKind
from skerry.policy.slots import parse as parse_slot
from skerry.policy.values import problem_of_text
from skerry.spec.limits import MAX_ALLOW_NET, MAX_LIFETIME_S

MAX_SECRETS = 64

_BEARER = ("header:authorization=Bearer {}",)


class SecretExtras(msgspec.Struct, frozen=True, kw_only=True):
    """A secret as a create has it.

    Attributes:
        expires: Seconds from now; or text such as ``90s``, ``30m``, ``2h``, ``7d``; or a time such as
            ``2027-01-31T12:00:00Z``.
        value: Any: it is looked at elsewhere, so that no text can repeat it.
    """

    hosts: tuple[str, ...]
    value: Any
    slots: tuple[str, ...] = ()
    mode: Literal["swap", "set"] = "swap"
    methods: tuple[str, ...] | None = None
    paths: tuple[str, ...] | None = None
    scrub: Literal["on", "always", "off"] = "on"
    on_stray: Literal["forward", "block", "kill"] = "forward"
    foreign_credentials: Literal["refuse", "strip", "allow"] = "refuse"
    expires: int | str | None = None
    budget: Budget = Budget()
    placeholder_prefix: str = ""
    allow_short: bool = False

    def __repr__(self) -> str:
        return "SecretExtras(…)"


@dataclass(frozen=True, slots=True)
class SandboxFields:
    """What the fields mean.

    Attributes:
        layer: To be named ``sandbox``.
        values: By name of the secret, the bytes to be sent.
        problems: Each begins with the field's name. When there is one, nothing else may be used.
        warnings: Lines for who wrote it.
    """

    layer: PolicyDocument
    secrets: tuple[SecretRule, ...] = ()
    values: dict[str, bytes] = field(default_factory=dict, repr=False)
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def sandbox_layer(
    allow_net: list[str] | None, secrets: dict[str, Any] | None, *, now_ms: int
) -> SandboxFields:
    """Read both fields.

    Args:
        secrets: As decoded from JSON, by name.
        now_ms: Milliseconds since 1970, for `SecretExtras.expires`.
    """
    problems: list[str] = []
    warnings: list[str] = []
    allowed = _allowed(allow_net, problems, warnings)
    rules: list[SecretRule] = []
    values: dict[str, bytes] = {}
    given = secrets or {}
    if allow_net == [] and given:
        problems.append(
            "allow_net: [] allows no connection at all, so the secrets could never be sent; leave allow_net"
            " out, or list hosts"
        )
    if len(given) > MAX_SECRETS:
        problems.append(f"secrets: {len(given)} were given, at most {MAX_SECRETS} are allowed")
        given = {}
    for name, raw in given.items():
        found = _secret(name, raw, now_ms, problems)
        if found is not None:
            rules.append(found)
            values[name] = raw["value"].encode("utf-8", "replace")
    problems += set_secrets.conflicts(rules)
    public = allow_net is None
    layer = PolicyDocument(
        default="public" if public else "deny", allow=(*allowed, *_implicit(rules, public=public))
    )
    return SandboxFields(layer, tuple(rules), values, tuple(problems), tuple(warnings))


def problem_of_pattern(pattern: str) -> str | None:
    """What is wrong with an entry of `allow_net`, in words; None when it is good."""
    try:
        endpoints.endpoint(pattern)
    except BadPattern as error:
        return error.message
    return None


def allow_rule(entry: str) -> AllowRule:
    """The rule that an entry of `allow_net` is.

    Raises:
        BadPattern: With what is wrong with it.
    """
    host, port = endpoints.endpoint(entry)
    return _rule(host, port, tcp=True)


def _rule(
    host: Pattern | endpoints.Network, port: int | None, *, tcp: bool, tls: TlsChoice = TlsChoice.AUTO
) -> AllowRule:
    ports = () if port is None else (port,)
    return AllowRule(host=endpoints.text_of(host), ports=ports, websocket=True, tcp=tcp, tls=tls)


def _allowed(allow_net: list[str] | None, problems: list[str], warnings: list[str]) -> list[AllowRule]:
    if allow_net is None:
        return []
    if len(allow_net) > MAX_ALLOW_NET:
        problems.append(
            f"allow_net: {len(allow_net)} patterns were given, at most {MAX_ALLOW_NET} are allowed"
        )
        return []
    rules: list[AllowRule] = []
    for host, port in shapes.each(allow_net, endpoints.endpoint, "allow_net", problems):
        rules.append(_rule(host, port, tcp=True))
        if isinstance(host, Pattern):
            warnings += [f"allow_net: {one}" for one in host.warnings]
    return rules


def _implicit(rules: list[SecretRule], *, public: bool) -> list[AllowRule]:
    """Rules for the hosts of secrets.

    On the public internet all ports stay open whatever port the secret is bound to, and what is not bound is
    spliced there as everything else; so the rule names no port, and asks for splicing, which never counts on
    a bound host.
    """
    found: list[AllowRule] = []
    for rule in rules:
        for text in rule.hosts:
            host, port = endpoints.endpoint(text, stored=True)
            if public:
                found.append(_rule(host, None, tcp=True, tls=TlsChoice.SPLICE))
            else:
                found.append(_rule(host, port, tcp=False))
    return list(dict.fromkeys(found))


def _secret(name: str, raw: Any, now_ms: int, problems: list[str]) -> SecretRule | None:
    where = f"secrets.{shapes.shown(name)}"
    count = len(problems)
    if (wrong := checking.name_of_secret(name)) is not None:
        problems.append(f"{where}: {wrong}")
    good = shapes.members(raw, SecretExtras, where, problems)
    if good is None:
        return None
    asked = SecretExtras(**good)
    _check_value(asked, where, problems)
    rule = SecretRule(
        name=name,
        hosts=checking.secret_hosts(asked.hosts, where, problems),
        slots=checking.slot_texts(asked.slots, where, problems),
        mode=asked.mode,
        methods=checking.methods(asked.methods, where, problems, of_secret=True),
        paths=checking.path_patterns(asked.paths, where, problems),
        scrub=asked.scrub,
        on_stray=asked.on_stray,
        foreign_credentials=asked.foreign_credentials,
        expires_at_ms=_expires_at_ms(asked.expires, now_ms, where, problems),
        budget=_budget(asked.budget, where, problems),
        placeholder_prefix=asked.placeholder_prefix,
        allow_short=asked.allow_short,
    )
    if (wrong := placeholder_prefixes.problem_of(asked.placeholder_prefix)) is not None:
        problems.append(f"{where}.placeholder_prefix: {wrong}")
    if len(problems) == count and rule.mode == "set":
        rule = _with_slots_to_set(rule, where, problems)
    return rule if len(problems) == count else None


def _check_value(asked: SecretExtras, where: str, problems: list[str]) -> None:
    if not isinstance(asked.value, str):
        problems.append(f"{where}.value: expected text")
    elif (wrong := problem_of_text(asked.value, allow_short=asked.allow_short)) is not None:
        problems.append(f"{where}.value: {wrong}")


def _with_slots_to_set(rule: SecretRule, where: str, problems: list[str]) -> SecretRule:
    """The rule of a secret that is put into requests; without slots it is a bearer token.

    A value cannot be put into all credential headers at once, nor twice into one.
    """
    slots = [parse_slot(one) for one in rule.slots or _BEARER]
    if any(one.field == b"authorization" and one.kind is SlotKind.HEADER and not one.around for one in slots):
        problems.append(
            f'{where}.slots: with "set" say what stands before it, as in header:authorization=Bearer {{}}'
        )
    places = [set_secrets.place(one) for one in slots]
    if len(set(places)) < len(places):
        problems.append(f'{where}.slots: with "set" name each header, parameter and path once')
    return msgspec.structs.replace(rule, slots=tuple(one.text for one in slots))


def _budget(budget: Budget, where: str, problems: list[str]) -> Budget:
    for key in ("requests_per_min", "burst", "requests", "concurrent"):
        number = getattr(budget, key)
        if number is not None and not 1 <= number <= 1_000_000_000:
            problems.append(f"{where}.budget.{key}: expected a number from 1 to 1000000000")
    return budget


_UNITS_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


def _expires_at_ms(expires: int | str | None, now_ms: int, where: str, problems: list[str]) -> int | None:
    if expires is None:
        return None
    at_ms = now_ms + expires * 1000 if isinstance(expires, int) else _time_ms(expires, now_ms)
    if at_ms is None:
        problems.append(
            f"{where}.expires: write seconds from now, or text such as 90s, 30m, 2h or 7d, or a time such as"
            " 2027-01-31T12:00:00Z"
        )
    elif at_ms <= now_ms:
        problems.append(f"{where}.expires: this is in the past")
    elif at_ms > now_ms + MAX_LIFETIME_S * 1000:
        problems.append(f"{where}.expires: this is more than ten years ahead; expected seconds from now")
    return at_ms


def _time_ms(text: str, now_ms: int) -> int | None:
    number, unit = text[:-1], text[-1:]
    if unit in _UNITS_MS and number.isascii() and number.isdigit() and len(number) <= 10:
        return now_ms + int(number) * _UNITS_MS[unit]
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        return None
    return int((moment - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * 1000)
