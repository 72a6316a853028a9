"""What a sandbox is told when something is refused: fixed texts, never a byte that came from elsewhere.

An HTTP client gets a status and JSON, a TLS client an alert, everybody else a reset.
"""

import asyncio
import secrets
import socket
import struct
from contextlib import suppress

import msgspec

from skerry.egress.worker.readiness import readable, send_all
from skerry.policy.verdict import Reason

LONGEST_FAREWELL_S = 1.0
"""For the client to take what it is told."""

_MOST_DRAINED_BYTES = 1 << 20
_DRAIN_BYTES = 65_536
_LINGER_RESET = struct.pack("ii", 1, 0)

_STATUS: dict[Reason, tuple[int, str]] = {
    Reason.MALFORMED_REQUEST: (400, "Bad Request"),
    Reason.PATH_NOT_CANONICAL: (400, "Bad Request"),
    Reason.BODY_TOO_LARGE: (413, "Content Too Large"),
    Reason.NAME_MISMATCH: (421, "Misdirected Request"),
    Reason.RATE_LIMITED: (429, "Too Many Requests"),
    Reason.BUDGET_EXHAUSTED: (429, "Too Many Requests"),
    Reason.NAME_NOT_FOUND: (502, "Bad Gateway"),
    Reason.UPSTREAM_UNREACHABLE: (502, "Bad Gateway"),
    Reason.UPSTREAM_CERTIFICATE: (502, "Bad Gateway"),
    Reason.UPSTREAM_MALFORMED: (502, "Bad Gateway"),
    Reason.UNDECODABLE_FOR_SCRUB: (502, "Bad Gateway"),
    Reason.AUDIT_UNAVAILABLE: (503, "Service Unavailable"),
    Reason.LIMIT_REACHED: (503, "Service Unavailable"),
    Reason.TIMED_OUT: (504, "Gateway Timeout"),
}
_FORBIDDEN = (403, "Forbidden")
_FAILED = frozenset({400, 421, 502, 503, 504})

_MESSAGES: dict[Reason, str] = {
    Reason.HOST_NOT_ALLOWED: "The policy of this sandbox does not allow this host.",
    Reason.PORT_NOT_ALLOWED: "The policy of this sandbox does not allow this port of the host.",
    Reason.ADDRESS_NOT_ALLOWED: "The policy of this sandbox does not allow this address.",
    Reason.PRIVATE_ADDRESS: "Private, local and reserved addresses cannot be reached from this sandbox.",
    Reason.HOST_DENIED: "The policy of this sandbox denies this host.",
    Reason.BAD_HOST_NAME: "This is not a host name that can be reached.",
    Reason.NAME_MISMATCH: "The names in this request do not agree with each other or with the connection.",
    Reason.METHOD_NOT_ALLOWED: "The policy of this sandbox does not allow this method here.",
    Reason.PATH_NOT_ALLOWED: "The policy of this sandbox does not allow this path.",
    Reason.PATH_NOT_CANONICAL: "The path is not in canonical form.",
    Reason.OVERRIDE_HEADER: "The request has a header that may override its method or path.",
    Reason.WEBSOCKET_NOT_ALLOWED: "The policy of this sandbox does not allow WebSockets here.",
    Reason.UPGRADE_NOT_ALLOWED: "Upgrades to other protocols are not allowed.",
    Reason.HTTP2_NOT_SUPPORTED: "HTTP/2 (and so gRPC) is not supported here; use HTTP/1.1 over TLS.",
    Reason.MALFORMED_REQUEST: "The request is malformed or ambiguous.",
    Reason.MALFORMED_HELLO: "The TLS client hello is malformed or names no server.",
    Reason.PROTOCOL_NOT_ALLOWED: "This protocol is not allowed here.",
    Reason.PLAINTEXT_TO_BOUND_HOST: "A secret is bound to this host: it is reached over TLS only.",
    Reason.FOREIGN_CREDENTIALS: "The request has a credential that is not this sandbox's own.",
    Reason.CREDENTIALS_NOT_ALLOWED: "The policy of this sandbox allows no credentials here.",
    Reason.PLACEHOLDER_OUTSIDE_SLOT: "The placeholder of a secret is where the secret may not go.",
    Reason.PLACEHOLDER_OF_OTHER_HOST: "The placeholder belongs to a secret of another host.",
    Reason.STRAY_PLACEHOLDER: "The placeholder of a secret is in a request that may not carry it.",
    Reason.SECRET_NOT_FOR_THIS_REQUEST: "The secret may not be used for this method or path.",
    Reason.SECRET_REVOKED: "The secret was revoked.",
    Reason.SECRET_EXPIRED: "The secret has expired.",
    Reason.SECRET_UNAVAILABLE: "The value of the secret is not there at the moment.",
    Reason.BUDGET_EXHAUSTED: "The budget of the secret is used up.",
    Reason.RATE_LIMITED: "Too many requests.",
    Reason.BODY_TOO_LARGE: "The body is longer than the policy of this sandbox allows.",
    Reason.NAME_NOT_FOUND: "The name of the host could not be resolved.",
    Reason.UPSTREAM_UNREACHABLE: "The host could not be reached.",
    Reason.UPSTREAM_CERTIFICATE: "The certificate of the host could not be verified.",
    Reason.UPSTREAM_MALFORMED: "The answer of the host is malformed.",
    Reason.UNDECODABLE_FOR_SCRUB: "The encoding of the host's answer cannot be checked for secrets.",
    Reason.AUDIT_UNAVAILABLE: "The request could not be recorded, so it was not sent.",
    Reason.LIMIT_REACHED: "A limit of this sandbox is reached.",
    Reason.TIMED_OUT: "The host or the client took too long.",
    Reason.SELF: "The gateway cannot be reached through itself.",
}

