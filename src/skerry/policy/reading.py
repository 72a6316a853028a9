"""Read a policy document: TOML or JSON in, the stored form out, or all its problems at once. Pure.

The stored form has host names as A-labels, methods in upper case, slots in one spelling. Only documents that
went through here may be compiled; a worker compiles them without looking at them again.
"""

import json
import re
import tomllib
from typing import Any, Literal

import msgspec

from skerry.errors import InvalidRequest
from skerry.policy import checking, endpoints, shapes
from skerry.policy.document import AllowRule, DenyRule, PolicyDocument, SecretBinding, TlsChoice
from skerry.spec.limits import MAX_LISTED_PROBLEMS

MAX_DOCUMENT_BYTES = 262_144
MAX_RULES = 1_000
MAX_SECRETS = 200

_LIMITS = ("max_request_bytes", "max_response_bytes", "requests_per_min")
_LARGEST = 1 << 53


class BadDocument(InvalidRequest):
    """What is wrong with a document.

    Args:
        problems: Each begins with the member's name.
    """

    code = "INVALID_POLICY"

    def __init__(self, problems: list[str]) -> None:
        rest = len(problems) - MAX_LISTED_PROBLEMS
        text = "; ".join(problems[:MAX_LISTED_PROBLEMS])
        super().__init__(text + (f"; and {rest} more problems" if rest > 0 else ""))
        self.problems = tuple(problems)


def read_document(data: bytes, *, kind: Literal["toml", "json"]) -> PolicyDocument:
    """Decode and check a document.

    Raises:
        BadDocument: With all problems that were found.
    """
    if len(data) > MAX_DOCUMENT_BYTES:
        raise BadDocument([f"the document has {len(data)} bytes, at most {MAX_DOCUMENT_BYTES} are allowed"])
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise BadDocument(["the document is not UTF-8"]) from None
    return check_document(_from_toml(text) if kind == "toml" else _from_json(text))


def check_document(raw: Any) -> PolicyDocument:
    """Check a document that is decoded already.

    Raises:
        BadDocument: With all problems that were found.
    """
    problems: list[str] = []
    top = _top(raw, problems)
    allow = [_allow(one, f"allow[{at}]", problems) for at, one in enumerate(top["allow"])]
    deny = [_deny(one, f"deny[{at}]", problems) for at, one in enumerate(top["deny"])]
    secrets = top["secrets"]
    bound = [_secret(one, f"secrets[{at}]", problems) for at, one in enumerate(secrets or ())]
    names = [one.name for one in bound if one is not None]
    problems += [f"secrets: {name} is there twice" for name in sorted(set(names)) if names.count(name) > 1]
    if problems:
        raise BadDocument(problems)
    return PolicyDocument(
        default=top["default"],
        allow=tuple(one for one in allow if one is not None),
        deny=tuple(one for one in deny if one is not None),
        secrets=None if secrets is None else tuple(one for one in bound if one is not None),
    )


def schema() -> dict[str, Any]:
    """The JSON Schema of a document (2020-12)."""
    made = msgspec.json.schema(PolicyDocument)
    for shape in made["$defs"].values():
        _describe(shape)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Skerry outbound policy, version 1",
        **made,
    }


_ATTRIBUTE = re.compile(r"^ {8}(\w[\w, ]*): ", re.MULTILINE)


def _describe(shape: dict[str, Any]) -> None:
    """Move what a type's text says about its members to these members."""
    text, _, attributes = shape.get("description", "").partition("Attributes:\n")
    shape["description"] = _in_one_line(text)
    parts = _ATTRIBUTE.split(attributes)[1:]
    for names, said in zip(parts[::2], parts[1::2], strict=True):
        for name in names.split(", "):
            if name in shape.get("properties", {}):
                shape["properties"][name]["description"] = _in_one_line(said)


def _in_one_line(text: str) -> str:
    return " ".join(text.split()).replace("``", "`")


class _Top(msgspec.Struct, frozen=True, kw_only=True):
    """The document's own members, before its rules are looked at one by one."""

    version: Literal[1] = 1
    default: Literal["deny", "public"] = "deny"
    allow: list[Any] = []
    deny: list[Any] = []
    secrets: list[Any] | None = None


