"""What both kinds of streams share: how they fail, and how much memory they may take together."""

from collections.abc import Callable
from typing import Protocol

from skerry.errors import AgentError, SkerryError

WINDOW_BYTES = 256 << 10
"""How much one stream may have under way or unread."""
OUTPUT_POOL_BYTES = 16 << 20
INPUT_POOL_BYTES = 32 << 20
FLOOR_BYTES = 4 << 10
"""What every stream may hold even when its pool is used up, so that none starves."""
MAX_OFFSET = 2**62
"""Beyond what any stream can reach; keeps sums within the 64 bits of a frame."""

MakeError = Callable[[], SkerryError]
"""Makes a new error for each waiter: one object raised twice would collect both tracebacks."""


class StreamReset(AgentError):
    """The stream was given up, by the agent or by us; ``code`` is an errno name or a code of the channel."""


class Channel(Protocol):
    """The sandbox's link, as streams see it."""

    @property
    def connected(self) -> bool:
        """A connection with a handshake lives."""

    @property
    def congested(self) -> bool:
        """The agent does not read as fast as we write."""

    def send(self, data: bytes) -> None:
        """Write whole frames to the live connection, if there is one."""

    def charge(self, frames: int = 1) -> None:
        """Count frames that an honest agent rarely sends.

        Raises:
            ProtocolError: There were too many of late.
        """


class Pool:
    """Bytes that the streams of one kind of one sandbox may hold together.

    The total stays below `capacity_bytes` and `FLOOR_BYTES` for each stream.
    """

    def __init__(self, capacity_bytes: int) -> None:
        self._capacity_bytes = capacity_bytes
        self.used_bytes = 0

    def room(self, held_bytes: int) -> int:
        """What a stream that holds so much may take in addition."""
        return max(self._capacity_bytes - self.used_bytes, FLOOR_BYTES - held_bytes, 0)

    def take(self, amount_bytes: int) -> None:
        """Count bytes as held."""
        self.used_bytes += amount_bytes

    def give_back(self, amount_bytes: int) -> None:
        """Count bytes as free again."""
        self.used_bytes -= amount_bytes
