"""REST routes about what a sandbox may reach: explain, allow, audit trail, secrets.

Values of secrets come in, and never go out.
"""

from typing import Any

import msgspec
from aiohttp import web

from skerry.api.authentication import authenticated
from skerry.api.deno.responses import json_response, read_json
from skerry.api.query import number
from skerry.service.requests import Principal
from skerry.service.service import Service

_SANDBOX = "/skerry/v1/sandboxes/{sandbox_id}"


class _Destination(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of a POST that allows one more: an entry as in ``allow_net``."""

    host: str


class _Value(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of a PUT of a secret."""

    value: str

    def __repr__(self) -> str:
        return "_Value(…)"


class OutboundRoutes:
    """Handles what is below one sandbox."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._outbound = service.outbound

    def add_to(self, router: web.UrlDispatcher) -> None:
        """Add every route."""
        handle = authenticated(self._service)
        router.add_get(f"{_SANDBOX}/explain", handle(self._explain))
        router.add_post(f"{_SANDBOX}/allow", handle(self._allow))
        router.add_get(f"{_SANDBOX}/audit", handle(self._audit))
        router.add_get(f"{_SANDBOX}/secrets", handle(self._secrets))
        router.add_put(f"{_SANDBOX}/secrets/{{name}}", handle(self._rotate))
        router.add_delete(f"{_SANDBOX}/secrets/{{name}}", handle(self._revoke))

    async def _explain(self, request: web.Request, who: Principal) -> web.Response:
        """Query: ``target``, a URL, ``name:port`` or ``address:port``; ``method``, default GET."""
        target, method = request.query.get("target", ""), request.query.get("method", "GET")
        return json_response(await self._outbound.explain(who, _sandbox(request), target, method))

    async def _allow(self, request: web.Request, who: Principal) -> web.Response:
        asked = await read_json(request, _Destination)
        return json_response(await self._outbound.allow(who, _sandbox(request), asked.host))

    async def _audit(self, request: web.Request, who: Principal) -> web.Response:
        """Query: ``after`` (a sequence number), ``limit``, ``wait_ms``.

        The answer has ``lines`` (objects, oldest first), ``last`` (the number to ask for next as ``after``)
        and ``ended`` (the trail will not grow).
        """
        found = await self._outbound.audit(
            who,
            _sandbox(request),
            after=number(request.query.get("after", "0"), "after"),
            limit=number(request.query.get("limit", "500"), "limit"),
            wait_ms=number(request.query.get("wait_ms", "0"), "wait_ms"),
        )
        lines = [_decoded(line) for line in found.lines]
        return json_response({"lines": lines, "last": found.last, "ended": found.ended})

    async def _secrets(self, request: web.Request, who: Principal) -> web.Response:
        return json_response(await self._outbound.secrets(who, _sandbox(request)))

    async def _rotate(self, request: web.Request, who: Principal) -> web.Response:
        asked = await read_json(request, _Value)
        await self._outbound.rotate(who, _sandbox(request), request.match_info["name"], asked.value)
        return web.Response(status=204)

    async def _revoke(self, request: web.Request, who: Principal) -> web.Response:
        await self._outbound.revoke(who, _sandbox(request), request.match_info["name"])
        return web.Response(status=204)


def _sandbox(request: web.Request) -> str:
    return request.match_info["sandbox_id"]


def _decoded(line: str) -> Any:
    """A line of the trail as what it is; one that is damaged, as text."""
    try:
        return msgspec.json.decode(line)
    except msgspec.DecodeError:
        return line
