"""The broker's end of the line to the zygote."""

import asyncio
import socket
from collections.abc import Callable, Sequence

import msgspec
import structlog

from skerry.egress.broker.descriptors import send
from skerry.egress.zygote import MAX_MESSAGE_BYTES, Ended, Fork, Forked, FromZygote, Kill
from skerry.errors import RuntimeFailed, TimedOut

FORK_S = 5.0
_MAX_AT_ONCE = 256

_log = structlog.get_logger("skerry.egress.zygote")
_answers = msgspec.msgpack.Decoder(FromZygote)
_encode = msgspec.msgpack.Encoder().encode


class ZygoteClient:
    """Has workers forked, hears of their end, and has them killed.

    Args:
        sock: The end of the pair; owned from now on.
        on_lost: Called once when the zygote is gone. No worker lives then, and none can be started, since a
            copy of this process would hold the secrets of all.
    """

    def __init__(self, sock: socket.socket, on_lost: Callable[[], None]) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._sending = asyncio.Lock()
        self._number = 0
        self._forking: dict[int, tuple[asyncio.Future[int], Callable[[int], None]]] = {}
        self._on_end: dict[int, Callable[[int], None]] = {}
        self._loop.add_reader(sock.fileno(), self._receive)

    async def fork(self, descriptors: Sequence[int], on_end: Callable[[int], None]) -> int:
        """Start a worker.

        Args:
            on_end: Called with its exit status (negative: minus the signal) when it has ended, perhaps before
                this returns.
        Returns:
            Its process number.
        Raises:
            RuntimeFailed: It could not be started.
            TimedOut: No answer; should it have been started all the same, it will be killed.
        """
        self._number += 1
        number = self._number
        answer: asyncio.Future[int] = self._loop.create_future()
        self._forking[number] = (answer, on_end)
        try:
            async with asyncio.timeout(FORK_S), self._sending:
                await send(self._sock, _encode(Fork(number)), descriptors)
            async with asyncio.timeout(FORK_S):
                return await answer
        except TimeoutError:
            raise TimedOut("starting a worker", FORK_S) from None
        except OSError as error:
            raise RuntimeFailed("no worker can be started", detail=str(error)) from error
        finally:
            self._forking.pop(number, None)

    def kill(self, pid: int) -> None:
        """Kill a worker. Nothing happens when it has ended."""
        try:
            self._sock.send(_encode(Kill(pid)))
        except BlockingIOError:
            # Not full of kills but of forks that wait for the machine: once there is room, the kill goes.
            self._loop.call_later(0.01, self.kill, pid)
        except OSError:
            return  # gone, and with it all workers

    def close(self) -> None:
        """Hang up: the zygote and all workers end. Idempotent."""
        if self._sock.fileno() >= 0:
            self._loop.remove_reader(self._sock.fileno())
            self._sock.close()

    def _receive(self) -> None:
        for _ in range(_MAX_AT_ONCE):
            try:
                data = self._sock.recv(MAX_MESSAGE_BYTES)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                return self._lost()
            self._take(_answers.decode(data))

    def _take(self, message: FromZygote) -> None:
        match message:
            case Forked(number=number, pid=pid, problem=problem):
                waiting = self._forking.get(number)
                if waiting is None or waiting[0].done():
                    if pid:
                        self.kill(pid)
                    return
                answer, on_end = waiting
                if pid:
                    self._on_end[pid] = on_end
                    answer.set_result(pid)
                else:
                    answer.set_exception(RuntimeFailed("no worker can be started", detail=problem))
            case Ended(pid=pid, status=status):
                on_end_of_it = self._on_end.pop(pid, None)
                if on_end_of_it is not None:
                    on_end_of_it(status)

    def _lost(self) -> None:
        self.close()
        for answer, _ in self._forking.values():
            if not answer.done():
                answer.set_exception(RuntimeFailed("no worker can be started", detail="the zygote is gone"))
        ended, self._on_end = self._on_end, {}
        for on_end in ended.values():
            on_end(-9)
        self._on_lost()
