"""A WebSocket client that speaks the protocol without an SDK, for what no SDK does."""

import asyncio
import base64
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

PYTHON_AGENT = "Python/3.11 websockets/15.0.1"

CREATE = "/api/v3/sandboxes/create"
_ANSWER_S = 30.0


class RpcClient:
    """One connection.

    Attributes:
        socket: The raw WebSocket.
        sandbox_id: From the upgrade.
        notifications: What came without being asked for, oldest first.
    """

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, sandbox_id: str) -> None:
        self.socket = socket
        self.sandbox_id = sandbox_id
        self.notifications: list[dict[str, Any]] = []
        self._ids = itertools.count(1)
        self._answers: dict[int, dict[str, Any]] = {}

    @property
    def transport(self) -> asyncio.Transport:
        """What carries the connection."""
        connection = self.socket._response.connection
        assert connection is not None
        assert connection.transport is not None
        return connection.transport

    async def call(self, method: str, **params: object) -> Any:
        """Make a call and return its answer: ``result`` or ``error``."""
        return await self.answer(await self.ask(method, **params))

    async def ok(self, method: str, **params: object) -> Any:
        """Make a call that must succeed."""
        answer = await self.call(method, **params)
        assert "ok" in answer.get("result", {}), answer
        return answer["result"]["ok"]

    async def ask(self, method: str, **params: object) -> int:
        """Send a request and return its ID."""
        id_ = next(self._ids)
        await self.socket.send_str(
            json.dumps({"jsonrpc": "2.0", "id": id_, "method": method, "params": params})
        )
        return id_

    async def notify(self, method: str, **params: object) -> None:
        """Send a notification."""
        await self.socket.send_str(json.dumps({"jsonrpc": "2.0", "method": method, "params": params}))

    async def answer(self, id_: int) -> dict[str, Any]:
        """The answer to a request."""
        async with asyncio.timeout(_ANSWER_S):
            while id_ not in self._answers:
                await self._take()
        return self._answers.pop(id_)

    async def output(self, stream_id: int) -> bytes:
        """All of a stream, to its end, which must come exactly once behind a start."""
        async with asyncio.timeout(_ANSWER_S):
            while not self._notified("$sandbox.stream.end", stream_id):
                await self._take()
        kinds = [one["method"] for one in self.notifications if one["params"]["streamId"] == stream_id]
        assert kinds[0] == "$sandbox.stream.start"
        assert kinds.count("$sandbox.stream.end") == 1
        return b"".join(
            base64.b64decode(one["params"]["data"])
            for one in self.notifications
            if one["method"] == "$sandbox.stream.enqueue" and one["params"]["streamId"] == stream_id
        )

    async def some_output(self, stream_id: int) -> None:
        """Wait for the first bytes of a stream."""
        async with asyncio.timeout(_ANSWER_S):
            while not self._notified("$sandbox.stream.enqueue", stream_id):
                await self._take()

    def _notified(self, method: str, stream_id: int) -> bool:
        return any(
            one["method"] == method and one["params"]["streamId"] == stream_id for one in self.notifications
        )

    async def _take(self) -> None:
        message = await self.socket.receive()
        assert message.type is aiohttp.WSMsgType.TEXT, message
        value = json.loads(message.data)
        assert value.get("id", 0) is not None, "an ID of null was sent"
        if "id" in value:
            self._answers[value["id"]] = value
        else:
            self.notifications.append(value)

    async def close_code(self) -> int | None:
        """Read to the close frame and return its code."""
        async with asyncio.timeout(_ANSWER_S):
            while not self.socket.closed:
                await self.socket.receive()
        return self.socket.close_code


@asynccontextmanager
async def rpc_client(
    url: str, token: str, *, path: str = CREATE, agent: str | None = None, config: object = None
) -> AsyncIterator[RpcClient]:
    """Open a connection.

    Args:
        agent: ``User-Agent``; None for the JavaScript SDK's way, which is none.
        config: Of the create header.
    """
    headers = {"Authorization": f"Bearer {token}"}
    if agent is not None:
        headers["User-Agent"] = agent
    if config is not None:
        headers["x-deno-sandbox-config"] = base64.b64encode(json.dumps(config).encode()).decode()
    async with (
        aiohttp.ClientSession(skip_auto_headers=["User-Agent"]) as session,
        session.ws_connect(url + path, headers=headers, max_msg_size=0, autoping=True) as socket,
    ):
        sandbox_id = socket._response.headers["x-deno-sandbox-id"]
        yield RpcClient(socket, sandbox_id)
