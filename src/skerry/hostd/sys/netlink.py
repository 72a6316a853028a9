"""Messages to the kernel and its answers.

Source: netlink(7).
"""

import itertools
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

ROUTE: Final = 0
NETFILTER: Final = 12

CREATE: Final = 0x600
"""Flags of a request that makes something which is not there yet (NLM_F_EXCL and NLM_F_CREATE)."""

_ERROR: Final = 2
_DONE: Final = 3
_REQUEST: Final = 0x1
_ACK: Final = 0x4
_DUMP: Final = 0x300
_NESTED: Final = 0x8000
_KIND: Final = 0x3FFF

_HEADER: Final = struct.Struct("=IHHII")
_ATTRIBUTE: Final = struct.Struct("=HH")

_ANSWER_S: Final = 10.0
_READ_BYTES: Final = 1 << 17


@dataclass(frozen=True, slots=True)
class Request:
    """One thing that the kernel is asked.

    Attributes:
        kind: Type of the message.
        flags: Besides those that say how it is answered.
        body: What follows the header.
    """

    kind: int
    body: bytes
    flags: int = 0


class Netlink:
    """Asks the kernel about the network namespace in which the calling thread is when it makes this, for
    ever.

    One thread at a time may use it, in whatever namespace that is.

    Args:
        family: `ROUTE` or `NETFILTER`.

    Raises:
        OSError: The kernel refused, or did not answer in 10 s.
    """

    def __init__(self, family: int) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, family)
        self._socket.settimeout(_ANSWER_S)
        self._sequence = itertools.count(1)

    def close(self) -> None:
        """Idempotent."""
        self._socket.close()

    def ask(self, *requests: Request) -> None:
        """Have all of them done, in order. All are tried, also after one that fails.

        Raises:
            OSError: The first refusal.
        """
        waiting = self._send(_ACK, requests)
        refused = 0
        while waiting:
            for kind, number, body in self._receive():
                if kind == _ERROR and number in waiting:
                    waiting.discard(number)
                    refused = refused or _error_number(body)
        if refused:
            raise OSError(refused, os.strerror(refused))

    def list(self, request: Request) -> list[bytes]:
        """Bodies of everything that there is of a kind.

        Raises:
            OSError: The kernel refused.
        """
        (number,) = self._send(_DUMP, (request,))
        found: list[bytes] = []
        while True:
            for kind, answered, body in self._receive():
                if answered != number:
                    continue
                if kind == _ERROR and (refused := _error_number(body)):
                    raise OSError(refused, os.strerror(refused))
                if kind == _DONE:
                    return found
                found.append(body)

    def find(self, request: Request) -> bytes:
        """The body of the one thing that is asked for.

        Raises:
            OSError: The kernel refused; there is none.
        """
        (number,) = self._send(0, (request,))
        while True:
            for kind, answered, body in self._receive():
                if answered != number:
                    continue
                if kind == _ERROR and (refused := _error_number(body)):
                    raise OSError(refused, os.strerror(refused))
                return body

    def _send(self, flags: int, requests: tuple[Request, ...]) -> set[int]:
        numbers = [next(self._sequence) for _ in requests]
        messages = []
        for number, request in zip(numbers, requests, strict=True):
            length = _HEADER.size + len(request.body)
            header = _HEADER.pack(length, request.kind, request.flags | flags | _REQUEST, number, 0)
            messages.append(_padded(header + request.body))
        self._socket.send(b"".join(messages))
        return set(numbers)

    def _receive(self) -> Iterator[tuple[int, int, bytes]]:
        return messages(self._socket.recv(_READ_BYTES))


def messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Type, number and body of each message in what was received."""
    while len(data) >= _HEADER.size:
        length, kind, _, sequence, _ = _HEADER.unpack_from(data)
        yield kind, sequence, data[_HEADER.size : length]
        data = data[_aligned(max(length, _HEADER.size)) :]


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute."""
    return _padded(_ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value)


def nested(kind: int, *attributes: bytes) -> bytes:
    """An attribute that consists of attributes."""
    return attribute(kind | _NESTED, b"".join(attributes))


def text(kind: int, value: str) -> bytes:
    """An attribute that is a string."""
    return attribute(kind, value.encode() + b"\0")


def number(kind: int, value: int) -> bytes:
    """An attribute that is a number of 32 bits."""
    return attribute(kind, struct.pack("=I", value))


def attributes(data: bytes) -> dict[int, bytes]:
    """Values of attributes by their kind; the last of each."""
    found: dict[int, bytes] = {}
    while len(data) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(data)
        found[kind & _KIND] = data[_ATTRIBUTE.size : length]
        data = data[_aligned(max(length, _ATTRIBUTE.size)) :]
    return found


def _error_number(body: bytes) -> int:
    """What an acknowledgement says; 0: it was done."""
    return -int.from_bytes(body[:4], "little", signed=True)


def _padded(data: bytes) -> bytes:
    return data + bytes(_aligned(len(data)) - len(data))


def _aligned(length: int) -> int:
    return (length + 3) & ~3
