"""The HTTP application: routes, what holds for every request, and the server that runs it.

Every answer has `x-deno-trace-id`, which also stands in the log lines of the request and of the session that
it opened. Errors are JSON. Bodies, tokens and configuration headers are never logged.

The API takes bearer tokens only and never reads cookies, so a browser carries no authority of the user's
here. Requests that a web page of another site makes are refused all the same, by their ``Host`` and
``Origin``.
"""

import logging
import secrets
import socket
from collections.abc import Awaitable, Callable, Collection

import structlog
from aiohttp import web
from aiohttp.http import HttpProcessingError

from skerry.api.admin import AdminRoutes
from skerry.api.authentication import prepare
from skerry.api.deno.budget import MemoryBudget
from skerry.api.deno.responses import error_body, error_response, json_response
from skerry.api.deno.rest import RestRoutes
from skerry.api.deno.upgrade import SessionRoutes
from skerry.api.outbound import OutboundRoutes
from skerry.api.policies import PolicyRoutes
from skerry.api.sites import check_site
from skerry.errors import SkerryError
from skerry.protocol.jsonrpc import stream_ids
from skerry.service.service import Service

MAX_HEADER_FIELD_BYTES = 1 << 20
"""What the HTTP parser takes; a configuration header has a smaller limit of its own, with an answer that says
so."""

IDLE_TIMEOUT_S = 75.0
"""A connection that has not sent all of a request's headers in this time, or asks nothing more, is closed."""

SHUTDOWN_S = 8.0

TRACE_HEADER = "x-deno-trace-id"

_TRACE = web.RequestKey("trace", str)
_HOST_NAMES = web.AppKey("host_names", Collection[str])

_log = structlog.get_logger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def build_app(service: Service, *, host_names: Collection[str] = ()) -> web.Application:
    """The application that serves a service.

    Args:
        host_names: Names, besides addresses and ``localhost``, by which clients reach it.
    """
    sessions = SessionRoutes(service, MemoryBudget(), stream_ids(secrets.randbelow))
    app = web.Application(middlewares=[_around_every_request])
    app[_HOST_NAMES] = frozenset(name.lower() for name in host_names)
    prepare(app)
    app.router.add_get("/api/v3/sandboxes/create", sessions.create)
    app.router.add_get("/api/v3/sandbox/{sandbox_id}/connect", sessions.connect)
    AdminRoutes(service).add_to(app.router)
    OutboundRoutes(service).add_to(app.router)
    PolicyRoutes(service).add_to(app.router)
    RestRoutes(service).add_to(app.router)
    app.on_response_prepare.append(_add_trace)

    async def leave(_: web.Application) -> None:
        sessions.leave("the server is going away")

    app.on_shutdown.append(leave)
    return app


async def start_server(app: web.Application, listener: socket.socket) -> web.AppRunner:
    """Serve the application on a bound socket; the caller ends it with the runner's `cleanup`."""
    logging.getLogger("aiohttp.server").addFilter(_is_no_echo)
    runner = web.AppRunner(
        app,
        access_log=None,
        keepalive_timeout=IDLE_TIMEOUT_S,
        max_field_size=MAX_HEADER_FIELD_BYTES,
        auto_decompress=False,
        shutdown_timeout=SHUTDOWN_S,
    )
    await runner.setup()
    await web.SockSite(runner, listener, backlog=1024).start()
    return runner


def _is_no_echo(record: logging.LogRecord) -> bool:
    """False for what aiohttp says of a request that it cannot parse: that quotes headers, tokens included."""
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


@web.middleware
async def _around_every_request(request: web.Request, handler: Handler) -> web.StreamResponse:
    trace = secrets.token_hex(16)
    request[_TRACE] = trace
    with structlog.contextvars.bound_contextvars(trace=trace):
        try:
            check_site(request.host, request.headers.get("Origin"), request.app[_HOST_NAMES])
            return await handler(request)
        except SkerryError as error:
            return error_response(request, error)
        except web.HTTPException as error:
            text = f"{request.method} {request.path}: {error.reason}"
            return json_response(
                error_body(_CODES.get(error.status, "HTTP_ERROR"), text), status=error.status
            )
        except ConnectionError:
            raise
        except Exception:
            _log.exception("request failed", path=request.path)
            text = f"internal error; the server's log has it under {trace}"
            return json_response(error_body("INTERNAL", text), status=500)


_CODES = {400: "MALFORMED_REQUEST", 404: "NOT_FOUND", 405: "METHOD_NOT_ALLOWED", 413: "MALFORMED_REQUEST"}


async def _add_trace(request: web.Request, response: web.StreamResponse) -> None:
    response.headers[TRACE_HEADER] = request.get(_TRACE, "")
