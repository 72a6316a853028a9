"""What can be asked of Skerry and what it answers, free of any wire protocol."""

import msgspec

from skerry.control.pool import PoolView
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
    """

    token_id: TokenId
    owner: OwnerId
    scopes: frozenset[str]
    max_running: int | None = None


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
        allow_net: None: absent; the sandbox has no network but loopback in any case.
        secrets: Names only are looked at; any secret is refused as not supported.
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
    secret_names: tuple[str, ...] = ()
    region: str | None = None


class SandboxView(msgspec.Struct, frozen=True, kw_only=True):
    """One sandbox in a listing. Times are milliseconds since 1970."""

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


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """The server as a whole.

    Attributes:
        isolation: What a new sandbox gets; None when there is nothing that could isolate it.
        problem: Why not, and what to do.
        running: Sandboxes that clients have now.
    """

    version: str
    isolation: Isolation | None
    problem: str | None
    region: str
    running: int
    pool: PoolView
    host: HostDescription
