"""What a daemon answers: results, and refusals that say no more than the caller may know."""

import msgspec
import structlog

from skerry import errors
from skerry.errors import InvalidRequest, ResourceExhausted, SkerryError
from skerry.protocol.host_verbs import MAX_FRAME_BYTES, Failure, Reply, frame

UNDECODABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for bytes that are no message of the expected type."""

_encode = msgspec.msgpack.Encoder().encode


class _AnyCall(msgspec.Struct):
    """What is needed to refuse a call that is not understood."""

    id: int = 0


_any_calls = msgspec.msgpack.Decoder(_AnyCall)


class NotUnderstood(InvalidRequest):
    """A call that could not be decoded.

    Attributes:
        call_id: Its number as far as that could be read, else 0.
    """

    def __init__(self, body: bytes, daemon: str, problem: str) -> None:
        super().__init__(f"not a call that {daemon} understands: {problem}")
        try:
            self.call_id = _any_calls.decode(body).id
        except UNDECODABLE:
            self.call_id = 0


def result(call_id: int, value: object, log: structlog.stdlib.BoundLogger) -> bytes:
    """The framed answer to a call that was carried out; a refusal if it is too large."""
    try:
        return frame(Reply(call_id, msgspec.Raw(_encode(value))))
    except ValueError:
        error = ResourceExhausted(f"the answer is larger than {MAX_FRAME_BYTES} bytes")
        return refusal(call_id, error, log)


def refusal(call_id: int, error: SkerryError, log: structlog.stdlib.BoundLogger) -> bytes:
    """The framed answer to a call that was refused or failed: the error's family, never its detail, which is
    logged.
    """
    if isinstance(error, NotUnderstood):
        call_id = error.call_id
    family = next(base.__name__ for base in type(error).__mro__ if base.__module__ == errors.__name__)
    if error.detail:
        log.warning("verb_refused", family=family, message=error.message, detail=error.detail)
    return frame(Reply(call_id, failure=Failure(family, error.code, error.message)))