ALERT_ACCESS_DENIED = b"\x15\x03\x03\x00\x02\x02\x31"
ALERT_UNRECOGNIZED_NAME = b"\x15\x03\x03\x00\x02\x02\x70"
ALERT_INTERNAL_ERROR = b"\x15\x03\x03\x00\x02\x02\x50"
ALERT_DECODE_ERROR = b"\x15\x03\x03\x00\x02\x02\x32"
ALERT_NO_APPLICATION_PROTOCOL = b"\x15\x03\x03\x00\x02\x02\x78"
"""A fatal alert in one plaintext record. Source: RFC 8446, section 6."""


class _Notice(msgspec.Struct, frozen=True, kw_only=True):
    """The JSON body of a refusal."""

    error: str
    reason: Reason
    request_id: str
    message: str
    owner_action: str = ""


def new_request_id() -> str:
    """``req_`` and 16 hexadecimal digits."""
    return "req_" + secrets.token_hex(8)


def status(reason: Reason) -> int:
    """The HTTP status of a refusal."""
    return _STATUS.get(reason, _FORBIDDEN)[0]


def body(reason: Reason, request_id: str, owner_action: str = "") -> bytes:
    """The JSON.

    Args:
        owner_action: What the owner can do, made from the policy only.
    """
    failed = status(reason) in _FAILED
    return msgspec.json.encode(
        _Notice(
            error="egress_failed" if failed else "egress_denied",
            reason=reason,
            request_id=request_id,
            message=_MESSAGES[reason],
            owner_action=owner_action,
        )
    )


def response(reason: Reason, request_id: str, owner_action: str = "", *, with_body: bool = True) -> bytes:
    """A whole HTTP/1.1 response that says so and that the connection ends.

    Args:
        with_body: False in answer to HEAD.
    """
    code, phrase = _STATUS.get(reason, _FORBIDDEN)
    text = body(reason, request_id, owner_action)
    head = (
        f"HTTP/1.1 {code} {phrase}\r\n"
        "Content-Type: application/json\r\n"
        f"Content-Length: {len(text)}\r\n"
        "Cache-Control: no-store\r\n"
        "Connection: close\r\n"
        "\r\n"
    ).encode()
    return head + text if with_body else head


def http2_goaway(reason: Reason, request_id: str, owner_action: str = "") -> bytes:
    """What a client that speaks HTTP/2 in clear can read: empty SETTINGS, then GOAWAY with HTTP_1_1_REQUIRED
    and the JSON as its debug data.

    Source: RFC 9113, sections 3.4, 6.8 and 7.
    """
    text = body(reason, request_id, owner_action)
    goaway = struct.pack(">II", 0, 0xD) + text
    settings = _http2_frame(4, b"")
    return settings + _http2_frame(7, goaway)


def _http2_frame(kind: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, 0)) + bytes(4) + payload


def reset(sock: socket.socket) -> None:
    """Close with a TCP reset. Idempotent."""
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_RESET)
    sock.close()


async def say_and_close(sock: socket.socket, data: bytes) -> None:
    """Say something to a client that may still be sending, so that it can read it, and close.

    What it has sent is read and dropped: the kernel answers unread data with a reset, which makes the client
    lose what it was told (RFC 9112, section 9.6). Takes at most `LONGEST_FAREWELL_S`. Closes in any case.
    """
    try:
        async with asyncio.timeout(LONGEST_FAREWELL_S):
            _drain(sock)
            await send_all(sock, data)
            sock.shutdown(socket.SHUT_WR)
            drained = 0
            while drained < _MOST_DRAINED_BYTES:
                await readable(sock)
                size = _drain(sock)
                if size == 0:
                    break
                drained += size
    except (TimeoutError, OSError):
        reset(sock)
    finally:
        sock.close()


def _drain(sock: socket.socket) -> int:
    """Drop what has arrived; 0 at the end of the stream."""
    try:
        return len(sock.recv(_DRAIN_BYTES))
    except BlockingIOError:
        return -1
