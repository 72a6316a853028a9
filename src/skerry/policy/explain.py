"""What would happen to a request, and why (G52): the same decisions, asked ahead. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv6Address
from urllib.parse import SplitResult, urlsplit

from skerry.errors import InvalidRequest
from skerry.policy import owner_actions
from skerry.policy.built_in import Host
from skerry.policy.compiled import Policy
from skerry.policy.names import BadName, BadPattern, host, pattern
from skerry.policy.request_verdict import RequestVerdict
from skerry.policy.verdict import Mode, Reason, Verdict
from skerry.spec.limits import MAX_PORT

_PORTS = {"https": 443, "wss": 443, "http": 80, "ws": 80}
_LONGEST = 8_192


@dataclass(frozen=True, slots=True)
class Explained:
    """The answer; `skerry.protocol.egress_verbs.Explanation` has the same.

    Attributes:
        target: As it was understood.
        mode: None when it is denied.
        slots: Secret and slot, for those secrets that the request may carry.
    """

    allowed: bool
    target: str
    rule: str
    mode: Mode | None
    why: str
    reason: Reason | None = None
    owner_action: str = ""
    slots: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class _Asked:
    host: Host
    port: int
    scheme: str
    path: str

    @property
    def shown(self) -> str:
        name = f"[{self.host}]" if isinstance(self.host, IPv6Address) else str(self.host)
        if not self.scheme:
            return f"{name}:{self.port}"
        port = "" if self.port == _PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{name}{port}{self.path}"


def explain(
    policy: Policy, target: str, method: str = "GET", *, unusable: Mapping[str, Reason] | None = None
) -> Explained:
    """Say what would happen.

    Args:
        target: A URL (``https``, ``http``, ``wss``, ``ws``), ``name:port``, ``address:port`` or a host, which
            means port 443. International names are understood as in rules.
        unusable: Secrets that no request can carry now, and why: revoked, expired, lost.

    Raises:
        InvalidRequest: The target cannot be understood.
    """
    asked = _parse(target)
    verdict = policy.decide(asked.host, asked.port)
    if not verdict.allowed:
        return Explained(
            False, asked.shown, verdict.rule, None, _why_not(verdict), verdict.reason, verdict.owner_action
        )
    plain = asked.scheme in ("http", "ws")
    if plain and verdict.bound:
        return Explained(
            False,
            asked.shown,
            verdict.rule,
            None,
            "a secret is bound to this host, and there is no TLS",
            Reason.PLAINTEXT_TO_BOUND_HOST,
            owner_actions.USE_TLS,
        )
    mode = verdict.mode
    why = "it is not TLS, so requests are read" if plain else verdict.why_mode
    if not asked.scheme or (mode is Mode.SPLICE and not plain):
        return Explained(True, asked.shown, verdict.rule, mode, why)
    return _of_request(policy, asked, method, mode, why, unusable or {})


def _of_request(
    policy: Policy, asked: _Asked, method: str, mode: Mode, why: str, unusable: Mapping[str, Reason]
) -> Explained:
    raw = asked.path.encode("utf-8")
    answer = policy.decide_request(
        asked.host, asked.port, method, raw, (), websocket=asked.scheme in ("ws", "wss")
    )
    if not answer.allowed:
        text = answer.why or "this request is not allowed"
        return Explained(False, asked.shown, answer.rule, None, text, answer.reason, answer.owner_action)
    slots = tuple(
        (binding.rule.name, slot.text)
        for binding in answer.usable
        if binding.rule.name not in unusable
        for slot in binding.slots
    )
    return Explained(True, asked.shown, answer.rule, mode, _with_secrets(why, answer, unusable), slots=slots)


def _with_secrets(why: str, answer: RequestVerdict, unusable: Mapping[str, Reason]) -> str:
    parts = [why]
    for binding in answer.bindings:
        name = binding.rule.name
        if name in unusable:
            parts.append(f"{name} cannot be used: {unusable[name].value}")
        elif binding.barred:
            parts.append(f"{name} cannot be used: {binding.barred} does not allow it")
        elif all(one is not binding for one in answer.usable):
            parts.append(f"{name} is not for this method or path")
    return "; ".join(parts)


def _why_not(verdict: Verdict) -> str:
    reason = "" if verdict.reason is None else verdict.reason.value.replace("_", " ")
    return f"{reason}, by {verdict.rule}"


def _parse(target: str) -> _Asked:
    text = target.strip()
    if not text or len(text) > _LONGEST:
        raise InvalidRequest("target: write a URL, or a host and port such as example.com:443")
    has_scheme = "://" in text
    try:
        parts = urlsplit(text if has_scheme else f"//{text}")
        port = parts.port
    except ValueError:
        raise InvalidRequest("target: not a URL, or its port is not a number") from None
    if has_scheme and parts.scheme not in _PORTS:
        raise InvalidRequest("target: only http, https, ws and wss can be explained")
    if "@" in parts.netloc or not parts.netloc:
        raise InvalidRequest("target: write the host without a user")
    if not has_scheme and (parts.path or parts.query):
        raise InvalidRequest("target: a path needs a scheme before the host, as in https://example.com/v1")
    port = port if port is not None else _PORTS[parts.scheme or "https"]
    if not 1 <= port <= MAX_PORT:
        raise InvalidRequest(f"target: the port must be a number from 1 to {MAX_PORT}")
    return _Asked(_host(parts), port, parts.scheme, _path(parts))


def _host(parts: SplitResult) -> Host:
    name = parts.netloc
    name = name[: name.rindex("]") + 1] if name.startswith("[") and "]" in name else name.partition(":")[0]
    try:
        return host(name) if name.isascii() else pattern(name, public_suffixes=False).name
    except BadPattern as error:
        raise InvalidRequest(f"target: {error.message}") from None
    except BadName as error:
        raise InvalidRequest(f"target: {error}") from None


def _path(parts: SplitResult) -> str:
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
