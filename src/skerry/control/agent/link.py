"""One sandbox's end of the agent channel: which connection counts, requests that run once, bounds."""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, cast

import msgspec

from skerry.control.agent.connection import Connection
from skerry.control.agent.pace import TokenBucket
from skerry.control.agent.requests import Answer, Pending, RequestTable
from skerry.control.agent.streams import MakeError
from skerry.control.agent.table import StreamTable
from skerry.errors import AgentError, GuestUnreachable, InvalidRequest, ResourceExhausted, SandboxEnded
from skerry.protocol import frames, messages
from skerry.protocol.frames import MAX_UNFINISHED_BYTES, Frame
from skerry.protocol.messages import Failure, Hello, ProtocolError, Response

T = TypeVar("T")
R = TypeVar("R")

ERRORS_BEFORE_PAUSE = 5
ERROR_WINDOW_S = 10.0
PAUSE_S = 1.0
MAX_DECODED_BYTES = 4 << 20
"""Answers above this are not decoded: it would hold up every other sandbox (about 15 ms per MiB at worst)."""


class LinkListener(Protocol):
    """Who is told what concerns processes."""

    def process_exited(self, exit_: messages.Exit) -> None:
        """EXIT."""

    def reconnected(self) -> None:
        """A connection lives again, to the agent known before: frames may have been lost in between."""

    def agent_replaced(self, make_error: MakeError) -> None:
        """Another agent runs in the sandbox, or (after `AgentLink.close`) none: its processes are gone."""


@dataclass(slots=True)
class LinkStats:
    """Counters of one link since it was made."""

    bytes_in: int = 0
    bytes_out: int = 0
    frames_in: int = 0
    protocol_errors: int = 0
    reconnects: int = 0
    refused_connections: int = 0


