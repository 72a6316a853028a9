"""Placeholders in the path and the query of a request."""

import urllib.parse
from dataclasses import dataclass

from skerry.egress.substitution import denials
from skerry.egress.substitution.bindings import Bindings, Bound, Use
from skerry.egress.substitution.model import Denial
from skerry.policy.parameters import parameters, plain_name
from skerry.policy.paths import NotCanonical, Target, canonical
from skerry.policy.slots import Slot, SlotKind

PATH_SAFE = "!$&'()*+,;=:@"
"""RFC 3986, section 3.3: what a segment may hold unescaped besides unreserved characters."""


@dataclass(frozen=True, slots=True)
class Place:
    """A part of the target that a secret replaces."""

    use: Use
    start: int
    end: int

    @property
    def replacement(self) -> bytes:
        """The secret's value, escaped."""
        safe = PATH_SAFE if self.use.slot.kind is SlotKind.PATH else ""
        return urllib.parse.quote(self.use.bound.value, safe=safe).encode("ascii")


def replaced(target: bytes, places: list[Place]) -> bytes:
    """The target with the secrets in their places."""
    for place in sorted(places, key=lambda place: place.start, reverse=True):
        target = target[: place.start] + place.replacement + target[place.end :]
    return target


def places_in(target: bytes, bindings: Bindings) -> tuple[bytes, list[Place]] | Denial:
    """Find the placeholders in a target, each of which must stand in a slot.

    Returns:
        The target, in canonical form when a path slot is used, and the places in it.
    """
    placeholders = bindings.placeholders
    names = placeholders.names_in(target)
    if not names:
        return target, []
    in_path = _in_path(target, bindings)
    if isinstance(in_path, Denial):
        return in_path
    target, places = in_path
    found = placeholders.find(target)
    for name, start, end in found:
        bound = bindings.by_name.get(name)
        if bound is None:
            return denials.of_other_host(name, bindings)
        if any(place.start == start for place in places):
            continue
        place = _parameter(target, bound, start, end)
        if isinstance(place, Denial):
            return place
        places.append(place)
    if not found or (
        b"%" in target and len(placeholders.find(urllib.parse.unquote_to_bytes(target))) > len(found)
    ):
        bound = bindings.by_name.get(names[0])
        return denials.outside_slot(bound, None) if bound else denials.of_other_host(names[0], bindings)
    return target, places


def _in_path(target: bytes, bindings: Bindings) -> tuple[bytes, list[Place]] | Denial:
    """The place in the path that is a path slot's, if there is one."""
    for bound in bindings.bound:
        path_slots = [slot for slot in bound.slots if slot.kind is SlotKind.PATH]
        if not path_slots or bound.placeholder not in target.partition(b"?")[0]:
            continue
        try:
            form = canonical(target)
        except NotCanonical:
            return denials.not_canonical(bound)
        for slot in path_slots:
            at = slot.in_path(form.segments, bound.placeholder.decode("ascii"))
            if at is not None:
                start = _segment_start(form, at) + form.segments[at].index(bound.placeholder.decode("ascii"))
                return form.encoded, [Place(Use.of(bound, slot), start, start + len(bound.placeholder))]
    return target, []


def _segment_start(target: Target, at: int) -> int:
    return 1 + sum(len(segment) + 1 for segment in target.segments[:at])


def _parameter(target: bytes, bound: Bound, start: int, end: int) -> Place | Denial:
    """The place of a placeholder that is not in a path slot."""
    mark = target.find(b"?")
    if mark < 0 or start < mark:
        return denials.outside_slot(bound, _suggested_path(target, bound))
    begin = max(mark, target.rfind(b"&", mark, start)) + 1
    stop = target.find(b"&", end)
    name, _, value = target[begin : len(target) if stop < 0 else stop].partition(b"=")
    for slot in bound.slots:
        if slot.kind is SlotKind.QUERY and slot.name.encode("ascii") == name and value == bound.placeholder:
            if _count(target[mark:], slot.name) != 1:
                return denials.repeated(f"parameter {slot.name}")
            return Place(Use.of(bound, slot), start, end)
    return denials.outside_slot(
        bound, "query:" + name.decode("latin-1") if value == bound.placeholder else None
    )


def _suggested_path(target: bytes, bound: Bound) -> str | None:
    try:
        return denials.path_slot(canonical(target), bound.placeholder)
    except NotCanonical:
        return None


def _count(query: bytes, name: str) -> int:
    return sum(plain_name(key) == plain_name(name) for key, _ in parameters(query))


def found_again(target: bytes, place: Place) -> Place | None:
    """A place in a target that has changed elsewhere; None when it was overwritten."""
    placeholder = place.use.bound.placeholder
    start = target.find(placeholder)
    return None if start < 0 else Place(place.use, start, start + len(placeholder))


def set_parameter(target: bytes, slot: Slot, bound: Bound) -> tuple[bytes, Place]:
    """Make a parameter ready to be set: whatever the client sent under its name goes, one that holds the
    placeholder comes at the end."""
    path, _, query = target.partition(b"?")
    kept = [part for part in query.split(b"&") if part and not _count(part, slot.name)]
    front = path + b"?" + b"".join(part + b"&" for part in kept) + slot.name.encode("ascii") + b"="
    return front + bound.placeholder, Place(
        Use.of(bound, slot), len(front), len(front) + len(bound.placeholder)
    )


def set_segment(target: bytes, slot: Slot, bound: Bound) -> tuple[bytes, Place] | None:
    """Make the segment ready to be set that a path slot names; None when the path is another one.

    Raises:
        NotCanonical: The path may be read in more than one way.
    """
    form = canonical(target)
    if slot.path is None or not slot.path.matches(form.segments):
        return None
    front, back = slot.path.segments[slot.hole]
    text = f"{front}{bound.placeholder.decode('ascii')}{back or ''}"
    form = Target((*form.segments[: slot.hole], text, *form.segments[slot.hole + 1 :]), form.query)
    start = _segment_start(form, slot.hole) + len(front)
    return form.encoded, Place(Use.of(bound, slot), start, start + len(bound.placeholder))
