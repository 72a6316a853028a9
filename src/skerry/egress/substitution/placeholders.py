"""Finding placeholders where they do nothing: in bodies, on hosts without a secret, outside of slots.

They hold letters, digits and underscores only, so escaping for JSON, HTML or forms leaves them as they are.
"""

import urllib.parse
from collections.abc import Iterable, Sequence

from ahocorasick_rs import BytesAhoCorasick, Implementation, MatchKind

from skerry.egress.messages import Secret

_STEM_BYTES = 16
_MOST_STEMS = 3
_MOST_DECODINGS = 3


class Placeholders:
    """All placeholders of a sandbox, immutable."""

    def __init__(self, secrets: Sequence[Secret]) -> None:
        self._names = {secret.placeholder.encode("ascii"): secret.rule.name for secret in secrets}
        sizes = [len(placeholder) for placeholder in self._names]
        self.shortest = min(sizes, default=0)
        self.longest = max(sizes, default=0)
        stems = sorted({placeholder[:_STEM_BYTES] for placeholder in self._names})
        self._stems = stems if len(stems) <= _MOST_STEMS else []
        self._automaton = _automaton(self._names)

    def __bool__(self) -> bool:
        return bool(self._names)

    def __repr__(self) -> str:
        return f"Placeholders({len(self._names)})"

    def may_hold(self, text: bytes) -> bool:
        """Whether `names_in` could find something; a quick look that says yes rather too often."""
        if len(text) < self.shortest:
            return False
        if b"%" in text or not self._stems:
            return True
        # Placeholders mostly begin alike, and the search for one byte string is many times faster.
        for stem in self._stems:  # noqa: SIM110 - a generator costs more than the search
            if stem in text:
                return True
        return False

    def find(self, text: bytes) -> list[tuple[str, int, int]]:
        """All placeholders in a text: the secret's name, begin and end."""
        if len(text) < self.shortest or not self._names:
            return []
        if self._stems and not any(stem in text for stem in self._stems):
            return []
        found = self._automaton.find_matches_as_indexes(text, overlapping=True)
        names = list(self._names.values())
        return [(names[index], start, end) for index, start, end in found]

    def in_name(self, name: bytes) -> list[str]:
        """As `names_in` for the name of a header, which has no case."""
        if len(name) < self.shortest:
            return []
        lower = name.lower()
        return [found for placeholder, found in self._names.items() if placeholder.lower() in lower]

    def names_in(self, text: bytes) -> list[str]:
        """Names of the secrets whose placeholders stand in a text, also if it is percent-encoded, even
        several times over."""
        found = [name for name, _, _ in self.find(text)]
        for _ in range(_MOST_DECODINGS):
            if found or b"%" not in text or len(text) < self.shortest:
                break
            text = urllib.parse.unquote_to_bytes(text)
            found = [name for name, _, _ in self.find(text)]
        return found


class Strays:
    """Looks for placeholders in one stream, such as a request's body, which passes as it is."""

    def __init__(self, placeholders: Placeholders) -> None:
        self._placeholders = placeholders
        self._tail = b""
        self._offset = 0  # of the tail

    def feed(self, data: bytes) -> list[tuple[str, int]]:
        """Search the next part of the stream.

        Returns:
            What is complete now: names of secrets, and offsets in the stream.
        """
        if not self._placeholders:
            return []
        text = self._tail + data
        seen = len(self._tail)
        found = [
            (name, self._offset + start) for name, start, end in self._placeholders.find(text) if end > seen
        ]
        keep = min(len(text), self._placeholders.longest - 1)
        self._offset += len(text) - keep
        self._tail = text[len(text) - keep :]
        return found


def _automaton(patterns: Iterable[bytes]) -> BytesAhoCorasick:
    return BytesAhoCorasick(list(patterns), MatchKind.Standard, Implementation.DFA)
