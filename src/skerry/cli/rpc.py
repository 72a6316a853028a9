"""The Deno Sandbox protocol as a client: JSON-RPC on one WebSocket.

Source: framing, requests and streams as both official SDKs speak them. It behaves as the JavaScript one.
"""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from skerry.cli.output import Unreachable
from skerry.cli.rest import error_of, path, unreachable
from skerry.cli.server import Server
from skerry.cli.tasks import background
from skerry.errors import Conflict, NotFound, SkerryError

_MAX_MESSAGE_BYTES = 192 << 20
_CONNECT_S = 30.0
_MAX_EARLY_BYTES = 1 << 20
_CHUNK_BYTES = 65_536
_MAX_ERROR_BYTES = 1 << 20

Sink = Callable[[bytes | None], None]
"""Takes the chunks of a stream and None at its end."""


class CallFailed(SkerryError):
    """The sandbox could not do what was asked; ``code`` is an errno name where there is one."""

    code = "FAILED"


class FileMissing(NotFound):
    """There is no such file or program in the sandbox."""

    code = "ENOENT"


class Session:
    """One connection to one sandbox. Made by `connected`."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, sandbox_id: str) -> None:
        self.sandbox_id = sandbox_id
        self.ended: asyncio.Future[SkerryError] = asyncio.get_running_loop().create_future()
        self._socket = socket
        self._calls: dict[int, asyncio.Future[Any]] = {}
        self._sinks: dict[int, Sink] = {}
        self._early: dict[int, list[bytes | None]] = {}
        self._early_bytes = 0
        self._next_id = 0
        self._next_stream = 0
        self._may_read = asyncio.Event()
        self._may_read.set()

    async def call(self, method: str, **params: Any) -> Any:
        """Call a method and wait for its result; parameters that are None are left out.

        Raises:
            CallFailed: The sandbox refused or could not.
            FileMissing: The same, because something does not exist.
            SkerryError: The connection ended.
        """
        if self.ended.done():
            raise self.ended.result()
        number, self._next_id = self._next_id, self._next_id + 1
        answer = self._calls[number] = asyncio.get_running_loop().create_future()
        given = {key: value for key, value in params.items() if value is not None}
        try:
            await self._send({"jsonrpc": "2.0", "id": number, "method": method, "params": given})
            return await answer
        finally:
            self._calls.pop(number, None)

    def receive(self, stream_id: int, sink: Sink) -> None:
        """Take the chunks of a server's stream, those that came already first."""
        for chunk in self._early.pop(stream_id, ()):
            sink(chunk)
            if chunk is None:
                return
            self._early_bytes -= len(chunk)
        self._sinks[stream_id] = sink

    async def cancel(self, stream_id: int) -> None:
        """Tell the server that nobody reads a stream any more."""
        self._sinks[stream_id] = lambda _: None
        await self._notify("cancel", streamId=stream_id, reason=None)

    async def open_stream(self) -> "Upload":
        """Begin a stream to the server."""
        number, self._next_stream = self._next_stream, self._next_stream + 1
        await self._notify("start", streamId=number)
        return Upload(number, self._notify)

    def pause(self) -> None:
        """Take no more messages, so that the server stops sending, until `resume`."""
        self._may_read.clear()

    def resume(self) -> None:
        """Take messages again. Idempotent."""
        self._may_read.set()

    async def read(self) -> None:
        """Take messages until the connection ends; then every call that waits fails."""
        problem: SkerryError = Unreachable("the connection to the server was lost: `skerry status` says more")
        try:
            async for message in self._socket:
                if message.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
                    self._take(message.data)
                await self._may_read.wait()
            problem = _reason_of_close(self._socket) or problem
        finally:
            self._end(problem)

    def _end(self, problem: SkerryError) -> None:
        self.ended.set_result(problem)
        for answer in self._calls.values():
            if not answer.done():
                answer.set_exception(problem)
        sinks, self._sinks = self._sinks, {}
        for sink in sinks.values():
            sink(None)

    def _take(self, text: str | bytes) -> None:
        try:
            message = json.loads(text)
        except ValueError:
            return  # a text "pong", for one
        if not isinstance(message, dict):
            return
        if "id" in message:
            self._answered(message)
        elif isinstance(params := message.get("params"), dict):
            self._stream_event(str(message.get("method")), params)

    def _answered(self, message: dict[str, Any]) -> None:
        answer = self._calls.get(message["id"])
        if answer is None or answer.done():
            return
        result = message.get("result")
        if isinstance(result, dict) and "ok" in result:
            answer.set_result(result["ok"])
        else:
            answer.set_exception(_failure(result, message.get("error")))

    def _stream_event(self, method: str, params: dict[str, Any]) -> None:
        number = params.get("streamId")
        if not isinstance(number, int):
            return
        match method:
            case "$sandbox.stream.enqueue":
                self._deliver(number, base64.b64decode(params.get("data") or ""))
            case "$sandbox.stream.end" | "$sandbox.stream.error":
                self._deliver(number, None)
            case "$sandbox.stream.cancel":
                return  # our write call fails and says why

    def _deliver(self, number: int, chunk: bytes | None) -> None:
        sink = self._sinks.get(number)
        if sink is None:
            self._early_bytes += len(chunk or b"")
            if self._early_bytes <= _MAX_EARLY_BYTES:
                self._early.setdefault(number, []).append(chunk)
            return
        if chunk is None:
            del self._sinks[number]
        sink(chunk)

    async def _notify(self, what: str, **params: Any) -> None:
        await self._send({"jsonrpc": "2.0", "method": f"$sandbox.stream.{what}", "params": params})

    async def _send(self, message: dict[str, Any]) -> None:
        try:
            await self._socket.send_str(json.dumps(message))
        except (ConnectionError, aiohttp.ClientError) as problem:
            raise Unreachable(f"the connection to the server was lost ({problem})") from problem


