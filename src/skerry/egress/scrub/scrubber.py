"""Take secrets out of what passes, without delaying it."""

from dataclasses import dataclass, replace
from typing import Literal

from skerry.egress.scrub.needles import SLICE, Match, Needles

MASK = b"*"
MAX_HITS = 64


@dataclass(frozen=True, slots=True)
class Hit:
    """A secret stood here; never holds its bytes.

    Attributes:
        offset: Of its first byte, in what was searched.
        place: ``body``, ``status``, ``header:<name>``, ``trailer:<name>``.
    """

    secret: str
    encoding: str
    offset: int
    place: str = "body"


class SecretFound(Exception):
    """A secret stood in data whose connection is to be closed rather than masked. Never holds its bytes."""

    def __init__(self, hit: Hit) -> None:
        super().__init__("a secret stood in an answer")
        self.hit = hit


class Scrubber:
    """One stream, such as a body. What goes out has the length of what came in.

    Held back is only a tail that is a proper prefix of a needle: shorter than `Needles.longest`, and nothing
    when data end in a byte of no needle, such as the line end of an event. It leaves with the next data or
    at the end.

    Attributes:
        hits: At most `MAX_HITS`; neighbouring matches of one secret are one hit.
        hit_count: All.
    """

    def __init__(
        self, needles: Needles, *, action: Literal["mask", "abort"] = "mask", place: str = "body"
    ) -> None:
        self.hits: list[Hit] = []
        self.hit_count = 0
        self._needles = needles
        self._abort = action == "abort"
        self._place = place
        self._held = b""
        self._masked_lead = 0  # how much at the front of what is held belongs to an earlier match
        self._offset = 0  # of what is held, or of the next data
        self._last_end = -1  # of the last hit
        self._last_secret = ""

    def feed(self, data: bytes) -> bytes:
        """Search data and return what can go on.

        Raises:
            SecretFound: Something was found and the action is ``abort``.
        """
        seen = len(self._held)
        if seen:
            data = self._held + data
        folded = data.lower()
        matches = self._needles.find(folded)
        return self._pass(data, matches, seen, len(data) - self._needles.held(folded))

    def end(self) -> bytes:
        """Return what was still held."""
        data, self._held = self._held, b""
        if not data:
            return b""
        return self._pass(data, self._needles.find(data.lower()), len(data), len(data))

    def _pass(self, data: bytes, matches: list[Match], seen: int, stop: int) -> bytes:
        """Mask, keep what follows ``stop`` and return the rest.

        Args:
            seen: Matches that end before have been reported already.
        """
        out = data
        if matches or self._masked_lead:
            out = self._masked(data, matches)
            self._report([match for match in matches if match.end > seen])
            ends = [match.end for match in matches if match.start < stop]
            self._masked_lead = max(0, max([*ends, self._masked_lead]) - stop)
        self._held = data[stop:]
        self._offset += stop
        return out if stop == len(out) else out[:stop]

    def _masked(self, data: bytes, matches: list[Match]) -> bytes:
        out = bytearray(data)
        out[: self._masked_lead] = MASK * self._masked_lead
        for match in matches:
            out[match.start : match.end] = MASK * (match.end - match.start)
        return bytes(out)

    def _report(self, matches: list[Match]) -> None:
        for match in sorted(matches, key=lambda match: (match.start, -match.end)):
            start, end = self._offset + match.start, self._offset + match.end
            if start <= self._last_end and match.secret == self._last_secret:
                self._last_end = max(self._last_end, end)
                if self.hit_count <= MAX_HITS and self.hits[-1].encoding == SLICE:
                    self.hits[-1] = replace(self.hits[-1], encoding=match.encoding)
                continue
            hit = Hit(match.secret, match.encoding, start, self._place)
            self.hit_count += 1
            if self.hit_count <= MAX_HITS:
                self.hits.append(hit)
            self._last_end, self._last_secret = end, match.secret
            if self._abort:
                raise SecretFound(hit)
