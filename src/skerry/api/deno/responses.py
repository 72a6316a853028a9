"""HTTP answers in the shapes that the SDKs read, and what both REST and upgrades take from a request."""

import asyncio
from typing import TypeVar

import msgspec
import structlog
from aiohttp import web

from skerry.api.deno.errors import http_status, sdk_status_and_code
from skerry.errors import InvalidRequest, SkerryError, TimedOut, Unauthenticated
from skerry.protocol.jsonrpc import encode

MAX_BODY_BYTES = 1 << 16
"""Longest body of a REST request."""

BODY_TIMEOUT_S = 10.0

_MAX_TOKEN_CHARACTERS = 512

_log = structlog.get_logger(__name__)

T = TypeVar("T")


def json_response(value: object, *, status: int = 200) -> web.Response:
    """A JSON body."""
    return web.Response(body=encode(value), status=status, content_type="application/json")


def error_body(code: str, message: str) -> dict[str, object]:
    """The members are at the top for the SDKs, and nested for readers of the hosted API's public
    description."""
    return {"code": code, "message": message, "error": {"code": code, "message": message}}


def error_response(request: web.Request, error: SkerryError, *, opening: bool = False) -> web.Response:
    """The answer to a request that failed.

    Args:
        opening: The request was to create or connect to a sandbox.
    """
    if request.path.startswith("/api/"):
        status, code = sdk_status_and_code(error, opening=opening)
    else:
        status, code = http_status(error), error.code
    log = _log.warning if status >= 500 else _log.info
    log("request refused", path=request.path, status=status, code=code, detail=error.detail)
    return json_response(error_body(code, error.message), status=status)


def bearer(request: web.Request) -> str | None:
    """The token that was shown; None for none.

    Raises:
        Unauthenticated: There is a header, but not of the form ``Bearer <token>``.
    """
    header = request.headers.get("Authorization")
    if header is None:
        return None
    scheme, _, token = header.partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token or len(token) > _MAX_TOKEN_CHARACTERS:
        raise Unauthenticated("Authorization: expected Bearer and a token")
    return token


async def read_json(request: web.Request, expected: type[T]) -> T:
    """The body of a request; an empty one counts as ``{}``.

    Raises:
        InvalidRequest: It is too long, no JSON, or of the wrong shape.
        TimedOut: It did not arrive in time.
    """
    body = await read_body(request)
    try:
        return msgspec.json.decode(body or b"{}", type=expected)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"request body: {error}") from None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise InvalidRequest("request body: expected a JSON object") from None


async def read_body(request: web.Request, *, max_bytes: int = MAX_BODY_BYTES) -> bytes:
    """The body of a request as it was sent.

    Raises:
        InvalidRequest: It is too long.
        TimedOut: It did not arrive in time.
    """
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            async for chunk in request.content.iter_any():
                body += chunk
                if len(body) > max_bytes:
                    raise InvalidRequest(f"request body: at most {max_bytes} bytes are accepted")
    except TimeoutError:
        raise TimedOut("reading the request's body", BODY_TIMEOUT_S) from None
    return bytes(body)
