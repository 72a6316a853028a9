"""One sandbox's end of the agent channel: which connection counts, requests that run once, bounds."""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import msgspec

from skerry.control.agent.calls import Calls
from skerry.control.agent.connection import Connection
from skerry.control.agent.pace import TokenBucket
from skerry.control.agent.streams import MakeError
from skerry.control.agent.table import StreamTable
from skerry.errors import GuestUnreachable, SandboxEnded
from skerry.protocol import frames, messages
from skerry.protocol.frames import MAX_UNFINISHED_BYTES, Frame
from skerry.protocol.messages import Hello, ProtocolError, Response

T = TypeVar("T")

ERRORS_BEFORE_PAUSE = 5
ERROR_WINDOW_S = 10.0
PAUSE_S = 1.0


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
        self.calls = Calls(self)
        self._handlers = self._handlers_by_type()
        self._live: Connection | None = None
        self._newcomer: Connection | None = None
        self._key: bytes | None = None
        self._boot: bytes | None = None
        self._ended: str | None = None
        self._listener: LinkListener | None = None
        self._connect_waiters: list[asyncio.Future[None]] = []
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
        return self.calls.unanswered

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

    def request(
        self, method: str, params: msgspec.Struct, result_type: type[T], *, timeout_s: float
    ) -> Coroutine[Any, Any, T]:
        """See `Calls.request`."""
        return self.calls.request(method, params, result_type, timeout_s=timeout_s)

    def close(self, reason: str) -> None:
        """The sandbox has ended: all that waits fails with `SandboxEnded`, connections close. Idempotent."""
        if self._ended is not None:
            return
        self._ended = reason
        for connection in (self._live, self._newcomer):
            if connection is not None:
                connection.close()
        self.calls.close(self._end_error)
        self._fail_all(self._end_error, for_good=True)
        for waiter in self._connect_waiters:
            if not waiter.done():
                waiter.set_exception(self._end_error())

    # What streams and calls use.

    @property
    def congested(self) -> bool:
        """The agent does not read as fast as we write."""
        return self._live is not None and self._live.congested

    def send(self, data: bytes) -> None:
        """Write whole frames to the live connection, if there is one."""
        if self._live is not None:
            self.stats.bytes_out += len(data)
            self._live.write(data)

    def expect_answers(self, total_bytes: int) -> None:
        """Answers of so many bytes may come: nothing may come in parts that nobody asked for."""
        if self._live is not None:
            self._live.decoder.budget_bytes = min(total_bytes, MAX_UNFINISHED_BYTES)

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
        self._begin(known_boot)

    def _begin(self, known_boot: bytes | None) -> None:
        """Bring a new live connection up to date."""
        replaced = known_boot is not None and known_boot != self._boot
        if known_boot is not None:
            self.stats.reconnects += 1
        if replaced:
            self._fail_all(_agent_restarted, for_good=False)
        self.send(self._welcome)
        self.calls.connected()
        self.streams.connected(answers_missing=self.calls.answers_missing)
        if known_boot is not None and not replaced and self._listener is not None:
            self._listener.reconnected()
        waiters, self._connect_waiters = self._connect_waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _fail_all(self, make_error: MakeError, *, for_good: bool) -> None:
        self.calls.fail(make_error, unsent_too=for_good)
        self.streams.fail_all(make_error, for_good=for_good)
        if self._listener is not None:
            self._listener.agent_replaced(make_error)

    # Frames.

    def _handlers_by_type(self) -> dict[type[Frame], Callable[[Any], None]]:
        """Who takes which frame of a live connection; all others break the protocol."""
        return {
            frames.Data: self.streams.data,
            frames.End: self.streams.end,
            frames.Credit: self.streams.credit,
            frames.Reset: self.streams.reset,
            frames.Attach: self.streams.attach,
            frames.Gap: self.streams.gap,
            frames.Ping: self._ping,
            frames.Pong: lambda _: self.charge(),
            Response: self.calls.answer_arrived,
            messages.Exit: self._exit,
        }

    def _handle(self, frame: Frame) -> None:
        handler = self._handlers.get(type(frame))
        if handler is None:
            raise ProtocolError("order", f"{type(frame).__name__} after the handshake")
        handler(frame)

    def _ping(self, ping: frames.Ping) -> None:
        self.charge()
        if not self.congested:
            self.send(frames.pong(ping.payload))

    def _exit(self, exit_: messages.Exit) -> None:
        if self._listener is not None:
            self._listener.process_exited(exit_)

    # The end.

    def _check_open(self) -> None:
        if self._ended is not None:
            raise self._end_error()

    def _end_error(self) -> SandboxEnded:
        return SandboxEnded(self._ended or "unknown")


def _agent_restarted() -> GuestUnreachable:
    return GuestUnreachable("The sandbox's agent was replaced by another one.", code="AGENT_RESTARTED")
