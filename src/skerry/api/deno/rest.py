"""The REST routes of the Deno Sandbox protocol that exist here; the rest of its routes answer 501 and say so.

Source: protocol notes, sections 4.2 and 4.3.
"""

from collections.abc import Sequence

import msgspec
from aiohttp import web

from skerry.api.authentication import authenticated
from skerry.api.deno.responses import json_response, read_json
from skerry.errors import NotFound, NotSupported
from skerry.protocol.deno_files import iso_time_ms
from skerry.protocol.deno_filters import Position, cursor_position, label_filter, next_link, page_size
from skerry.service.requests import Principal, SandboxView
from skerry.service.service import Service

_NOT_HERE_YET = (
    "/api/v3/sandbox/{sandbox_id}/expose/{what}",
    "/api/v2/sandboxes/{sandbox_id}/deploy",
)

_COLLECTIONS_NOT_HERE_YET = ("apps", "layers", "volumes", "snapshots", "revisions")


class _Extension(msgspec.Struct, frozen=True):
    """Body of a PATCH: the end that is asked for."""

    stop_at_ms: int


class RestRoutes:
    """Handles the protocol's plain HTTP routes."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def add_to(self, router: web.UrlDispatcher) -> None:
        """Add every route."""
        handle = authenticated(self._service)
        router.add_get("/api/v2/sandboxes", handle(self._list_all))
        router.add_get("/api/v3/sandboxes", handle(self._list_page))
        router.add_delete("/api/v3/sandboxes/{sandbox_id}", handle(self._kill))
        router.add_delete("/api/v3/sandbox/{sandbox_id}", handle(self._kill))
        router.add_patch("/api/v3/sandbox/{sandbox_id}", handle(self._extend))
        for path in _NOT_HERE_YET:
            router.add_post(path, handle(self._not_supported_on_sandbox))
        for name in _COLLECTIONS_NOT_HERE_YET:
            router.add_route("*", f"/api/v2/{name}", handle(self._not_supported))
            router.add_route("*", f"/api/v2/{name}/{{rest:.*}}", handle(self._not_supported))
        router.add_route("*", "/api/{rest:.*}", handle(self._unknown))

    async def _list_all(self, request: web.Request, who: Principal) -> web.Response:
        """The JavaScript SDK's listing: it knows no pages here."""
        labels = label_filter(request.query.items())
        views = await self._service.list(who, labels=labels or None)
        return json_response([listed(view) for view in views])

    async def _list_page(self, request: web.Request, who: Principal) -> web.Response:
        """The Python SDK's listing, in pages."""
        labels = label_filter(request.query.items())
        size = page_size(request.query.getall("limit", []))
        start = cursor_position(request.query.getall("cursor", []))
        views = await self._service.list(who, labels=labels or None)
        page, more = page_after(views, start, size)
        response = json_response([listed(view) for view in page])
        if more:
            last = Position(page[-1].created_at_ms, page[-1].sandbox_id)
            origin = f"{request.scheme}://{request.host}"
            response.headers["Link"] = next_link(origin, request.path, request.query.items(), last)
        return response

    async def _kill(self, request: web.Request, who: Principal) -> web.Response:
        await self._service.kill(who, request.match_info["sandbox_id"])
        return web.Response(status=204)

    async def _extend(self, request: web.Request, who: Principal) -> web.Response:
        asked = await read_json(request, _Extension)
        effective = await self._service.extend(who, request.match_info["sandbox_id"], asked.stop_at_ms)
        return json_response({"stop_at_ms": effective})

    async def _not_supported_on_sandbox(self, request: web.Request, who: Principal) -> web.Response:
        """Look the sandbox up first, so that a foreign one is not found here as everywhere."""
        await self._service.get(who, request.match_info["sandbox_id"])
        return await self._not_supported(request, who)

    async def _not_supported(self, request: web.Request, who: Principal) -> web.Response:
        raise NotSupported(f"{request.method} {request.path} is not there in this version of the server")

    async def _unknown(self, request: web.Request, who: Principal) -> web.Response:
        raise NotFound(f"there is no {request.method} {request.path}")


def listed(view: SandboxView) -> dict[str, object]:
    """One sandbox in a listing, in the protocol's camelCase; the two last members are this server's own."""
    return {
        "id": view.sandbox_id,
        "createdAt": iso_time_ms(view.created_at_ms),
        "stoppedAt": None if view.stopped_at_ms is None else iso_time_ms(view.stopped_at_ms),
        "region": view.region,
        "status": "running" if view.running else "stopped",
        "labels": view.labels,
        "isolation": view.isolation.value,
        "endReason": None if view.end_reason is None else view.end_reason.value,
    }


def page_after(
    views: Sequence[SandboxView], start: Position | None, size: int
) -> tuple[Sequence[SandboxView], bool]:
    """The items after a position in a listing sorted newest first, and whether more follow."""
    ordered = sorted(views, key=lambda view: (view.created_at_ms, view.sandbox_id), reverse=True)
    if start is not None:
        ordered = [view for view in ordered if (view.created_at_ms, view.sandbox_id) < tuple(start)]
    return ordered[:size], len(ordered) > size
