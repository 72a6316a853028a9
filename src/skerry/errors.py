"""The errors of Skerry: few families, named by who has to act.

Every error has a stable ``code`` (for programs), a ``message`` (for people, safe to show to a client: it says
what is wrong and what to do) and an optional ``detail`` that stays in the server's log. Adapters map families
to their wire in one table (`skerry.api.deno.errors`).
"""


class SkerryError(Exception):
    """Base of all errors that cross a layer.

    Args:
        message: Public text: what is wrong and what to do about it. Never holds a secret or a host path.
        code: Stable name for programs; defaults to the family's own.
        detail: Private text for the log; never sent to a client.
    """

    code: str = "INTERNAL"
    retryable: bool = False

    def __init__(self, message: str, *, code: str | None = None, detail: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.detail = detail
        if code is not None:
            self.code = code


class InvalidRequest(SkerryError):
    """The caller sent something that can never work; it must change the request."""

    code = "MALFORMED_REQUEST"


class Unauthenticated(SkerryError):
    """No token, or one that is wrong, revoked or expired."""

    code = "INVALID_TOKEN"


class Forbidden(SkerryError):
    """The token is good, but lacks the scope for this."""

    code = "FORBIDDEN"


class NotFound(SkerryError):
    """No such object for this owner; objects of other owners look exactly so."""

    code = "NOT_FOUND"


class Conflict(SkerryError):
    """The object is in a state that does not allow this."""

    code = "CONFLICT"


class ResourceExhausted(SkerryError):
    """A limit or quota is reached; the message names limit and use."""

    code = "RESOURCE_EXHAUSTED"
    retryable = True


class NotSupported(SkerryError):
    """This server, driver or version does not have that ability."""

    code = "NOT_SUPPORTED"


class TimedOut(SkerryError):
    """A phase took longer than its deadline.

    Args:
        phase: What was being waited for, in words.
        after_s: The deadline in seconds.
    """

    code = "TIMED_OUT"
    retryable = True

    def __init__(self, phase: str, after_s: float, *, detail: str = "") -> None:
        super().__init__(f"{phase}: no answer within {after_s:g} s", detail=detail)
        self.phase = phase
        self.after_s = after_s


class HostUnusable(SkerryError):
    """The machine lacks something; the message names it and the command that mends it."""

    code = "HOST_UNUSABLE"


class RuntimeFailed(SkerryError):
    """A runtime (runsc, conmon, mount…) failed; ``detail`` has the tail of what it said."""

    code = "RUNTIME_FAILED"
    retryable = True


class GuestUnreachable(SkerryError):
    """The sandbox's agent does not answer (it restarted, was killed, or breaks the protocol)."""

    code = "GUEST_UNREACHABLE"
    retryable = True


class SandboxEnded(SkerryError):
    """The sandbox ended while, or before, the call was made; ``reason`` says how."""

    code = "SANDBOX_ALREADY_TERMINATED"

    def __init__(self, reason: str, *, detail: str = "") -> None:
        super().__init__(f"The sandbox has already been terminated ({reason}).", detail=detail)
        self.reason = reason


class AgentError(SkerryError):
    """The agent carried a request out and it failed there; ``code`` is an errno name or a code of the
    channel."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message, code=code)
