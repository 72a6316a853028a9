"""Somebody else's credentials on a host that has a secret (M6)."""

import re
from collections.abc import Sequence

from skerry.egress.substitution import denials
from skerry.egress.substitution.bindings import Bindings
from skerry.egress.substitution.model import Denial
from skerry.egress.substitution.reading import Reading
from skerry.egress.substitution.target import Place, found_again
from skerry.policy.credential_parameters import is_certain
from skerry.policy.parameters import decoded, plain_name

_PART = re.compile(rb"[^&;]+")

Span = tuple[int, int]


def judge_foreign(reading: Reading) -> Denial | None:
    """Refuse the request, or take them out of it, as the secrets of the host want it."""
    bindings = reading.bindings
    if bindings.foreign == "allow":
        return None
    found = _parameters(reading.target, reading.places, bindings) if b"?" in reading.target else {}
    if bindings.foreign == "refuse":
        if reading.foreign or found:
            return denials.foreign(bindings, next(iter(found.values()), None))
        return None
    reading.dropped += reading.foreign
    if found:
        reading.target = _without(reading.target, found)
        again = [found_again(reading.target, place) for place in reading.places]
        reading.places = [place for place in again if place is not None]
    return None


def _parameters(target: bytes, places: Sequence[Place], bindings: Bindings) -> dict[Span, str]:
    """Where in a target such parameters are, and their plain names."""
    found: dict[Span, str] = {}
    parts = [part.span() for part in _PART.finditer(target, target.index(b"?") + 1)]
    pairs = [decoded(target[begin:end]) for begin, end in parts]
    names = [plain_name(name) for name, _ in pairs]
    for span, name, (_, value) in zip(parts, names, pairs, strict=True):
        if not value or not is_certain(name, names, bindings.parameters):
            continue
        if any(span[0] <= place.start < span[1] for place in places):
            continue
        if not bindings.issued.holds(bindings.host, value.encode("utf-8", "replace")):
            found[span] = name
    return found


def _without(target: bytes, spans: dict[Span, str]) -> bytes:
    """A target without some parts of its query, each with the mark before it."""
    path_end = target.index(b"?")
    kept = b""
    for part in _PART.finditer(target, path_end + 1):
        if part.span() not in spans:
            kept += target[part.start() - 1 : part.end()]
    return target[:path_end] + (b"?" + kept[1:] if kept else b"")
