"""h11 as a second opinion on HTTP/1.1 messages."""

from dataclasses import dataclass, field

import h11

Fields = list[tuple[bytes, bytes]]


@dataclass
class Seen:
    """One message as h11 reads it.

    Attributes:
        line: Method and target, or status and reason.
        rest: Bytes after the message; None if it has not ended.
    """

    line: tuple[object, ...]
    fields: Fields
    body: bytes = b""
    trailers: Fields = field(default_factory=list)
    rest: bytes | None = None


def request(wire: bytes) -> Seen | None:
    """The first request in these bytes; None: h11 refuses it, or its head has not ended."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    return _read(connection, wire, ends=False)


def response(wire: bytes, method: bytes = b"GET", *, ends: bool = False) -> Seen | None:
    """The first final response in these bytes; None: h11 refuses it, or its head has not ended.

    Args:
        ends: The connection ends after the bytes.
    """
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
    connection.send(h11.Request(method=method, target=b"/", headers=[(b"Host", b"a.example")]))
    connection.send(h11.EndOfMessage())
    return _read(connection, wire, ends=ends)


def _read(connection: h11.Connection, wire: bytes, *, ends: bool) -> Seen | None:
    connection.receive_data(wire)
    if ends:
        connection.receive_data(b"")
    seen: Seen | None = None
    try:
        while True:
            match connection.next_event():
                case h11.Request() as event:
                    seen = Seen((event.method, event.target), list(event.headers.raw_items()))
                case h11.Response() as event:
                    seen = Seen((event.status_code, bytes(event.reason)), list(event.headers.raw_items()))
                case h11.Data() as event if seen is not None:
                    seen.body += bytes(event.data)
                case h11.EndOfMessage() as event if seen is not None:
                    seen.trailers = list(event.headers.raw_items())
                    seen.rest = connection.trailing_data[0]
                    return seen
                case h11.InformationalResponse():
                    continue
                case _:
                    return seen
    except h11.RemoteProtocolError:
        return None
