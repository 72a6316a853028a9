"""One client on one sandbox: its messages, its calls under way, its streams, and how all that ends.

Bounds per connection: `MAX_OPEN_CALLS` calls under way (one more is answered with *Server error*), of which
`MAX_AT_THE_AGENT` are at the sandbox's agent at once while the rest wait their turn; `processWait`s do not
count there. Messages that are no JSON are ignored, `MAX_GARBAGE` of them; then the connection is closed with
4000. Other bounds are in `websocket`, `inbound` and `budget`.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import msgspec
import pybase64
import structlog

from skerry.api.deno.budget import MemoryBudget
from skerry.api.deno.calls import Base64, Call, CallFailed, InvalidParams, Method
from skerry.api.deno.errors import error_object_of
from skerry.api.deno.inbound import ClientStreams
from skerry.api.deno.methods import METHODS
from skerry.api.deno.outbound import SpawnedProcess
from skerry.api.deno.websocket import GOING_AWAY, INVALID_JSON, POLICY_VIOLATION, MessageSocket
from skerry.errors import AgentError, InvalidRequest, SandboxEnded, SkerryError
from skerry.protocol import deno_params as params
from skerry.protocol import jsonrpc
from skerry.protocol.deno_errors import aborted, error_object, process_gone, too_large_for_client
from skerry.protocol.deno_flavour import Flavour
from skerry.protocol.deno_validation import issues_of, zod_data
from skerry.service.attachment import Attachment
from skerry.spec.sandbox import EndReason

MAX_OPEN_CALLS = 16_384
MAX_AT_THE_AGENT = 256
MAX_FILES = 32
"""Files that one connection reads at once, and as many that it writes: the agent takes 64 of each from all of
them together."""

MAX_GARBAGE = 16

UNASKED_RELEASE_S = 2.0
"""A client that is neither SDK gets output without `processWait` after so long."""

PYTHON_GRACE_S = 3.0
"""The Python SDK calls `processKill` on its way out even after it has killed the sandbox, and raises if it
cannot."""

DETACH_S = 15.0

_log = structlog.get_logger(__name__)

_decode_chunk = msgspec.json.Decoder(params.StreamChunk).decode
_decode_mark = msgspec.json.Decoder(params.StreamMark).decode
_decode_failed = msgspec.json.Decoder(params.StreamFailed).decode


class Session:
    """Serves one connection from the upgrade to its end. Implements `calls.Context` and
    `websocket.Receiver`."""

    def __init__(
        self,
        attachment: Attachment,
        socket: MessageSocket,
        flavour: Flavour,
        *,
        budget: MemoryBudget,
        stream_ids: Iterator[int],
    ) -> None:
        self.agent = attachment.agent
        self.flavour = flavour
        self.socket = socket
        self.budget = budget
        self.stream_ids = stream_ids
        self.spawned: dict[int, SpawnedProcess] = {}
        self._attachment = attachment
        self._loop = asyncio.get_running_loop()
        self.streams = ClientStreams(socket, budget, self._loop)
        self.reads = asyncio.Semaphore(MAX_FILES)
        self.writes = asyncio.Semaphore(MAX_FILES)
        self._calls: set[Call] = set()
        self._abortable: dict[int, Call] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._group: asyncio.TaskGroup | None = None
        self._at_the_agent = asyncio.Semaphore(MAX_AT_THE_AGENT)
        self._garbage = 0
        self._end_reason: EndReason | None = None
        self._timers: set[asyncio.TimerHandle] = set()
        self._clean = False

    async def run(self, opened: Coroutine[Any, Any, Any], *, stopping: Callable[[], bool]) -> None:
        """Serve until the connection is gone, then tell the service.

        Args:
            opened: Sends the answer to the upgrade; messages are handled from before it is sent.
            stopping: The server itself is going away: then the client did not leave, and its sandbox keeps
                its primary's place.
        """
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                await opened
                self._attachment.ended.add_done_callback(self._on_ended)
                await self.socket.closed
                self._stop_tasks()
        finally:
            self._attachment.ended.remove_done_callback(self._on_ended)
            self._free()
            if not stopping():
                # Otherwise the agent keeps all output for the process that takes over.
                self._leave_processes()
                await self._detach()

    async def _detach(self) -> None:
        """Shielded: a cancelled handler must not leave a session's sandbox behind."""
        try:
            async with asyncio.timeout(DETACH_S):
                await asyncio.shield(self._attachment.detach(clean=self._clean))
        except (SkerryError, TimeoutError) as error:
            _log.warning("detach failed", sandbox=self._attachment.sandbox_id, error=type(error).__name__)

    def _stop_tasks(self) -> None:
        for task in tuple(self._tasks):
            task.cancel()

    def _free(self) -> None:
        self.streams.close()
        for timer in self._timers:
            timer.cancel()

    def _leave_processes(self) -> None:
        for spawned in self.spawned.values():
            spawned.stop()
        self.spawned.clear()

    def start_task(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run something for as long as the connection lasts, at most."""
        if self._group is None:
            raise RuntimeError("the session is not running")
        task = self._group.create_task(self._guard(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _guard(self, work: Coroutine[Any, Any, None]) -> None:
        """A fault of ours in one task must not take the whole connection with it."""
        try:
            await work
        except Exception:
            _log.exception("a task of a session failed", sandbox=self._attachment.sandbox_id)

    # What the client sends

    def on_message(self, message: bytes) -> None:
        """Handle one message; answers that need no waiting are written before this returns."""
        if message == b"ping":
            if self.flavour is not Flavour.PYTHON:
                self.flavour = Flavour.JAVASCRIPT
                self.socket.send(b"pong")
            return
        try:
            incoming = jsonrpc.parse(message)
        except InvalidRequest:
            self._on_garbage()
            return
        id_text = jsonrpc.request_id(incoming)
        if id_text is not None:
            self._on_request(id_text, incoming)
        elif not bytes(incoming.id):
            self._on_notification(incoming)
        else:
            self._on_garbage()

    def _on_garbage(self) -> None:
        self._garbage += 1
        if self._garbage > MAX_GARBAGE:
            self.socket.close(INVALID_JSON, "not JSON-RPC")

    def _on_notification(self, incoming: jsonrpc.Incoming) -> None:
        text = jsonrpc.params_of(incoming)
        try:
            match incoming.method:
                case "$sandbox.stream.enqueue":
                    chunk = _decode_chunk(text)
                    data = pybase64.b64decode(chunk.data)
                    self.streams.on_enqueue(_stream_id(chunk.stream_id), data)
                case "$sandbox.stream.start":
                    self.streams.on_start(_stream_id(_decode_mark(text).stream_id))
                case "$sandbox.stream.end":
                    self.streams.on_end(_stream_id(_decode_mark(text).stream_id))
                case "$sandbox.stream.error":
                    failed = _decode_failed(text)
                    self.streams.on_error(_stream_id(failed.stream_id), _error_text(failed.error))
                case "$sandbox.stream.cancel":
                    self._on_cancel(_stream_id(_decode_mark(text).stream_id))
        except (msgspec.MsgspecError, ValueError, RecursionError):
            self._on_garbage()

    def _on_cancel(self, stream_id: int) -> None:
        for spawned in self.spawned.values():
            for pump in spawned.pumps:
                if pump.stream_id == stream_id:
                    pump.stop()
                    return

    # Calls

    def _on_request(self, id_text: bytes, incoming: jsonrpc.Incoming) -> None:
        method = METHODS.get(incoming.method)
        if method is None:
            self._refuse_unknown(id_text, incoming.method)
            return
        try:
            given = method.decoder.decode(jsonrpc.params_of(incoming))
        except (msgspec.MsgspecError, ValueError, RecursionError):
            issues = issues_of(jsonrpc.params_of(incoming), method.params)
            self._refuse_params(id_text, issues)
            return
        if self._end_reason is not None:
            self._answer_after_end(id_text, incoming.method, given, self._end_reason)
            return
        if len(self._calls) >= MAX_OPEN_CALLS:
            text = f"Server error: {MAX_OPEN_CALLS} calls are open on this connection; wait for answers"
            self.socket.send(jsonrpc.refused(id_text, jsonrpc.SERVER_ERROR, text))
            return
        call = Call(id_text, incoming.method)
        self._calls.add(call)
        self._register_abort(call, given)
        call.task = self.start_task(self._serve(call, method, given))

    def _refuse_unknown(self, id_text: bytes, name: str) -> None:
        if name:
            self.socket.send(jsonrpc.refused(id_text, jsonrpc.METHOD_NOT_FOUND, "Method not found"))
        else:
            self.socket.send(jsonrpc.refused(id_text, jsonrpc.INVALID_REQUEST, "Invalid Request"))

    def _refuse_params(self, id_text: bytes, issues: list[Any]) -> None:
        self.socket.send(jsonrpc.refused(id_text, jsonrpc.INVALID_PARAMS, "Invalid params", zod_data(issues)))

    async def _serve(self, call: Call, method: Method, given: Any) -> None:
        try:
            if call.method == "processWait":
                answer = await method.handler(self, given)
            else:
                async with self._at_the_agent:
                    answer = await method.handler(self, given)
            self._answer(call.id_text, answer)
        except CallFailed as error:
            self.socket.send(jsonrpc.failed(call.id_text, error.error))
        except InvalidParams as error:
            self._refuse_params(call.id_text, error.issues)
        except SandboxEnded as error:
            self.socket.send(_answer_at_end(call.id_text, call.method, error.reason))
        except SkerryError as error:
            self._fail(call, error, method.doing(given))
        except asyncio.CancelledError:
            if not call.aborted:
                raise
            self.socket.send(jsonrpc.failed(call.id_text, aborted()))
        except Exception:
            _log.exception("a call failed", method=call.method, sandbox=self._attachment.sandbox_id)
            self.socket.send(jsonrpc.refused(call.id_text, jsonrpc.INTERNAL_ERROR, "Internal error"))
        finally:
            self._calls.discard(call)
            self._forget_abort(call, given)

    def _answer(self, id_text: bytes, answer: object) -> None:
        if answer is None:
            message = jsonrpc.ok_void(id_text)
        elif isinstance(answer, Base64):
            message = jsonrpc.ok_bytes(id_text, answer.data)
        else:
            message = jsonrpc.ok(id_text, answer)
        limit_bytes = self.flavour.max_message_bytes
        if len(message) > limit_bytes:
            message = jsonrpc.failed(id_text, too_large_for_client(len(message), limit_bytes))
        self.socket.send(message)

    def _fail(self, call: Call, error: SkerryError, doing: str) -> None:
        if not isinstance(error, AgentError):
            _log.info("a call failed", method=call.method, code=error.code, detail=error.detail)
        self.socket.send(jsonrpc.failed(call.id_text, error_object_of(error, doing=doing)))

    # Abort signals

    def _register_abort(self, call: Call, given: Any) -> None:
        abort_id = getattr(given, "abort_id", None)
        if abort_id is not None and call.method != "abort":
            self._abortable[abort_id] = call

    def _forget_abort(self, call: Call, given: Any) -> None:
        abort_id = getattr(given, "abort_id", None)
        if abort_id is not None and self._abortable.get(abort_id) is call:
            del self._abortable[abort_id]

    def abort(self, abort_id: int) -> None:
        """End the call of that abort ID with an error; nothing when it is not under way."""
        call = self._abortable.pop(abort_id, None)
        if call is not None and call.task is not None:
            call.aborted = True
            # Behind the task's first step: one cancelled before that would end without an answer.
            self._loop.call_soon(call.task.cancel)

    def release_later(self, spawned: SpawnedProcess) -> None:
        """Clients that are no SDK of ours need not call `processWait` to see output."""
        self._drop_finished()
        if self.flavour is Flavour.OTHER and spawned.pumps:
            self._later(UNASKED_RELEASE_S, lambda: spawned.release(self.start_task))

    def _drop_finished(self) -> None:
        """Forget processes that have ended and whose output is all sent, so that a long connection does not
        grow."""
        for pid in [pid for pid, spawned in self.spawned.items() if spawned.is_finished]:
            del self.spawned[pid]

    def _later(self, delay_s: float, action: Callable[[], object]) -> None:
        def run() -> None:
            self._timers.discard(timer)
            action()

        timer = self._loop.call_later(delay_s, run)
        self._timers.add(timer)

    # The end

    def on_closed(self, *, clean: bool) -> None:
        """The connection is gone; `run` does the rest."""
        self._clean = clean

    def _on_ended(self, ended: "asyncio.Future[EndReason]") -> None:
        """The sandbox is gone: answer what is under way (one SDK would wait for ever), end the streams, then
        close."""
        if ended.cancelled() or self._end_reason is not None:
            return
        reason = EndReason.CRASHED if ended.exception() is not None else ended.result()
        self._end_reason = reason
        for call in tuple(self._calls):
            self.socket.send(_answer_at_end(call.id_text, call.method, reason))
        self._calls.clear()
        for spawned in self.spawned.values():
            spawned.finish_now(None)
        self._stop_tasks()
        if self.flavour is Flavour.PYTHON:
            self._later(PYTHON_GRACE_S, self._close_ended)
        else:
            self._close_ended()

    def leave(self, reason: str) -> None:
        """The server goes away, the sandbox stays."""
        self._break_off(
            "SERVER_GOING_AWAY", f"{reason}; connect to the sandbox again", close=(GOING_AWAY, reason)
        )

    def revoke(self) -> None:
        """The client's token was revoked: nothing more is done for it."""
        reason = "the token was revoked"
        self._break_off("TOKEN_REVOKED", f"{reason}; use another one", close=(POLICY_VIOLATION, reason))

    def _break_off(self, code: str, message: str, *, close: tuple[int, str]) -> None:
        """Answer what is under way, break the streams off, close."""
        gone = error_object("ConnectionAborted", message, code=code)
        for call in tuple(self._calls):
            self.socket.send(jsonrpc.failed(call.id_text, gone))
        self._calls.clear()
        for spawned in self.spawned.values():
            spawned.finish_now(None if self.flavour is Flavour.PYTHON else gone)
        self._stop_tasks()
        self.socket.close(*close)

    def _close_ended(self) -> None:
        self.socket.close(GOING_AWAY, f"the sandbox has ended: {self._end_reason}")

    def _answer_after_end(self, id_text: bytes, name: str, given: Any, reason: EndReason) -> None:
        if name == "abort":
            self.socket.send(jsonrpc.ok_void(id_text))
            return
        self.socket.send(_answer_at_end(id_text, name, reason))


def _answer_at_end(id_text: bytes, name: str, reason: str) -> bytes:
    """What a call gets whose sandbox is gone."""
    if name == "processKill":
        return jsonrpc.failed(id_text, process_gone())
    if name == "processWait" and reason == EndReason.OUT_OF_MEMORY:
        status = {"success": False, "code": 137, "signal": "SIGKILL", "oom": "low-confidence"}
        return jsonrpc.ok(id_text, status)
    return jsonrpc.failed(id_text, error_object_of(SandboxEnded(reason)))


def _stream_id(text: msgspec.Raw) -> int:
    """A client's stream ID.

    Raises:
        ValueError: It is not a whole number that both sides can hold.
    """
    raw = bytes(text)
    if len(raw) > 16 or not raw.isdigit():
        raise ValueError("not a stream ID")
    return int(raw)


def _error_text(error: str | dict[str, object] | None) -> str:
    if isinstance(error, dict):
        error = str(error.get("message", ""))
    return (error or "the client gave it up")[:500]
