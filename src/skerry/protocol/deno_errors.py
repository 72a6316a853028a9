"""Error objects of the Deno Sandbox protocol: what a failed call looks like to the SDKs.

Source: protocol notes, section 2.2.
"""

from typing import TypedDict


class ErrorObject(TypedDict):
    """An application error; every member is always there, because one SDK's schema wants them."""

    constructorName: str
    message: str
    code: str | None
    name: str | None
    stack: None
    cause: None
    errors: None
    suppressed: None
    error: None


_CLASS_OF_ERRNO = {
    "ENOENT": "NotFound",
    "EACCES": "PermissionDenied",
    "EPERM": "PermissionDenied",
    "EROFS": "PermissionDenied",
    "EEXIST": "AlreadyExists",
    "EISDIR": "IsADirectory",
    "ENOTDIR": "NotADirectory",
    "ELOOP": "FilesystemLoop",
    "EINVAL": "TypeError",
    "EBADF": "BadResource",
    "EBUSY": "Busy",
    "ETXTBSY": "Busy",
    "EAGAIN": "Busy",
    "EPIPE": "BrokenPipe",
    "ETIMEDOUT": "TimedOut",
    "ECONNREFUSED": "ConnectionRefused",
    "EADDRINUSE": "AddrInUse",
    "EINTR": "Interrupted",
    "TOO_LARGE": "RangeError",
    "BUDGET": "Busy",
    "BAD_SIGNAL": "TypeError",
    "BAD_PARAMS": "TypeError",
    "NOT_SUPPORTED": "NotSupported",
    "TIMED_OUT": "TimedOut",
}

_TEXT_OF_ERRNO = {
    "ENOENT": "No such file or directory (os error 2)",
    "EACCES": "Permission denied (os error 13)",
    "EPERM": "Operation not permitted (os error 1)",
    "EEXIST": "File exists (os error 17)",
    "EISDIR": "Is a directory (os error 21)",
    "ENOTDIR": "Not a directory (os error 20)",
    "ENOTEMPTY": "Directory not empty (os error 39)",
    "ENOSPC": "No space left on device (os error 28)",
}


def error_object(
    constructor: str, message: str, *, code: str | None = None, name: str | None = None
) -> ErrorObject:
    """Build an application error with every member that the SDKs look for."""
    return ErrorObject(
        constructorName=constructor,
        message=message,
        code=code,
        name=constructor if name is None else name,
        stack=None,
        cause=None,
        errors=None,
        suppressed=None,
        error=None,
    )


def error_of_code(code: str, message: str, *, doing: str = "") -> ErrorObject:
    """The error object of an errno name or a code of the agent channel.

    ``TypeError`` with ``ENOENT`` never comes from here: to the Python SDK that pair means that a process has
    already ended.

    Args:
        message: What the agent said.
        doing: The operation and its path, such as ``readfile 'a.txt'``; put behind the message as Deno does.
    """
    text = _TEXT_OF_ERRNO.get(code, message)
    return error_object(_CLASS_OF_ERRNO.get(code, "Error"), f"{text}: {doing}" if doing else text, code=code)


def process_gone() -> ErrorObject:
    """The process has ended, or there never was one: both SDKs swallow exactly this from a kill."""
    return error_object("TypeError", "Child process has already terminated", code="ENOENT")


def aborted() -> ErrorObject:
    """The caller's own abort signal ended the call."""
    return error_object("DOMException", "The signal has been aborted", name="AbortError")


def too_large_for_client(size_bytes: int, limit_bytes: int) -> ErrorObject:
    """The answer would be longer than the client's WebSocket library takes."""
    return error_object(
        "RangeError",
        f"the answer takes {size_bytes} bytes, this client accepts {limit_bytes} in one message:"
        " read the file in parts",
        code="TOO_LARGE",
    )
