"""What a decision says: yes or no, by which rule, why, and what the owner can do. Pure."""

from enum import StrEnum

import msgspec


class Mode(StrEnum):
    """How the bytes of an allowed connection are treated."""

    SPLICE = "splice"
    INSPECT = "inspect"
    TCP = "tcp"


class Reason(StrEnum):
    """Why something was denied. Stable: programs and tests read them."""

    HOST_NOT_ALLOWED = "host_not_allowed"
    PORT_NOT_ALLOWED = "port_not_allowed"
    ADDRESS_NOT_ALLOWED = "address_not_allowed"
    PRIVATE_ADDRESS = "private_address"
    HOST_DENIED = "host_denied"
    BAD_HOST_NAME = "bad_host_name"
    NAME_MISMATCH = "name_mismatch"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    PATH_NOT_ALLOWED = "path_not_allowed"
    PATH_NOT_CANONICAL = "path_not_canonical"
    OVERRIDE_HEADER = "override_header"
    WEBSOCKET_NOT_ALLOWED = "websocket_not_allowed"
    UPGRADE_NOT_ALLOWED = "upgrade_not_allowed"
    HTTP2_NOT_SUPPORTED = "http2_not_supported"
    MALFORMED_REQUEST = "malformed_request"
    MALFORMED_HELLO = "malformed_hello"
    PROTOCOL_NOT_ALLOWED = "protocol_not_allowed"
    PLAINTEXT_TO_BOUND_HOST = "plaintext_to_bound_host"
    FOREIGN_CREDENTIALS = "foreign_credentials"
    CREDENTIALS_NOT_ALLOWED = "credentials_not_allowed"
    PLACEHOLDER_OUTSIDE_SLOT = "placeholder_outside_slot"
    PLACEHOLDER_OF_OTHER_HOST = "placeholder_of_other_host"
    STRAY_PLACEHOLDER = "stray_placeholder"
    SECRET_NOT_FOR_THIS_REQUEST = "secret_not_for_this_request"  # noqa: S105 - a reason
    SECRET_REVOKED = "secret_revoked"  # noqa: S105 - a reason
    SECRET_EXPIRED = "secret_expired"  # noqa: S105 - a reason
    SECRET_UNAVAILABLE = "secret_unavailable"  # noqa: S105 - a reason
    BUDGET_EXHAUSTED = "budget_exhausted"
    RATE_LIMITED = "rate_limited"
    BODY_TOO_LARGE = "body_too_large"
    NAME_NOT_FOUND = "name_not_found"
    UPSTREAM_UNREACHABLE = "upstream_unreachable"
    UPSTREAM_CERTIFICATE = "upstream_certificate"
    UPSTREAM_MALFORMED = "upstream_malformed"
    UNDECODABLE_FOR_SCRUB = "undecodable_for_scrub"
    AUDIT_UNAVAILABLE = "audit_unavailable"
    LIMIT_REACHED = "limit_reached"
    TIMED_OUT = "timed_out"
    SELF = "self"


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to "may this sandbox connect there?".

    Attributes:
        rule: Which rule decided, such as ``sandbox.allow[0]``, ``operator.deny[2]``, ``sandbox.default``,
            ``builtin.private``; stable for one policy version.
        mode: For TLS; meaningful when allowed.
        why_mode: In words, for ``explain``.
        bound: A secret is bound to the host.
        tcp: Other protocols pass raw.
        exact: In every layer an exact name, an address or the public default allowed it, not a wildcard: only
            then a silent client is taken for one whose server speaks first.
        inspect_ech: The mode is to splice, but a hello with the extension for an encrypted one (0xfe0d) must
            be inspected: some layer names the host, and what is encrypted may name another (R16).
        reason, owner_action: When denied: why, and what the owner can do (no secrets, no host paths).
    """

    allowed: bool
    rule: str
    mode: Mode = Mode.SPLICE
    why_mode: str = ""
    bound: bool = False
    tcp: bool = False
    exact: bool = False
    inspect_ech: bool = False
    reason: Reason | None = None
    owner_action: str = ""
