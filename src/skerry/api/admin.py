"""Skerry's own REST routes, which its command line uses.

`/skerry/v1/health` needs no token; the rest takes the same bearer tokens as the SDK routes, and the service
decides what each scope may do.
"""

import os

import msgspec
from aiohttp import web

from skerry import __version__
from skerry.api.authentication import authenticated
from skerry.api.deno.responses import json_response, read_json
from skerry.api.process_output import send_output
from skerry.api.query import flag, number
from skerry.control.agent import AgentClient, OutputStream
from skerry.errors import InvalidRequest, NotFound
from skerry.protocol.deno_files import readable
from skerry.protocol.messages import ProcessInfo
from skerry.service.requests import Principal
from skerry.service.service import Service


class _NewToken(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of a POST to the tokens."""

    name: str
    owner: str | None = None
    scopes: tuple[str, ...] = ("sandbox",)
    expires_in_s: int | None = None
    max_running: int | None = None
    policy: str | None = None


class AdminRoutes:
    """Handles `/skerry/v1`."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def add_to(self, router: web.UrlDispatcher) -> None:
        """Add every route."""
        handle = authenticated(self._service)
        router.add_get("/skerry/v1/health", self._health)
        router.add_get("/skerry/v1/status", handle(self._status))
        router.add_get("/skerry/v1/tokens", handle(self._list_tokens))
        router.add_post("/skerry/v1/tokens", handle(self._create_token))
        router.add_delete("/skerry/v1/tokens/{token_id}", handle(self._revoke_token))
        router.add_get("/skerry/v1/sandboxes", handle(self._list))
        router.add_get("/skerry/v1/sandboxes/{sandbox_id}", handle(self._get))
        router.add_get("/skerry/v1/sandboxes/{sandbox_id}/processes", handle(self._processes))
        router.add_get("/skerry/v1/sandboxes/{sandbox_id}/processes/{pid}/output", handle(self._output))

    async def _health(self, request: web.Request) -> web.Response:
        return json_response({"version": __version__, "pid": os.getpid()})

    async def _status(self, request: web.Request, who: Principal) -> web.Response:
        return json_response(await self._service.status(who))

    async def _list_tokens(self, request: web.Request, who: Principal) -> web.Response:
        return json_response(await self._service.list_tokens(who))

    async def _create_token(self, request: web.Request, who: Principal) -> web.Response:
        asked = await read_json(request, _NewToken)
        view, value = await self._service.create_token(
            who,
            name=asked.name,
            owner=asked.owner,
            scopes=asked.scopes,
            expires_in_s=asked.expires_in_s,
            max_running=asked.max_running,
            policy=asked.policy,
        )
        return json_response({"token": value, "view": view}, status=201)

    async def _revoke_token(self, request: web.Request, who: Principal) -> web.Response:
        await self._service.revoke_token(who, request.match_info["token_id"])
        return web.Response(status=204)

    async def _list(self, request: web.Request, who: Principal) -> web.Response:
        return json_response(await self._service.list(who, all_owners=flag(request, "all")))

    async def _get(self, request: web.Request, who: Principal) -> web.Response:
        return json_response(await self._service.get(who, request.match_info["sandbox_id"]))

    async def _processes(self, request: web.Request, who: Principal) -> web.Response:
        agent = await self._service.agent(who, request.match_info["sandbox_id"])
        return json_response([_process(info) for info in await agent.processes()])

    async def _output(self, request: web.Request, who: Principal) -> web.StreamResponse:
        """The output of a process, raw.

        From an offset to what there is now, or, with ``follow=1``, to its end.
        """
        start = number(request.query.get("from", "0"), "from")
        agent = await self._service.agent(who, request.match_info["sandbox_id"])
        output = _stream_of(agent, request)
        return await send_output(request, agent, output, start=start, follow=flag(request, "follow"))


def _process(info: ProcessInfo) -> dict[str, object]:
    return {
        "pid": info.pid,
        "command": readable(info.command),
        "args": [readable(arg) for arg in info.args],
        "started_ms": info.started_ms,
        "exit": info.exit,
    }


def _stream_of(agent: AgentClient, request: web.Request) -> OutputStream:
    name = request.query.get("stream", "stdout")
    if name not in ("stdout", "stderr"):
        raise InvalidRequest("stream: expected stdout or stderr")
    process = agent.process(number(request.match_info["pid"], "pid"))
    if process is None:
        raise NotFound("there is no such process, or it ended long ago")
    output = process.stdout if name == "stdout" else process.stderr
    if output is None:
        raise NotFound(f"{name} of this process is not kept: it was started without, or is forgotten")
    return output
