"""Looks for the end of a head in what has come of it."""

import re

from skerry.egress.http1.model import Malformed
from skerry.spec.settings import EgressLimits


class HeadSearch:
    """Finds the empty line after a head, and refuses early what can never become one, so that nobody waits
    for the rest.

    Args:
        first_line: What the first line must match.
    """

    def __init__(self, limits: EgressLimits, first_line: re.Pattern[bytes] | None = None) -> None:
        self._limits = limits
        self._first_line = first_line
        self._searched = 0
        self._line_seen = first_line is None

    @property
    def fresh(self) -> bool:
        """Nothing of the next head has been searched yet."""
        return self._searched == 0

    def find_end(self, data: bytes, at: int) -> int:
        """Where the head ends, without the empty line; -1: not here yet.

        Args:
            at: Where it begins. At the next call everything from here on must be there again.
        Raises:
            Malformed: It is too long, or cannot become a head.
        """
        end = data.find(b"\r\n\r\n", at + max(self._searched - 3, 0))
        if (len(data) if end < 0 else end) - at > self._limits.head_bytes:
            raise Malformed("a head is too long", 431)
        if end < 0:
            self._judge_part(data, at)
        else:
            self._searched = 0
            self._line_seen = self._first_line is None
        return end

    def _judge_part(self, data: bytes, at: int) -> None:
        start = at + self._searched
        if self._searched and data[start - 1] == 0x0D:
            start -= 1
        ends = data.count(b"\r\n", start)
        if data.count(b"\n", start) != ends or data.count(b"\r", start, len(data) - 1) > ends:
            raise Malformed("a bare carriage return or line feed")
        self._searched = len(data) - at
        if not self._line_seen and self._first_line is not None:
            line_end = data.find(b"\r\n", at)
            if line_end >= 0:
                self._line_seen = True
                if not self._first_line.fullmatch(data, at, line_end):
                    raise Malformed("not a line that begins a message")
