"""What every route with a token has in common."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from aiohttp import web

from skerry.api.deno.responses import bearer, error_response
from skerry.errors import SkerryError
from skerry.service.requests import Principal
from skerry.service.service import Service

Handler = Callable[[web.Request, Principal], Awaitable[web.StreamResponse]]
Wrapped = Callable[[web.Request], Awaitable[web.StreamResponse]]

FINISH_S = 1.0
"""How long requests may take that are being served when the server stops; some wait for things to happen."""


class _Served:
    """The requests that are being served.

    Attributes:
        cuts: For each, what ends it.
        idle: There is none.
    """

    def __init__(self) -> None:
        self.cuts: set[Callable[[], None]] = set()
        self.idle = asyncio.Event()
        self.idle.set()

    def begin(self, cut: Callable[[], None]) -> None:
        """One more."""
        self.cuts.add(cut)
        self.idle.clear()

    def end(self, cut: Callable[[], None]) -> None:
        """One less."""
        self.cuts.discard(cut)
        if not self.cuts:
            self.idle.set()


_SERVED = web.AppKey("served", _Served)


def prepare(app: web.Application) -> None:
    """Make an application ready for handlers of `authenticated`."""
    app[_SERVED] = _Served()
    app.on_shutdown.append(_finish)


def authenticated(service: Service) -> Callable[[Handler], Wrapped]:
    """Make handlers that are told who asks into handlers for the router; errors become answers.

    A request whose token is revoked while it is being served is cut.
    """

    def wrap(handler: Handler) -> Wrapped:
        async def handle(request: web.Request) -> web.StreamResponse:
            served, cut = request.app[_SERVED], _cutting(request)
            served.begin(cut)
            try:
                who = await service.authenticate(bearer(request))
                with service.in_use(who, cut):
                    return await handler(request, who)
            except SkerryError as error:
                return error_response(request, error)
            finally:
                served.end(cut)

        return handle

    return wrap


def _cutting(request: web.Request) -> Callable[[], None]:
    """Ends a request from outside, unless it is the one that revokes its own token."""
    task = asyncio.current_task()

    def cut() -> None:
        if task is not None and task is not asyncio.current_task():
            if request.transport is not None:
                request.transport.abort()
            task.cancel()

    return cut


async def _finish(app: web.Application) -> None:
    """Let requests end by themselves for a moment, then cut them."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(FINISH_S):
            await app[_SERVED].idle.wait()
    for cut in tuple(app[_SERVED].cuts):
        cut()
