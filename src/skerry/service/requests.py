"""What can be asked of Skerry and what it answers, free of any wire protocol."""

from collections.abc import Mapping
from typing import Any

import msgspec

from skerry.control.pool import PoolView
from skerry.policy.document import AllowRule, PolicyDocument
from skerry.protocol.egress_verbs import EgressDescription
from skerry.protocol.host_verbs import HostDescription
from skerry.spec.ids import OwnerId, SandboxId, TokenId
from skerry.spec.sandbox import EndReason, Isolation


class Principal(msgspec.Struct, frozen=True):
    """Who asks: the token that was shown, and what it may do.

    Attributes:
        owner: Everything made with this token belongs to this owner; look-ups see nothing else.
        scopes: ``sandbox`` (make and use sandboxes), ``admin`` (tokens, status, every owner's listing by an
            explicit flag).
        max_running: The token's own quota of sandboxes at once; None: only the server's limits.
        policy: Name of the policy of its sandboxes whose label names none; None: the server's default.
    """

    token_id: TokenId
    owner: OwnerId
    scopes: frozenset[str]
    max_running: int | None = None
    policy: str | None = None


class CreateRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A sandbox to be made. Raw values: the service validates, so that every adapter gets the same errors.

    Attributes:
        memory_mib: None for the default.
        session: Ends with its primary client. Else `stop_at_ms` or `duration_s` says when it ends.
        stop_at_ms: Absolute end, milliseconds since 1970.
        duration_s: End, in seconds from now.
        labels: At most 5; keys ≤ 64 bytes, values ≤ 128 bytes of UTF-8.
        env: Set before the first process starts.
        root: Volume or snapshot to boot from; None for the default image.
        volumes: Mount path → volume.
        allow_net: What it may reach; None: absent, the public internet.
        secrets: By name of the variable, as they were sent, values included.
        region: None: the server's.
    """

    memory_mib: int | None = None
    session: bool = True
    stop_at_ms: int | None = None
    duration_s: int | None = None
    labels: dict[str, str] = {}
    env: dict[str, str] = {}
    root: str | None = None
    volumes: dict[str, str] = {}
    allow_net: list[str] | None = None
    secrets: Mapping[str, Mapping[str, Any]] = {}
    region: str | None = None

    def __repr__(self) -> str:
        return "CreateRequest(…)"


class SandboxView(msgspec.Struct, frozen=True, kw_only=True):
    """One sandbox in a listing. Times are milliseconds since 1970.

    Attributes:
        policy: Name of the policy that it goes by; None: by none but its own rules and the operator's.
    """

    sandbox_id: SandboxId
    owner: OwnerId
    created_at_ms: int
    stopped_at_ms: int | None
    stop_at_ms: int | None
    session: bool
    region: str
    running: bool
    labels: dict[str, str]
    isolation: Isolation
    image: str
    memory_mib: int
    end_reason: EndReason | None
    exit_code: int | None
    policy: str | None = None


class TokenView(msgspec.Struct, frozen=True, kw_only=True):
    """One token in a listing; its value is shown once, when it is made."""

    token_id: TokenId
    owner: OwnerId
    name: str
    scopes: tuple[str, ...]
    created_at_ms: int
    expires_at_ms: int | None
    revoked_at_ms: int | None
    max_running: int | None
    policy: str | None = None


class PolicyView(msgspec.Struct, frozen=True, kw_only=True):
    """A named policy; ``owner`` is None for one that every owner's sandboxes may choose."""

    name: str
    owner: OwnerId | None
    shared: bool
    version: int
    updated_at_ms: int
    document: PolicyDocument


class PolicySet(msgspec.Struct, frozen=True):
    """A policy after it was set, and how many running sandboxes go by it."""

    policy: PolicyView
    sandboxes: int


class Allowed(msgspec.Struct, frozen=True):
    """A rule that was added to a sandbox's own, and the version of its policy that has it."""

    version: int
    rule: AllowRule


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """The server as a whole.

    Attributes:
        isolation: What a new sandbox gets; None when there is nothing that could isolate it.
        problem: Why not, and what to do.
        running: Sandboxes that clients have now.
        egress: The outbound gateway, with the worker of each sandbox; None when it does not answer.
        egress_problem: Why it does not answer, or why nothing gets out.
    """

    version: str
    isolation: Isolation | None
    problem: str | None
    region: str
    running: int
    pool: PoolView
    host: HostDescription
    egress: EgressDescription | None
    egress_problem: str | None