def _top(raw: Any, problems: list[str]) -> dict[str, Any]:
    good = shapes.members(raw, _Top, "", problems) or {}
    top: dict[str, Any] = {"default": "deny", "allow": [], "deny": [], "secrets": None, **good}
    for key, most in (("allow", MAX_RULES), ("deny", MAX_RULES), ("secrets", MAX_SECRETS)):
        if len(top[key] or ()) > most:
            problems.append(f"{key}: {len(top[key])} were given, at most {most} are allowed")
            top[key] = []
    return top


def _allow(raw: Any, where: str, problems: list[str]) -> AllowRule | None:
    count = len(problems)
    good = shapes.members(raw, AllowRule, where, problems)
    if good is None:
        return None
    rule = AllowRule(**good)
    host = checking.rule_host(rule.host, where, problems)
    changed = msgspec.structs.replace(
        rule,
        host=host or rule.host,
        ports=checking.ports(rule.ports, where, problems),
        methods=checking.methods(rule.methods, where, problems),
        paths=checking.path_patterns(rule.paths, where, problems),
    )
    for key in _LIMITS:
        limit = getattr(rule, key)
        if limit is not None and not 1 <= limit <= _LARGEST:
            problems.append(f"{shapes.inside(where, key)}: expected a number of at least 1")
    if len(problems) == count:
        _check_together(changed, where, problems)
    return changed if len(problems) == count else None


def _check_together(rule: AllowRule, where: str, problems: list[str]) -> None:
    """Members that contradict each other."""
    looks = [key for key in ("methods", "paths", *_LIMITS) if getattr(rule, key) is not None] + (
        ["credentials"] if rule.credentials == "none" else []
    )
    if rule.tls is TlsChoice.SPLICE and looks:
        problems.append(f"{where}.tls: what is spliced cannot be looked at, so leave out {', '.join(looks)}")
    if rule.tcp and looks:
        problems.append(f"{where}.tcp: raw bytes cannot be looked at, so leave out {', '.join(looks)}")
    if endpoints.literal(rule.host) is None and "/" not in rule.host:
        return
    if looks or rule.tls is TlsChoice.INSPECT:
        problems.append(
            f"{where}.host: TLS to an address is never inspected, so leave out"
            f" {', '.join([*looks, *(['tls'] if rule.tls is TlsChoice.INSPECT else [])])}, or write a name"
        )


def _deny(raw: Any, where: str, problems: list[str]) -> DenyRule | None:
    count = len(problems)
    good = shapes.members(raw, DenyRule, where, problems)
    if good is None:
        return None
    rule = DenyRule(**good)
    host = checking.rule_host(rule.host, where, problems, public_suffixes=False)
    ports = checking.ports(rule.ports, where, problems)
    return DenyRule(host=host or "", ports=ports) if len(problems) == count else None


def _secret(raw: Any, where: str, problems: list[str]) -> SecretBinding | None:
    count = len(problems)
    good = shapes.members(raw, SecretBinding, where, problems)
    if good is None:
        return None
    rule = SecretBinding(**good)
    if (wrong := checking.name_of_secret(rule.name)) is not None:
        problems.append(f"{where}.name: {wrong}")
    changed = SecretBinding(
        name=rule.name,
        hosts=checking.secret_hosts(rule.hosts, where, problems),
        slots=checking.slot_texts(rule.slots, where, problems),
        methods=checking.methods(rule.methods, where, problems, of_secret=True),
        paths=checking.path_patterns(rule.paths, where, problems),
    )
    return changed if len(problems) == count else None


def _from_toml(text: str) -> Any:
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise BadDocument([f"the document is not TOML: {shapes.shown(error)}"]) from None


class _Twice(ValueError):
    pass


def _from_json(text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_without_repetitions, parse_constant=_refuse)
    except _Twice as error:
        raise BadDocument([str(error)]) from None
    except (ValueError, RecursionError) as error:
        raise BadDocument([f"the document is not JSON: {shapes.shown(error)}"]) from None


def _without_repetitions(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A key that is there twice means different things to different readers."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise _Twice(f"{shapes.shown(key)}: this key is there twice in one object")
        found[key] = value
    return found


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")
