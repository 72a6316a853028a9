"""What every route with a token has in common."""

import asyncio
from collections.abc import Awaitable, Callable

from aiohttp import web

from skerry.api.deno.responses import bearer, error_response
from skerry.errors import SkerryError
from skerry.service.requests import Principal
from skerry.service.service import Service

Handler = Callable[[web.Request, Principal], Awaitable[web.StreamResponse]]
Wrapped = Callable[[web.Request], Awaitable[web.StreamResponse]]


def authenticated(service: Service) -> Callable[[Handler], Wrapped]:
    """Make handlers that are told who asks into handlers for the router; errors become answers.

    A request whose token is revoked while it is being served is cut.
    """

    def wrap(handler: Handler) -> Wrapped:
        async def handle(request: web.Request) -> web.StreamResponse:
            try:
                who = await service.authenticate(bearer(request))
                with service.in_use(who, _cancelling(request)):
                    return await handler(request, who)
            except SkerryError as error:
                return error_response(request, error)

        return handle

    return wrap


def _cancelling(request: web.Request) -> Callable[[], None]:
    """Ends a request from outside, unless it is the one that revokes its own token."""
    task = asyncio.current_task()

    def cut() -> None:
        if task is not None and task is not asyncio.current_task():
            if request.transport is not None:
                request.transport.abort()
            task.cancel()

    return cut
