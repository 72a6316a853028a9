"""The one table from Skerry's errors to the Deno Sandbox protocol: HTTP status and code, and error objects of
calls."""

from skerry.errors import (
    AgentError,
    Conflict,
    Forbidden,
    GuestUnreachable,
    HostUnusable,
    InvalidRequest,
    NotFound,
    NotSupported,
    ResourceExhausted,
    RuntimeFailed,
    SandboxEnded,
    SkerryError,
    TimedOut,
    Unauthenticated,
)
from skerry.protocol.deno_errors import ErrorObject, error_object, error_of_code

_STATUS: tuple[tuple[type[SkerryError], int], ...] = (
    (InvalidRequest, 400),
    (SandboxEnded, 400),
    (Unauthenticated, 401),
    (Forbidden, 403),
    (NotFound, 404),
    (Conflict, 409),
    (ResourceExhausted, 429),
    (RuntimeFailed, 500),
    (NotSupported, 501),
    (GuestUnreachable, 502),
    (HostUnusable, 503),
    (TimedOut, 504),
    (AgentError, 502),
)

_CLASS: tuple[tuple[type[SkerryError], str], ...] = (
    (InvalidRequest, "TypeError"),
    (NotFound, "NotFound"),
    (NotSupported, "NotSupported"),
    (TimedOut, "TimedOut"),
    (ResourceExhausted, "Busy"),
    (GuestUnreachable, "ConnectionReset"),
)

BOOT_FAILED = "SANDBOX_WEBSOCKET_HANDSHAKE_ERROR"
"""What the hosted service calls a sandbox that could not be started or reached; clients may try again."""


def http_status(error: SkerryError) -> int:
    """The status of an error on any HTTP route."""
    return next((status for family, status in _STATUS if isinstance(error, family)), 500)


def sdk_status_and_code(error: SkerryError, *, opening: bool) -> tuple[int, str]:
    """Status and code where an SDK asks.

    Args:
        opening: A sandbox is being created or connected to: failures of host and guest are one code there.

    Every way to be unauthenticated is 401 with ``INVALID_TOKEN``: each SDK tells it from other errors by one
    of the two.
    """
    if isinstance(error, Unauthenticated):
        return 401, "INVALID_TOKEN"
    if opening and isinstance(error, RuntimeFailed | GuestUnreachable | TimedOut):
        return 500, BOOT_FAILED
    return http_status(error), error.code


def error_object_of(error: SkerryError, *, doing: str = "") -> ErrorObject:
    """The application error of a failed call.

    Args:
        doing: Operation and path for errors of the guest's file system and processes.
    """
    if isinstance(error, AgentError):
        return error_of_code(error.code, error.message, doing=doing)
    name = next((name for family, name in _CLASS if isinstance(error, family)), "Error")
    return error_object(name, error.message, code=error.code)
