"""Which client is on the other end of a WebSocket: several answers have to differ."""

from enum import StrEnum

PYTHON_MAX_MESSAGE_BYTES = 1_000_000
"""The Python SDK closes the connection on a message above 1 MiB."""

JAVASCRIPT_MAX_MESSAGE_BYTES = 100_000_000
"""The JavaScript SDK closes the connection on a message above 100 MiB."""


class Flavour(StrEnum):
    """The SDK that a client is, as far as the wire tells."""

    PYTHON = "python"
    JAVASCRIPT = "javascript"
    OTHER = "other"

    @property
    def max_message_bytes(self) -> int:
        """Longest message that this client takes."""
        return PYTHON_MAX_MESSAGE_BYTES if self is Flavour.PYTHON else JAVASCRIPT_MAX_MESSAGE_BYTES


def flavour_of(user_agent: str | None) -> Flavour:
    """Tell the SDKs apart by ``User-Agent``: the Python one names ``websockets/``, the JavaScript one sends
    none."""
    if user_agent is None:
        return Flavour.JAVASCRIPT
    return Flavour.PYTHON if "websockets/" in user_agent else Flavour.OTHER
