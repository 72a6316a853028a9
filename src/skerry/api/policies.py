"""REST routes about named policies.

A policy is sent as it was written: TOML with ``Content-Type: application/toml``, else JSON.
"""

from aiohttp import web

from skerry.api.authentication import authenticated
from skerry.api.deno.responses import json_response, read_body
from skerry.api.query import flag
from skerry.policy.document import PolicyDocument
from skerry.policy.lint import lint
from skerry.policy.reading import read_document
from skerry.service.requests import Principal
from skerry.service.service import Service
from skerry.spec.limits import MAX_POLICY_BYTES

_ALL = "/skerry/v1/policies"
_ONE = "/skerry/v1/policies/{name}"


class PolicyRoutes:
    """Handles `/skerry/v1/policies`.

    Query of those that name one: ``owner`` (another's; needs the scope ``admin``) or ``shared=1`` (every
    owner's).
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._policies = service.policies

    def add_to(self, router: web.UrlDispatcher) -> None:
        """Add every route."""
        handle = authenticated(self._service)
        router.add_get(_ALL, handle(self._list))
        router.add_post(f"{_ALL}/lint", handle(self._lint))
        router.add_get(_ONE, handle(self._get))
        router.add_put(_ONE, handle(self._set))
        router.add_delete(_ONE, handle(self._delete))

    async def _list(self, request: web.Request, who: Principal) -> web.Response:
        return json_response(await self._policies.list(who, all_owners=flag(request, "all")))

    async def _get(self, request: web.Request, who: Principal) -> web.Response:
        owner, shared = _whose(request)
        return json_response(
            await self._policies.get(who, request.match_info["name"], owner=owner, shared=shared)
        )

    async def _set(self, request: web.Request, who: Principal) -> web.Response:
        owner, shared = _whose(request)
        document = await _document(request)
        made = await self._policies.set(who, request.match_info["name"], document, owner=owner, shared=shared)
        return json_response({"policy": made.policy, "sandboxes": made.sandboxes, "findings": lint(document)})

    async def _delete(self, request: web.Request, who: Principal) -> web.Response:
        owner, shared = _whose(request)
        await self._policies.delete(who, request.match_info["name"], owner=owner, shared=shared)
        return web.Response(status=204)

    async def _lint(self, request: web.Request, who: Principal) -> web.Response:
        return json_response({"findings": lint(await _document(request))})


async def _document(request: web.Request) -> PolicyDocument:
    data = await read_body(request, max_bytes=MAX_POLICY_BYTES)
    return read_document(data, kind="toml" if request.content_type == "application/toml" else "json")


def _whose(request: web.Request) -> tuple[str | None, bool]:
    return request.query.get("owner") or None, flag(request, "shared")
