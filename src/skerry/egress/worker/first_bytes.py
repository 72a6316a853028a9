"""Waiting for what a client says first, without taking it. The caller sets the deadline."""

import socket

from skerry.egress.hello import Hello, MalformedHello, parse
from skerry.egress.worker.classify import Kind, kind_of
from skerry.egress.worker.peek import MAX_PEEK_BYTES, peek

MAX_ARRIVALS = 1_000
"""A hello in more pieces would cost too much to look at again and again."""

_RECORD_HEADER_BYTES = 5


async def wait_kind(sock: socket.socket) -> Kind:
    """Wait for enough of a client's first bytes to know what it speaks.

    Raises:
        ConnectionError: It ended the connection before.
    """
    have = 0
    while True:
        data = await peek(sock, have + 1)
        if (kind := kind_of(data)) is not None:
            return kind
        if len(data) <= have:
            raise ConnectionResetError("the client has left")
        have = len(data)


async def read_hello(sock: socket.socket) -> Hello:
    """Wait for the whole first message of a TLS client.

    Raises:
        MalformedHello: It is not a hello, has no end, or comes in too many pieces.
        OSError: The connection is broken.
    """
    least = _RECORD_HEADER_BYTES
    for _ in range(MAX_ARRIVALS):
        data = await peek(sock, least)
        hello = parse(data)
        if hello is not None:
            return hello
        if len(data) < least:
            raise MalformedHello("the hello has no end")
        least = _record_complete_at(data)
    raise MalformedHello("the hello comes in too many pieces")


def _record_complete_at(data: bytes) -> int:
    """How many bytes there are once the record that has begun, or its header, is complete."""
    at = 0
    while at + _RECORD_HEADER_BYTES <= len(data):
        at += _RECORD_HEADER_BYTES + int.from_bytes(data[at + 3 : at + 5], "big")
        if at > len(data):
            return min(at, MAX_PEEK_BYTES)
    return min(at + _RECORD_HEADER_BYTES, MAX_PEEK_BYTES)
