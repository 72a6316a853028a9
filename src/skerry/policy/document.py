"""A policy as people and programs write it: one schema for TOML, JSON, named policies and what a create asks
for. Pure.

`skerry.policy.reading` decodes and checks a document, `skerry.policy.compiled` makes it quick to ask.
"""

from enum import StrEnum
from typing import Literal

import msgspec


class TlsChoice(StrEnum):
    """What to do with TLS: ``auto`` splices only where nothing has to be looked at."""

    AUTO = "auto"
    SPLICE = "splice"
    INSPECT = "inspect"


class AllowRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One destination that may be reached.

    Attributes:
        host: An exact name, ``*.name`` (at least one label more, never the name itself), an address, or a
            prefix such as ``203.0.113.0/24``.
        ports: Left out: 443. Empty: any TCP port but 25, 465 and 587.
        methods: HTTP methods; left out: any.
        paths: Path patterns such as ``/repos/acme/*/issues`` or ``/v1/**``; left out: any.
        tls: ``inspect``: always. ``auto``: where something has to be looked at, under a wildcard, and on
            servers shared by several customers. ``splice``: only where something has to be looked at.
        websocket: An upgrade to WebSocket is allowed.
        credentials: ``none``: a request with a credential of its own is refused.
        tcp: Protocols other than TLS and HTTP pass as raw bytes.
        max_request_bytes, max_response_bytes: Longest body; left out: no limit.
        requests_per_min: Of the whole sandbox; left out: no limit.
    """

    host: str
    ports: tuple[int, ...] | None = None
    methods: tuple[str, ...] | None = None
    paths: tuple[str, ...] | None = None
    tls: TlsChoice = TlsChoice.AUTO
    websocket: bool = False
    credentials: Literal["any", "none"] = "any"
    tcp: bool = False
    max_request_bytes: int | None = None
    max_response_bytes: int | None = None
    requests_per_min: int | None = None


class DenyRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One destination that may not be reached, whatever any rule allows.

    Attributes:
        host: As in ``allow``; but a wildcard here has the name itself too.
        ports: Left out or empty: all.
    """

    host: str
    ports: tuple[int, ...] | None = None


class SecretBinding(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """Where a secret of a named policy may be used; its value comes with the sandbox or the token's owner.

    A create that sends a secret of this name must not ask for more than this.

    Attributes:
        name: Of the environment variable.
        hosts: Exact names or ``*.name``, each with an optional port.
        slots: Where in a request, such as ``header:x-api-key``; left out: the credential headers.
        methods: HTTP methods; left out: all but CONNECT, HEAD, OPTIONS and TRACE.
        paths: Path patterns; left out: any.
    """

    name: str
    hosts: tuple[str, ...]
    slots: tuple[str, ...] = ()
    methods: tuple[str, ...] | None = None
    paths: tuple[str, ...] | None = None


class PolicyDocument(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """One layer of policy. A sandbox has several; what it may do is what all of them allow.

    Attributes:
        version: Of this schema.
        default: What happens to a destination that no rule names: ``deny``, or ``public``: allowed when it is
            on the public internet.
        allow: Destinations that may be reached; rules add up.
        deny: Destinations that may not, whatever is allowed.
        secrets: What secrets may be sent along with a create; left out: any.
    """

    version: Literal[1] = 1
    default: Literal["deny", "public"] = "deny"
    allow: tuple[AllowRule, ...] = ()
    deny: tuple[DenyRule, ...] = ()
    secrets: tuple[SecretBinding, ...] | None = None


class Budget(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """How much a secret may be used.

    Attributes:
        requests_per_min: Sustained rate. The default is for tools that fetch hundreds of packages, and stops
            a loop that runs away.
        burst: Requests at once above it; None: a quarter of what a minute allows.
        requests: In the sandbox's whole life; None: no limit.
        concurrent: At once; None: no limit.
    """

    requests_per_min: int = 6_000
    burst: int | None = None
    requests: int | None = None
    concurrent: int | None = None

    def at_once(self) -> int:
        """The burst as a number, at least 1."""
        return max(1, self.requests_per_min // 4 if self.burst is None else self.burst)


class SecretRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """How one secret of a sandbox may be used; without its value.

    Attributes:
        name: Of the environment variable.
        hosts: Exact names or ``*.name``, each with an optional port; bound to the secret.
        slots: Where in a request, see `skerry.policy.slots`; empty: the credential headers.
        mode: ``swap``: the placeholder must be there. ``set``: the value is put there whatever the client
            sent.
        methods, paths: Only these requests may carry it; None: all but CONNECT, HEAD, OPTIONS and TRACE.
        scrub: ``on``: answers to requests that carried it are scrubbed; ``always``: all answers of its hosts;
            ``off``: none.
        on_stray: What happens to a request with the placeholder where it is inert (bodies, unbound hosts):
            forwarded as it is, refused, or the sandbox's network is cut.
        foreign_credentials: What happens to other credentials on its hosts.
        expires_at_ms: None: with the sandbox.
        placeholder_prefix: Kept at the front of the placeholder, such as ``sk-`` does in a key.
        allow_short: Values of 8 to 15 characters are accepted.
    """

    name: str
    hosts: tuple[str, ...]
    slots: tuple[str, ...] = ()
    mode: Literal["swap", "set"] = "swap"
    methods: tuple[str, ...] | None = None
    paths: tuple[str, ...] | None = None
    scrub: Literal["on", "always", "off"] = "on"
    on_stray: Literal["forward", "block", "kill"] = "forward"
    foreign_credentials: Literal["refuse", "strip", "allow"] = "refuse"
    expires_at_ms: int | None = None
    budget: Budget = Budget()
    placeholder_prefix: str = ""
    allow_short: bool = False