class Upload:
    """A stream to the server."""

    def __init__(self, number: int, notify: Any) -> None:
        self.number = number
        self._notify = notify

    async def write(self, data: bytes) -> None:
        """Send bytes, waiting while the connection is full."""
        for at in range(0, len(data), _CHUNK_BYTES):
            text = base64.b64encode(data[at : at + _CHUNK_BYTES]).decode()
            await self._notify("enqueue", streamId=self.number, data=text)

    async def end(self) -> None:
        """Say that nothing more comes."""
        await self._notify("end", streamId=self.number)

    async def fail(self) -> None:
        """Say that what was sent is worthless."""
        await self._notify("error", streamId=self.number, error=None)


@asynccontextmanager
async def connected(server: Server, sandbox_id: str) -> AsyncIterator[Session]:
    """Connect to a sandbox that runs; leaving the context leaves it running."""
    async with _opened(server, path("api", "v3", "sandbox", sandbox_id, "connect"), {}) as session:
        yield session


@asynccontextmanager
async def created(server: Server, config: Mapping[str, Any]) -> AsyncIterator[Session]:
    """Make a sandbox; leaving the context ends it unless it has a lifetime of its own.

    Args:
        config: As the create header carries it.
    """
    header = base64.b64encode(json.dumps(config).encode()).decode()
    target = path("api", "v3", "sandboxes", "create")
    async with _opened(server, target, {"x-deno-sandbox-config": header}) as session:
        yield session


@asynccontextmanager
async def _opened(server: Server, target: str, headers: dict[str, str]) -> AsyncIterator[Session]:
    handshake = _Handshake()
    async with aiohttp.ClientSession(trace_configs=[handshake.trace()], trust_env=False) as http:
        try:
            async with asyncio.timeout(_CONNECT_S):
                socket = await http.ws_connect(
                    server.url + target,
                    headers={"Authorization": f"Bearer {server.token}", **headers},
                    max_msg_size=_MAX_MESSAGE_BYTES,
                )
        except aiohttp.WSServerHandshakeError as problem:
            raise error_of(problem.status, handshake.body) from problem
        except (aiohttp.ClientError, OSError, TimeoutError) as problem:
            raise unreachable(server, problem) from problem
        async with socket:
            session = Session(socket, handshake.sandbox_id)
            async with background(session.read()):
                yield session


class _Handshake:
    """Keeps what aiohttp throws away: the body of a refusal, the headers of an acceptance."""

    def __init__(self) -> None:
        self.body = b""
        self.sandbox_id = ""

    def trace(self) -> aiohttp.TraceConfig:
        config = aiohttp.TraceConfig()
        config.on_request_end.append(self._request_ended)
        return config

    async def _request_ended(
        self, _session: aiohttp.ClientSession, _context: Any, params: aiohttp.TraceRequestEndParams
    ) -> None:
        response = params.response
        self.sandbox_id = response.headers.get("x-deno-sandbox-id", "")
        if response.status != 101:
            self.body = await response.content.read(_MAX_ERROR_BYTES)


def _failure(result: Any, error: Any) -> SkerryError:
    """The error of an answer that is no success."""
    found = result.get("error") if isinstance(result, dict) else error
    fields: Mapping[str, Any] = found if isinstance(found, dict) else {}
    message, code = str(fields.get("message", "the server's answer makes no sense")), fields.get("code")
    if code == "ENOENT":
        return FileMissing(message)
    return CallFailed(message, code=code if isinstance(code, str) else None)


def _reason_of_close(socket: aiohttp.ClientWebSocketResponse) -> SkerryError | None:
    if socket.close_code == aiohttp.WSCloseCode.GOING_AWAY:
        return Conflict("the sandbox has ended (`skerry list` says why)", code="SANDBOX_ENDED")
    return None
