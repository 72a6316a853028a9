"""What the owner of a sandbox can do about a denial. Pure.

Texts hold canonical host names and the names of rules and secrets, never anything else that came from the
sandbox.
"""

from ipaddress import IPv4Address, IPv6Address

from skerry.policy.rules import CompiledRule
from skerry.policy.verdict import Reason

BAD_NAME = (
    "Use a host name of ASCII letters, digits and hyphens (the xn-- form of an international name), without a"
    " dot at its end."
)
SELF = "Nothing: sandboxes cannot reach the server that runs them."
PRIVATE = (
    "Only the server's operator can open networks that are not on the internet, under [[egress.internal]]."
)
BAD_TARGET = "Send a path that starts with a slash, without white space and without a fragment."
USE_TLS = "Use https: a secret is bound to this host, and secrets are never sent without TLS."
NO_TUNNEL = "Nothing: a tunnel inside a connection is never made."
OVERRIDE = (
    "Send the request without headers and parameters that ask for another method, path or host; the rule for"
    " this host limits methods or paths."
)


def denied_by(layer: str) -> str:
    """A denial rule has the host."""
    return f"{_whose(layer)} denies this host; no other rule can allow it."


def not_allowed(layer: str, host: str | IPv4Address | IPv6Address, port: int) -> str:
    """No rule of a layer has the host and port."""
    shown = f"[{host}]" if isinstance(host, IPv6Address) else str(host)
    entry = shown if port == 443 else f"{shown}:{port}"
    if layer == "sandbox":
        return f'Allow it with `skerry policy allow ID {entry}`, or create with "{entry}" in allow_net.'
    return f'{_whose(layer)} does not allow "{entry}"; only who may change that policy can.'


def request_refused(reason: Reason, rule: CompiledRule) -> str:
    """A rule has the host, but not this request."""
    match reason:
        case Reason.METHOD_NOT_ALLOWED:
            return f"Add the method to `methods` of {rule.id}."
        case Reason.PATH_NOT_ALLOWED:
            return f"Add the path to `paths` of {rule.id}."
        case Reason.PATH_NOT_CANONICAL:
            return f"Send the path in its plain form: {rule.id} limits paths, and no other spelling passes."
        case Reason.WEBSOCKET_NOT_ALLOWED:
            return f"Set `websocket = true` in {rule.id}."
        case _:
            return f'Send no credentials, or set `credentials = "any"` in {rule.id}.'


def placeholder_outside_slot(secret: str, slots: tuple[str, ...], found: str) -> str:
    """The line to add when a placeholder stands where its secret may not be.

    Args:
        slots: Those that the secret has, as written; empty: the default ones.
        found: The slot where the placeholder is, such as ``header:x-token``.
    """
    kept = slots or ("header:authorization",)
    line = ", ".join(f'"{one}"' for one in (found, *(one for one in kept if one != found)))
    return f'add "slots": [{line}] to secret {secret}'


def _whose(layer: str) -> str:
    if layer == "operator":
        return "The server operator's policy"
    if layer == "sandbox":
        return "The sandbox's own policy"
    return f'The policy "{layer.removeprefix("policy:")}"'
