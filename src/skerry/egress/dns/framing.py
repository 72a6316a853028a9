"""DNS over TCP: each message after its length in two bytes (RFC 7766, section 8)."""

from skerry.egress.dns.message import HEADER_BYTES, MAX_QUERY_BYTES

_LENGTH_BYTES = 2


class FramingError(Exception):
    """The stream cannot be DNS; it must be closed."""


class QueryFramer:
    """Cuts a stream into queries. Holds at most one incomplete query."""

    def __init__(self) -> None:
        self._held = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Return the queries that are complete now.

        Raises:
            FramingError: A length that no query has.
        """
        data = self._held + data
        found: list[bytes] = []
        at = 0
        while len(data) - at >= _LENGTH_BYTES:
            size = int.from_bytes(data[at : at + _LENGTH_BYTES], "big")
            if not HEADER_BYTES <= size <= MAX_QUERY_BYTES:
                raise FramingError
            end = at + _LENGTH_BYTES + size
            if end > len(data):
                break
            found.append(data[at + _LENGTH_BYTES : end])
            at = end
        self._held = data[at:]
        return found


def framed(message: bytes) -> bytes:
    """A message with its length in front."""
    return len(message).to_bytes(_LENGTH_BYTES, "big") + message
