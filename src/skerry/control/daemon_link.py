"""The line to another daemon of this host, made again whenever it was lost."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Generic, TypeVar

import msgspec

from skerry.control.clock import Clock
from skerry.control.daemon_connection import ConnectionLost, DaemonConnection
from skerry.control.tasks import Tasks
from skerry.errors import HostUnusable, RuntimeFailed, TimedOut
from skerry.protocol.host_verbs import Happening

_T = TypeVar("_T")
_V = TypeVar("_V")

FIRST_PAUSE_S: Final = 0.02
LONGEST_PAUSE_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Peer(Generic[_V]):
    """Who is talked to.

    Attributes:
        name: For people.
        framed: Makes the frame of a call with this ID.
        lost_code: Code of the errors when it cannot be reached.
        meanwhile: What that means for the sandboxes that run, in words.
        deadlines_s: Longest time per verb, waiting for a connection included.
        repeatable: Verbs that may be sent again when the connection broke before the answer.
    """

    name: str
    framed: Callable[[int, _V], bytes]
    lost_code: str
    meanwhile: str
    deadlines_s: Mapping[type, float]
    repeatable: tuple[type, ...]


class DaemonLink(Generic[_V]):
    """Connects, and connects again whenever the daemon was gone, until its tasks end.

    Args:
        tasks: Owns the task that keeps the connection.
        greet: What is done first on each new connection, before others may use it.
        on_event: Called with everything that the daemon reports.
    """

    def __init__(
        self,
        socket_path: Path,
        peer: Peer[_V],
        *,
        tasks: Tasks,
        clock: Clock,
        greet: Callable[[DaemonConnection[_V]], Awaitable[None]],
        on_event: Callable[[Happening], None] = lambda _: None,
    ) -> None:
        self._path = str(socket_path)
        self._peer = peer
        self._clock = clock
        self._greet = greet
        self._on_event = on_event
        self._connection: DaemonConnection[_V] | None = None
        self._connected = asyncio.Event()
        tasks.keep(self._stay_connected, name=f"{peer.name}-connection")

    async def ask(self, verb: _V, kind: type[_T] | None, *, longer_s: float = 0.0) -> _T:
        """Carry a verb out within its deadline, over as many connections as that takes.

        Args:
            kind: Type of the answer.
            longer_s: Added to the deadline.
        Raises:
            TimedOut: No answer in time.
            HostUnusable: The daemon cannot be reached.
            SkerryError: What it answered.
        """
        deadline_s = self._peer.deadlines_s[type(verb)] + longer_s
        until_s = self._clock.monotonic_s() + deadline_s
        while True:
            connection = await self.usable(verb, until_s, deadline_s)
            try:
                raw = await connection.call(verb, timeout_s=max(until_s - self._clock.monotonic_s(), 0.001))
            except ConnectionLost:
                if not isinstance(verb, self._peer.repeatable):
                    raise
                continue
            return self._decode(raw, kind)

    async def usable(self, verb: _V, until_s: float, deadline_s: float) -> DaemonConnection[_V]:
        """Wait for a connection.

        Raises:
            HostUnusable: There was none until then.
        """
        left_s = until_s - self._clock.monotonic_s()
        if self._connection is None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left_s):
                    await self._connected.wait()
        if self._connection is None or left_s <= 0:
            name = self._peer.name
            raise HostUnusable(
                f"{name} cannot be reached (waited {deadline_s:g} s to {type(verb).__name__}); "
                f"{self._peer.meanwhile}. See `skerry status` and the log of {name}",
                code=self._peer.lost_code,
            )
        return self._connection

    async def _stay_connected(self) -> None:
        """Hold one connection at all times. The pause between attempts grows to a second; there is no last
        attempt.
        """
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                await self._serve_one_connection()
                pause_s = FIRST_PAUSE_S
            except (OSError, TimedOut, ConnectionLost):
                pass
            await self._clock.sleep(pause_s)
            pause_s = min(pause_s * 2, LONGEST_PAUSE_S)

    async def _serve_one_connection(self) -> None:
        """Connect, greet, and stay until the connection is lost."""
        lost = asyncio.Event()

        def forget() -> None:
            # At once, so that no call is tried on it again and again before the task here runs.
            self._connection = None
            self._connected.clear()
            lost.set()

        _, connection = await asyncio.get_running_loop().create_unix_connection(
            lambda: DaemonConnection(
                self._peer.name,
                self._peer.framed,
                lost_code=self._peer.lost_code,
                on_event=self._on_event,
                on_lost=forget,
            ),
            self._path,
        )
        try:
            await self._greet(connection)
            self._connection = connection
            self._connected.set()
            await lost.wait()
        finally:
            forget()
            connection.close()

    def _decode(self, raw: msgspec.Raw, kind: type[_T] | None) -> _T:
        try:
            return msgspec.msgpack.decode(raw, type=kind)
        except msgspec.MsgspecError as error:
            raise RuntimeFailed(
                f"{self._peer.name} gave an answer that is not understood", detail=str(error)
            ) from error
