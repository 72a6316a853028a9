"""Work in a network namespace, and what passes through one."""

import os
import select
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from skerry.hostd.sys import network_namespace

_T = TypeVar("_T")

_ALL_PROTOCOLS = 0x0003  # ETH_P_ALL, packet(7)
_SO_RCVBUFFORCE = 33
_BUFFER_BYTES = 64 << 20
_READ_BYTES = 65_536


def inside(pin: Path, work: Callable[[], _T]) -> _T:
    """Do something in the namespace that a file holds; sockets made there stay its."""
    results: list[_T] = []
    failures: list[BaseException] = []

    def run() -> None:
        try:
            namespace = network_namespace.open_pinned(pin)
            assert namespace is not None, f"{pin} holds no namespace"
            try:
                network_namespace.enter(namespace)
            finally:
                os.close(namespace)
            results.append(work())
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
    return results[0]


class Recorder:
    """Every frame that any interface of a namespace sees, with the interface's name."""

    def __init__(self, tap: socket.socket) -> None:
        self._tap = tap
        self._seen: list[tuple[str, bytes]] = []

    def frames(self) -> list[tuple[str, bytes]]:
        """All up to now."""
        with suppress(BlockingIOError):
            while True:
                frame, address = self._tap.recvfrom(_READ_BYTES)
                self._seen.append((address[0], frame))
        return self._seen

    def holding(self, part: bytes) -> list[tuple[str, bytes]]:
        """Those that hold some bytes."""
        return [seen for seen in self.frames() if part in seen[1]]

    def wait_for(self, part: bytes, *, timeout_s: float = 10.0) -> tuple[str, bytes]:
        """The first that holds some bytes."""
        while not (found := self.holding(part)):
            assert select.select([self._tap], [], [], timeout_s)[0], f"no frame with {part!r}"
        return found[0]


@contextmanager
def recorded(pin: Path | None = None) -> Iterator[Recorder]:
    """Record in the namespace that a file holds, or in this process's own."""

    def tap() -> socket.socket:
        made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL_PROTOCOLS))
        made.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_BYTES)
        made.setblocking(False)
        return made

    made = tap() if pin is None else inside(pin, tap)
    with made:
        yield Recorder(made)


def original_destination(connection: socket.socket) -> tuple[str, int]:
    """Where a redirected connection was going (SO_ORIGINAL_DST)."""
    raw = connection.getsockopt(socket.IPPROTO_IP, 80, 16)
    return socket.inet_ntoa(raw[4:8]), int.from_bytes(raw[2:4], "big")
