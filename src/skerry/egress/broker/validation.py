"""Bounds of what api may ask: it is checked again here, since api may have been taken over.

What rules mean, and whether they make sense, is checked where they are compiled.
"""

import re
from collections.abc import Sequence

from skerry.errors import InvalidRequest
from skerry.policy.values import problem_of_value
from skerry.protocol.egress_verbs import Grant, NamedLayer, ReadAudit, SecretGrant
from skerry.spec.ids import SandboxId, parse_sandbox_id

MAX_LAYERS = 8
MAX_RULES = 2_000
MAX_SECRETS = 64
MAX_READ_LINES = 1_000
MAX_WAIT_MS = 30_000
MAX_TARGET_CHARACTERS = 8_192

_SECRET_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}", re.ASCII)
_PLACEHOLDER = re.compile(r"[!-~]{40,512}", re.ASCII)
_LAYER_NAME = re.compile(r"sandbox|policy:[a-z0-9][a-z0-9._-]{0,127}", re.ASCII)
_METHOD = re.compile(r"[A-Z]{1,32}", re.ASCII)


def checked_id(sandbox_id: SandboxId) -> SandboxId:
    """A sandbox's ID.

    Raises:
        InvalidRequest: It is none.
    """
    return parse_sandbox_id(sandbox_id)


def check_grant(grant: Grant) -> None:
    """Check the bounds of a grant.

    Raises:
        InvalidRequest: It breaks one.
    """
    checked_id(grant.sandbox_id)
    check_layers(grant.layers)
    if len(grant.secrets) > MAX_SECRETS:
        raise InvalidRequest(f"{len(grant.secrets)} secrets, of at most {MAX_SECRETS}")
    names = [secret.rule.name for secret in grant.secrets]
    if len(set(names)) != len(names):
        raise InvalidRequest("two secrets have the same name")
    placeholders = [one.placeholder for one in grant.secrets if one.placeholder is not None]
    if any(a in b for i, a in enumerate(placeholders) for j, b in enumerate(placeholders) if i != j):
        raise InvalidRequest("one placeholder is part of another")
    for secret in grant.secrets:
        _check_secret(secret)


def check_layers(layers: Sequence[NamedLayer]) -> None:
    """Check the bounds of layers.

    Raises:
        InvalidRequest: They break one.
    """
    names = [layer.name for layer in layers]
    if not names or len(names) > MAX_LAYERS or len(set(names)) != len(names) or names[-1] != "sandbox":
        raise InvalidRequest(f"1 to {MAX_LAYERS} layers of different names are needed, the last one sandbox")
    if not all(_LAYER_NAME.fullmatch(name) for name in names):
        raise InvalidRequest("a layer is called sandbox or policy:<name>")
    for layer in layers:
        document = layer.document
        rules = len(document.allow) + len(document.deny) + len(document.secrets or ())
        if rules > MAX_RULES:
            raise InvalidRequest(f"layer {layer.name} has {rules} rules, of at most {MAX_RULES}")


def check_value(value: bytes, *, allow_short: bool) -> None:
    """Check a secret's value; the message never holds any of it.

    Raises:
        InvalidRequest: It cannot be a secret.
    """
    problem = problem_of_value(value, allow_short=allow_short)
    if problem is not None:
        raise InvalidRequest(f"a secret cannot be used: {problem}")


def check_read(verb: ReadAudit) -> None:
    """Check how much of a trail is asked for.

    Raises:
        InvalidRequest: It is out of bounds.
    """
    checked_id(verb.sandbox_id)
    if not 1 <= verb.limit <= MAX_READ_LINES or not 0 <= verb.wait_ms <= MAX_WAIT_MS or verb.after < 0:
        raise InvalidRequest(
            f"at most {MAX_READ_LINES} lines at once, and at most {MAX_WAIT_MS} ms of waiting for one"
        )


def check_question(target: str, method: str) -> None:
    """Check what `Explain` is asked.

    Raises:
        InvalidRequest: It is out of bounds.
    """
    if len(target) > MAX_TARGET_CHARACTERS:
        raise InvalidRequest(f"a URL of more than {MAX_TARGET_CHARACTERS} characters")
    if not _METHOD.fullmatch(method):
        raise InvalidRequest("a method consists of upper-case letters")


def _check_secret(secret: SecretGrant) -> None:
    if not _SECRET_NAME.fullmatch(secret.rule.name):
        raise InvalidRequest("a secret's name is that of an environment variable")
    if secret.placeholder is not None and not _PLACEHOLDER.fullmatch(secret.placeholder):
        raise InvalidRequest("a placeholder consists of 40 to 512 printable characters")
    if secret.value is not None:
        check_value(secret.value, allow_short=secret.rule.allow_short)