class AgentLink:
    """One sandbox's channel; outlives its connections. Its only I/O are the transports that `accept` gives.

    Memory, however hostile the agent: 512 KiB of frames for each of the live and the pending connection;
    answers in parts, as much as was asked for and at most 16 MiB; 16 MiB and one message of unanswered
    requests; the pools of `StreamTable`. Must be made inside the event loop that it is used in.

    Args:
        sandbox_id: For messages only; who the peer is follows from the listener that it came through.
        epoch: Minted when this process started; the same for all its links.
        reattach_window_ms: How long the agent keeps all output for us after the connection broke.
    """

    def __init__(self, *, sandbox_id: str, epoch: int, reattach_window_ms: int) -> None:
        self._loop = asyncio.get_running_loop()
        self.sandbox_id = sandbox_id
        self.stats = LinkStats()
        self.streams = StreamTable(self)
        self._welcome = frames.welcome(messages.Welcome(messages.GENERATION, epoch, reattach_window_ms))
        self._requests = RequestTable()
        self._live: Connection | None = None
        self._newcomer: Connection | None = None
        self._key: bytes | None = None
        self._boot: bytes | None = None
        self._answered = False  # a RESPONSE has come on the live connection
        self._ended: str | None = None
        self._listener: LinkListener | None = None
        self._connect_waiters: list[asyncio.Future[None]] = []
        self._expiry: asyncio.TimerHandle | None = None
        now_s = self._loop.time()
        self._error_times_s: deque[float] = deque(maxlen=ERRORS_BEFORE_PAUSE)
        self._refuse_until_s = now_s
        # Generous: an agent dials every 20 ms, and frames are on their way when a stream closes.
        self._dials = TokenBucket(capacity=32, per_s=32, now_s=now_s)
        self._strays = TokenBucket(capacity=20_000, per_s=1_000, now_s=now_s)

    # What owners and clients use.

    def accept(self) -> asyncio.Protocol:
        """A protocol for one more connection of the sandbox's listener; usable as a protocol factory."""
        return Connection(self, self._loop)

    @property
    def connected(self) -> bool:
        """An agent is connected and its HELLO was accepted."""
        return self._live is not None

    @property
    def agent_boot(self) -> bytes | None:
        """What the agent minted at its start; None before the first HELLO."""
        return self._boot

    @property
    def unanswered(self) -> int:
        """Requests under way."""
        return len(self._requests)

    def listen(self, listener: LinkListener) -> None:
        """Say who is told about processes; there is one."""
        self._listener = listener

    async def wait_connected(self, timeout_s: float) -> None:
        """Return when an agent is connected.

        Raises:
            GuestUnreachable: None was within the time.
            SandboxEnded: `close` was called.
        """
        self._check_open()
        if self._live is not None:
            return
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._connect_waiters.append(waiter)
        try:
            async with asyncio.timeout(timeout_s):
                await waiter
        except TimeoutError:
            raise GuestUnreachable(f"The sandbox's agent did not connect within {timeout_s:g} s.") from None
        finally:
            if waiter in self._connect_waiters:
                self._connect_waiters.remove(waiter)

    async def request(
        self, method: str, params: msgspec.Struct, result_type: type[T], *, timeout_s: float
    ) -> T:
        """Let the agent do something, exactly once, however often the connection breaks meanwhile.

        Args:
            timeout_s: Until the answer, in seconds.
        Raises:
            AgentError: The agent's answer; ``code`` is an errno name or a code of the channel.
            GuestUnreachable: No answer in time (it may still happen), or the agent was replaced.
            ResourceExhausted: The answer is too large.
            SandboxEnded: The sandbox ended.
        Cancellation does not stop what the agent does.
        """
        await self._place(method, timeout_s)
        pending = self.post(method, params, result_type, timeout_s=timeout_s)
        try:
            return cast(T, await pending.future)
        finally:
            self._requests.forget_unsent(pending)

    async def call(
        self,
        method: str,
        params: msgspec.Struct,
        result_type: type[R],
        *,
        timeout_s: float,
        accept: Callable[[Answer[R]], T],
        abandon: Callable[[T], None],
    ) -> T:
        """As `request`, for answers that name things.

        Args:
            accept: Makes the result of the answer, before any frame that follows the answer is looked at.
            abandon: Frees the result when the caller has gone away meanwhile.
        """
        await self._place(method, timeout_s)
        pending = self.post(method, params, result_type, timeout_s=timeout_s, accept=accept, abandon=abandon)
        future = pending.future
        try:
            return cast(T, await future)
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.exception() is None:
                abandon(future.result())
            raise
        finally:
            self._requests.forget_unsent(pending)

    def post(
        self,
        method: str,
        params: msgspec.Struct,
        result_type: Any,
        *,
        timeout_s: float,
        accept: Callable[[Answer[Any]], Any] | None = None,
        abandon: Callable[[Any], None] | None = None,
    ) -> Pending:
        """As `call`, without waiting; not held up by `MAX_UNANSWERED_REQUESTS`."""
        self._check_open()
        requests = self._requests
        acked = requests.acked
        id_ = requests.next_id()
        try:
            wire = frames.request(id_, acked, method, params)
        except ValueError:
            limit_mib = messages.MAX_MESSAGE_BYTES >> 20
            raise InvalidRequest(f"The request is larger than {limit_mib} MiB.", code="TOO_LARGE") from None
        pending = Pending(
            id=id_,
            method=method,
            wire=wire,
            result_type=result_type,
            max_response_bytes=messages.max_response_bytes(method, params),
            deadline_s=self._loop.time() + timeout_s,
            timeout_s=timeout_s,
            future=self._loop.create_future(),
            accept=accept,
            abandon=abandon,
        )
        requests.add(pending)
        if self._live is not None:
            pending.times_sent = 1
            self._set_budget(self._live)
            self.send(pending.wire)
        self._expire_at(pending.deadline_s)
        return pending

    def close(self, reason: str) -> None:
        """The sandbox has ended: all that waits fails with `SandboxEnded`, connections close. Idempotent."""
        if self._ended is not None:
            return
        self._ended = reason
        for connection in (self._live, self._newcomer):
            if connection is not None:
                connection.close()
        self._fail_all(self._end_error, for_good=True)
        for waiter in self._connect_waiters:
            if not waiter.done():
                waiter.set_exception(self._end_error())
        if self._expiry is not None:
            self._expiry.cancel()

    # What streams use.

    @property
    def congested(self) -> bool:
        """The agent does not read as fast as we write."""
        return self._live is not None and self._live.congested

    def send(self, data: bytes) -> None:
        """Write whole frames to the live connection, if there is one."""
        if self._live is not None:
            self.stats.bytes_out += len(data)
            self._live.write(data)

    def charge(self, count: int = 1) -> None:
        """Count frames that an honest agent rarely sends.

        Raises:
            ProtocolError: There were too many of late.
        """
        if not self._strays.try_take(self._loop.time(), count):
            raise ProtocolError("budget", "too many frames that nobody asked for")

    # What connections use.

    def connection_opened(self, connection: Connection) -> None:
        """Keep a newcomer until its HELLO, or close it at once."""
        now_s = self._loop.time()
        allowed = self._dials.try_take(now_s) and now_s >= self._refuse_until_s
        if self._ended is not None or self._newcomer is not None or not allowed:
            self.stats.refused_connections += 1
            connection.close()
            return
        self._newcomer = connection

    def frames_arrived(self, connection: Connection, arrived: list[Frame]) -> None:
        """Handle frames of the live connection, or the first one of a newcomer."""
        self.stats.bytes_in += connection.bytes_in
        connection.bytes_in = 0
        self.stats.frames_in += len(arrived)
        for frame in arrived:
            if connection is self._live:
                self._handle(frame)
            elif connection is self._newcomer:
                self._greet(connection, frame)
            else:
                return

    def rules_broken(self, connection: Connection, error: ProtocolError) -> None:
        """Count; after several errors in a short time, refuse all newcomers for a while."""
        now_s = self._loop.time()
        self.stats.protocol_errors += 1
        self._error_times_s.append(now_s)
        if (
            len(self._error_times_s) == ERRORS_BEFORE_PAUSE
            and now_s - self._error_times_s[0] <= ERROR_WINDOW_S
        ):
            self._refuse_until_s = now_s + PAUSE_S

    def writing_resumed(self, connection: Connection) -> None:
        """Let writers go on."""
        if connection is self._live:
            self.streams.room_freed()

    def connection_closed(self, connection: Connection) -> None:
        """Forget it; what waits, waits for the next one."""
        if connection is self._newcomer:
            self._newcomer = None
        elif connection is self._live:
            self._live = None
            self.streams.disconnected()

    # The handshake.

    def _greet(self, newcomer: Connection, frame: Frame) -> None:
        if not isinstance(frame, Hello):
            raise ProtocolError("order", "the first frame is not HELLO")
        if messages.GENERATION not in frame.generations:
            raise ProtocolError("payload", "no common generation")
        if self._live is not None and frame.key != self._key:
            self.stats.refused_connections += 1
            newcomer.close()
            return
        self._newcomer = None
        known_boot = self._boot
        if self._live is not None:
            self._live.close()
        newcomer.welcomed()
        self._live, self._key, self._boot = newcomer, frame.key, frame.boot
        self._begin(newcomer, known_boot)

    def _begin(self, live: Connection, known_boot: bytes | None) -> None:
        """Bring a new live connection up to date."""
        replaced = known_boot is not None and known_boot != self._boot
        if known_boot is not None:
            self.stats.reconnects += 1
        if replaced:
            self._fail_all(_agent_restarted, for_good=False)
        self._answered = False
        self.send(self._welcome)
        for wire in self._requests.send_again():
            self.send(wire)
        self._set_budget(live)
        self.streams.connected(answers_missing=self._requests.answers_missing)
        if known_boot is not None and not replaced and self._listener is not None:
            self._listener.reconnected()
        waiters, self._connect_waiters = self._connect_waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _fail_all(self, make_error: MakeError, *, for_good: bool) -> None:
        self._requests.fail(make_error, unsent_too=for_good)
        self.streams.fail_all(make_error, for_good=for_good)
        if self._listener is not None:
            self._listener.agent_replaced(make_error)

    # Frames.

    def _handle(self, frame: Frame) -> None:
        match frame:
            case frames.Data():
                self.streams.data(frame)
            case Response():
                self._answer(frame)
            case messages.Exit():
                if self._listener is not None:
                    self._listener.process_exited(frame)
            case frames.End():
                self.streams.end(frame)
            case frames.Credit():
                self.streams.credit(frame)
            case frames.Reset():
                self.streams.reset(frame)
            case frames.Attach():
                self.streams.attach(frame)
            case frames.Gap():
                self.streams.gap(frame)
            case frames.Ping():
                self.charge()
                if not self.congested:
                    self.send(frames.pong(frame.payload))
            case frames.Pong():
                self.charge()
            case _:
                raise ProtocolError("order", f"{type(frame).__name__} after the handshake")

    def _answer(self, response: Response) -> None:
        pending = self._requests.find(response.id)
        if pending is None:
            if response.id > self._requests.last_id or not response.id:
                raise ProtocolError("order", f"answer to {response.id}, which was never sent")
            self.charge()
            return
        if not self._answered:
            self._answered = True
            self.streams.asked_for_all()
        self._requests.remove(pending)
        if self._live is not None:
            self._set_budget(self._live)
        try:
            self._deliver(pending, response)
        except ProtocolError:
            if not pending.future.done():
                pending.future.set_exception(GuestUnreachable("The sandbox's agent gave a malformed answer."))
            raise
        finally:
            if not self._requests.answers_missing:
                self.streams.answers_complete()

    def _deliver(self, pending: Pending, response: Response) -> None:
        future = pending.future
        if not response.ok:
            failure = messages.decode(response.value, Failure)
            if not future.done():
                future.set_exception(AgentError(failure.code, failure.message))
            return
        if len(memoryview(response.value)) > min(pending.max_response_bytes, MAX_DECODED_BYTES):
            if not future.done():
                future.set_exception(ResourceExhausted("The answer is too large.", code="TOO_LARGE"))
            return
        answer = Answer(messages.decode(response.value, pending.result_type), pending.times_sent > 1)
        result = answer.value if pending.accept is None else pending.accept(answer)
        if not future.done():
            future.set_result(result)
        elif pending.abandon is not None:
            pending.abandon(result)

    async def _place(self, method: str, timeout_s: float) -> None:
        """Wait until there are few enough unanswered requests."""
        if not self._requests.full:
            return
        try:
            async with asyncio.timeout(timeout_s):
                await self._requests.wait_for_place()
        except TimeoutError:
            raise self._too_late(method, timeout_s) from None

    def _set_budget(self, connection: Connection) -> None:
        """Nothing may come in parts that nobody asked for."""
        connection.decoder.budget_bytes = min(self._requests.response_budget_bytes, MAX_UNFINISHED_BYTES)

    # Time.

    def _expire_at(self, deadline_s: float) -> None:
        """Look at the deadlines at that time. One timer for all: most requests are answered long before."""
        if self._expiry is None or deadline_s < self._expiry.when():
            if self._expiry is not None:
                self._expiry.cancel()
            self._expiry = self._loop.call_at(deadline_s, self._expire)

    def _expire(self) -> None:
        self._expiry = None
        late, next_s = self._requests.expire(self._loop.time())
        for pending in late:
            pending.future.set_exception(self._too_late(pending.method, pending.timeout_s))
        if next_s is not None:
            self._expire_at(next_s)

    def _too_late(self, method: str, timeout_s: float) -> GuestUnreachable:
        why = "did not answer" if self._live is not None else "is not connected and did not answer"
        return GuestUnreachable(f"The sandbox's agent {why} {method} within {timeout_s:g} s.")

    # The end.

    def _check_open(self) -> None:
        if self._ended is not None:
            raise self._end_error()

    def _end_error(self) -> SandboxEnded:
        return SandboxEnded(self._ended or "unknown")


def _agent_restarted() -> GuestUnreachable:
    return GuestUnreachable("The sandbox's agent was replaced by another one.", code="AGENT_RESTARTED")
