"""The host side over hostd's socket."""

import array
import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final

import msgspec

from skerry.control.agent import PacedListener
from skerry.control.clock import Clock
from skerry.control.daemon_connection import ConnectionLost, DaemonConnection, error_of
from skerry.control.daemon_link import DaemonLink, Peer
from skerry.control.host import Listening
from skerry.control.tasks import Tasks
from skerry.errors import HostUnusable, RuntimeFailed, TimedOut
from skerry.protocol.host_verbs import (
    Call,
    Describe,
    Destroy,
    FrameReader,
    Happening,
    HostDescription,
    Inspect,
    OpenListener,
    Pause,
    Reply,
    Resume,
    Start,
    Stats,
    Verb,
    Watch,
    frame,
)
from skerry.spec.ids import SandboxId
from skerry.spec.sandbox import Ended, Observed, StartSpec, Usage

MAX_EVENTS = 4096
"""Happenings that wait to be read; when there are more, all are dropped and the reader is told to inspect."""

LISTEN_PAUSE_S: Final = 0.05

DEADLINES_S: Final[dict[type, float]] = {
    Describe: 30.0,
    Start: 30.0,
    Pause: 5.0,
    Resume: 5.0,
    Destroy: 8.0,
    Inspect: 10.0,
    Stats: 5.0,
    OpenListener: 5.0,
    Watch: 5.0,
}
"""Longest time per verb, waiting for a connection included. Describe may run a guest to see whether KVM
works.
"""

REPEATABLE: Final = (Describe, Pause, Resume, Destroy, Inspect, Stats, Watch)
"""Verbs that may be sent again when the connection broke before the answer. `Start` is not: it may have been
carried out.
"""


def _framed(call_id: int, verb: Verb) -> bytes:
    return frame(Call(id=call_id, verb=verb))


_PEER: Final[Peer[Verb]] = Peer(
    name="hostd",
    framed=_framed,
    lost_code=ConnectionLost.code,
    meanwhile="running sandboxes go on",
    deadlines_s=DEADLINES_S,
    repeatable=REPEATABLE,
)


class HostdClient:
    """Implements `skerry.control.host.Host`. It connects, and connects again whenever hostd was gone, until
    its tasks end.

    Args:
        socket_path: hostd's socket.
        tasks: Owns the task that keeps the connection.
    """

    def __init__(self, socket_path: Path, *, tasks: Tasks, clock: Clock) -> None:
        self._path = str(socket_path)
        self._clock = clock
        self._readers: set[asyncio.Queue[Happening | None]] = set()
        self._link = DaemonLink(
            socket_path, _PEER, tasks=tasks, clock=clock, greet=self._watch, on_event=self._publish
        )

    async def describe(self) -> HostDescription:
        """See `Host.describe`."""
        return await self._link.ask(Describe(), HostDescription)

    async def start(self, spec: StartSpec) -> None:
        """See `Host.start`."""
        await self._link.ask(Start(spec), None)

    async def pause(self, sandbox_id: SandboxId) -> None:
        """See `Host.pause`."""
        await self._link.ask(Pause(sandbox_id), None)

    async def resume(self, sandbox_id: SandboxId) -> None:
        """See `Host.resume`."""
        await self._link.ask(Resume(sandbox_id), None)

    async def destroy(self, sandbox_id: SandboxId) -> Ended:
        """See `Host.destroy`."""
        return await self._link.ask(Destroy(sandbox_id), Ended)

    async def inspect(self) -> list[Observed]:
        """See `Host.inspect`."""
        return await self._link.ask(Inspect(), list[Observed])

    async def stats(self, sandbox_id: SandboxId) -> Usage:
        """See `Host.stats`."""
        return await self._link.ask(Stats(sandbox_id), Usage)

    async def listen(
        self, sandbox_id: SandboxId, protocol_factory: Callable[[], asyncio.Protocol]
    ) -> Listening:
        """See `Host.listen`. The descriptor travels on a blocking connection of its own, because stream
        transports drop it.
        """
        verb = OpenListener(sandbox_id)
        deadline_s = DEADLINES_S[OpenListener]
        until_s = self._clock.monotonic_s() + deadline_s
        while True:
            await self._link.usable(verb, until_s, deadline_s)
            left_s = max(until_s - self._clock.monotonic_s(), 0.001)
            try:
                listener = await asyncio.to_thread(_fetch_listener, self._path, verb, left_s)
            except HostUnusable:
                if until_s - self._clock.monotonic_s() <= LISTEN_PAUSE_S:
                    raise
                await self._clock.sleep(LISTEN_PAUSE_S)
            else:
                return PacedListener(listener, protocol_factory)

    async def events(self) -> AsyncIterator[Happening | None]:
        """See `Host.events`. Yields None first of all, since nobody knows what happened before."""
        queue: asyncio.Queue[Happening | None] = asyncio.Queue()
        queue.put_nowait(None)
        self._readers.add(queue)
        try:
            while True:
                yield await queue.get()
        finally:
            self._readers.discard(queue)

    async def _watch(self, connection: DaemonConnection[Verb]) -> None:
        await connection.call(Watch(), timeout_s=DEADLINES_S[Watch])
        self._publish(None)

    def _publish(self, happening: Happening | None) -> None:
        for queue in self._readers:
            if queue.qsize() >= MAX_EVENTS:
                while not queue.empty():
                    queue.get_nowait()
                queue.put_nowait(None)
            queue.put_nowait(happening)


def _fetch_listener(path: str, verb: OpenListener, timeout_s: float) -> socket.socket:
    """Ask for a sandbox's listener and receive its descriptor. Blocks; for a thread.

    Source: unix(7), SCM_RIGHTS.
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asked:
            asked.settimeout(timeout_s)
            asked.connect(path)
            asked.sendall(frame(Call(id=1, verb=verb)))
            return _receive_listener(asked)
    except TimeoutError:
        raise TimedOut("hostd (OpenListener)", timeout_s) from None
    except OSError as error:
        raise HostUnusable("hostd cannot be reached", code=ConnectionLost.code, detail=str(error)) from error


def _receive_listener(asked: socket.socket) -> socket.socket:
    reader = FrameReader()
    received = array.array("i")
    try:
        while True:
            data, ancillary, _flags, _address = asked.recvmsg(
                65536, socket.CMSG_SPACE(4 * received.itemsize), socket.MSG_CMSG_CLOEXEC
            )
            for level, kind, payload in ancillary:
                if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                    received.frombytes(payload[: len(payload) - len(payload) % received.itemsize])
            if not data:
                raise ConnectionLost("hostd closed the connection without an answer")
            for body in reader.feed(data):
                reply = msgspec.msgpack.decode(body, type=Reply)
                if reply.failure is not None:
                    raise error_of(reply.failure)
                if len(received) != 1:
                    raise RuntimeFailed("hostd sent no listener", detail=f"{len(received)} descriptors")
                return socket.socket(fileno=received.pop())
    except (ValueError, msgspec.MsgspecError) as error:
        raise RuntimeFailed("hostd gave an answer that is not understood", detail=str(error)) from error
    finally:
        for descriptor in received:
            with contextlib.suppress(OSError):
                socket.close(descriptor)
