"""Secrets that are put into requests whatever the client sent (mode ``set``)."""

from skerry.egress.substitution import denials
from skerry.egress.substitution.bindings import Bound, Fit, Use
from skerry.egress.substitution.model import Denial
from skerry.egress.substitution.reading import Reading
from skerry.egress.substitution.target import found_again, set_parameter, set_segment
from skerry.policy import slots
from skerry.policy.credential_headers import alike
from skerry.policy.paths import NotCanonical, canonical
from skerry.policy.slots import Slot, SlotKind

_USER = b"token"
"""Beside a password, when the client named nobody; who looks at the password alone wants some user."""


def set_secrets(reading: Reading) -> Denial | None:
    """Make such secrets part of the request, if it is one that they are for.

    A secret whose placeholder the client has put into a slot stays where it is. Of several that would be set
    in the same slot the last counts.
    """
    used = {use.bound.name for use in reading.uses()}
    for bound in reading.bindings.setting:
        if bound.name in used or not bound.has_method(reading.head.method):
            continue
        try:
            if bound.paths is not None and not bound.paths.allow(canonical(reading.target).segments):
                continue
            for slot in bound.slots:
                _set(reading, bound, slot)
        except NotCanonical:
            return denials.not_canonical(bound)
    return None


def _set(reading: Reading, bound: Bound, slot: Slot) -> None:
    if slot.kind in (SlotKind.HEADER, SlotKind.BASIC):
        _set_header(reading, bound, slot)
        return
    prepare = set_parameter if slot.kind is SlotKind.QUERY else set_segment
    prepared = prepare(reading.target, slot, bound)
    if prepared is not None:
        reading.target, place = prepared
        moved = [found_again(reading.target, other) for other in reading.places]
        reading.places = [*(other for other in moved if other is not None), place]


def _set_header(reading: Reading, bound: Bound, slot: Slot) -> None:
    fields = reading.head.fields
    overwritten = [at for at, (name, _) in enumerate(fields) if alike(name) == alike(slot.field)]
    reading.foreign = [at for at in reading.foreign if at not in overwritten]
    reading.fits = [fit for fit in reading.fits if fit[0] not in overwritten]
    reading.dropped += overwritten
    earlier = next((fit for fit in reading.added if alike(fit.uses[0].slot.field) == alike(slot.field)), None)
    if earlier is not None:
        reading.added.remove(earlier)
    if slot.kind is SlotKind.HEADER:
        front, back = slot.around or ("", "")
        value = front.encode("ascii") + bound.value + back.encode("ascii")
        reading.added.append(Fit((Use.of(bound, slot),), value))
    else:
        sent = [fields[at][1] for at in overwritten]
        reading.added.append(_basic(Use.of(bound, slot), earlier, sent))


def _basic(use: Use, earlier: Fit | None, sent: list[bytes]) -> Fit:
    """Basic credentials with the secret as one of their parts.

    Args:
        earlier: What another secret has set, which may be the other part.
        sent: What the client sent; only the user that it named is kept.
    """
    set_before = None if earlier is None else slots.basic_parts(earlier.value)
    uses: tuple[Use, ...] = (use,)
    if earlier is not None and set_before is not None and use.slot.name != earlier.uses[-1].slot.name:
        user, password = set_before
        uses = (*earlier.uses[-1:], use)
    else:
        parts = slots.basic_parts(sent[0]) if sent else None
        user, password = (parts and parts[0]) or _USER, b""
    if use.slot.name == "user":
        return Fit(uses, slots.basic_value(use.bound.value, password))
    return Fit(uses, slots.basic_value(user, use.bound.value))
