"""Take secrets out of the head of an answer and out of trailers."""

from collections.abc import Iterable

from skerry.egress.http1.model import Field, ResponseHead, Trailers
from skerry.egress.scrub.needles import Needles
from skerry.egress.scrub.scrubber import Hit, Scrubber

_SEPARATOR = b"\n"
"""In no needle, and in no parsed field."""

_FRAMING = frozenset({b"content-length", b"transfer-encoding"})
"""Already checked by the parser and written anew from its result."""


def scrub_head(head: ResponseHead, needles: Needles) -> list[Hit]:
    """Mask secrets in the status text and in names and values of header fields, in place."""
    if not _any((head.reason,), head.fields, needles):
        return []
    head.reason, hits = _scrubbed(head.reason, needles, "status")
    head.fields = [_field(field, needles, "header", hits) for field in head.fields]
    return hits


def scrub_trailers(trailers: Trailers, needles: Needles) -> list[Hit]:
    """Mask secrets in names and values of trailer fields, in place."""
    hits: list[Hit] = []
    if _any((), trailers.fields, needles):
        trailers.fields = [_field(field, needles, "trailer", hits) for field in trailers.fields]
    return hits


def _any(texts: Iterable[bytes], fields: list[Field], needles: Needles) -> bool:
    """One search through all of it, since there is hardly ever anything."""
    joined = _SEPARATOR.join([*texts, *(part for field in fields for part in field)])
    return bool(needles.find(joined.lower()))


def _field(field: Field, needles: Needles, kind: str, hits: list[Hit]) -> Field:
    name, value = field
    if name.lower() in _FRAMING:
        return field
    name, in_name = _scrubbed(name, needles, f"{kind}-name")
    value, in_value = _scrubbed(value, needles, f"{kind}:{name.decode('latin-1').lower()}")
    hits += in_name + in_value
    return name, value


def _scrubbed(text: bytes, needles: Needles, place: str) -> tuple[bytes, list[Hit]]:
    scrubber = Scrubber(needles, place=place)
    return scrubber.feed(text) + scrubber.end(), scrubber.hits
