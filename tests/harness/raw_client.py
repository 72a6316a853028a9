"""As few lines as can speak to a whole Skerry: for tests that kill it, where an SDK hides what happens."""

import asyncio
import base64
import json
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import aiohttp

from tests.harness.skerry_up import SkerryUp

DEADLINE_S = 40.0


class RawClient:
    """Calls with the client token of the data directory.

    Args:
        skerry: Must be up; after a restart on another port a new client is needed.
    """

    def __init__(self, skerry: SkerryUp, session: aiohttp.ClientSession) -> None:
        self._session = session
        self._url = json.loads(skerry.data.endpoint.read_text())["url"]
        self._headers = {"Authorization": f"Bearer {skerry.data.client_token.read_text().strip()}"}

    async def create(self, **config: object) -> tuple[str, aiohttp.ClientWebSocketResponse]:
        """Make a sandbox; the connection is its primary client."""
        header = base64.b64encode(json.dumps(config).encode()).decode()
        headers = self._headers | {"x-deno-sandbox-config": header}
        socket = await self._session.ws_connect(f"{self._url}/api/v3/sandboxes/create", headers=headers)
        return str(socket._response.headers["x-deno-sandbox-id"]), socket

    async def connect(self, sandbox_id: str) -> aiohttp.ClientWebSocketResponse:
        """One more client."""
        url = f"{self._url}/api/v3/sandbox/{sandbox_id}/connect"
        return await self._session.ws_connect(url, headers=self._headers)

    async def serves(self, sandbox_id: str) -> bool:
        """Whether a sandbox answers a call."""
        async with await self.connect(sandbox_id) as socket:
            await socket.send_json({"jsonrpc": "2.0", "id": 1, "method": "envToObject", "params": {}})
            message = await socket.receive(timeout=DEADLINE_S)
            if message.type is not aiohttp.WSMsgType.TEXT:
                raise aiohttp.ClientConnectionError(f"closed: {message.data}")  # the server is stopping
            return "ok" in json.loads(message.data)["result"]

    async def list(self) -> dict[str, dict[str, Any]]:
        """Every sandbox, by its ID."""
        async with self._session.get(f"{self._url}/skerry/v1/sandboxes", headers=self._headers) as answer:
            return {row["sandbox_id"]: row for row in await answer.json()}

    async def kill(self, sandbox_id: str) -> None:
        """End a sandbox; one that has ended already is fine.

        Raises:
            aiohttp.ServerTimeoutError: The host is away or slow; the end is recorded, and can be asked for
                again.
        """
        url = f"{self._url}/api/v3/sandbox/{sandbox_id}"
        async with self._session.delete(url, headers=self._headers) as answer:
            text = await answer.text()
            if "TIMED_OUT" in text:
                raise aiohttp.ServerTimeoutError(text)
            assert answer.status in (200, 204, 400, 404), text


async def until(condition: Callable[[], Awaitable[object]], what: str) -> None:
    """Wait until a condition holds; a server that does not answer just now is not the end."""
    end_s = time.monotonic() + DEADLINE_S
    while True:
        with suppress(aiohttp.ClientError, OSError):
            if await condition():
                return
        assert time.monotonic() < end_s, f"{what} did not come about within {DEADLINE_S:g} s"
        await asyncio.sleep(0.02)
