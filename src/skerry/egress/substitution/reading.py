"""What stands where in the head of a request: placeholders in slots and elsewhere, other credentials."""

from skerry.egress.http1.model import RequestHead
from skerry.egress.substitution import denials
from skerry.egress.substitution.bindings import MAX_REMEMBERED, Bindings, Fit, Header, HeaderRole, Use
from skerry.egress.substitution.model import Denial
from skerry.egress.substitution.target import Place, places_in
from skerry.policy import slots
from skerry.policy.slots import SlotKind

MAX_BESIDE_USER_BYTES = 16
"""Longest password beside a placeholder that is the user of Basic credentials: ``x-oauth-basic`` and so on,
but no token of somebody else's."""


class Reading:
    """A request, and what has been found in it. Numbers are indexes of its fields.

    Attributes:
        fits: Headers whose value is to be replaced.
        places: Parts of the target that are to be replaced.
        added: Headers that are to be added.
        foreign: Credentials that are not ours.
        dropped: What is not sent on; `dropped_with_secret`: if the answer is scrubbed.
        accepts: ``Accept-Encoding``.
    """

    __slots__ = (
        "accepts",
        "added",
        "bindings",
        "dropped",
        "dropped_with_secret",
        "fits",
        "foreign",
        "head",
        "places",
        "target",
    )

    def __init__(self, head: RequestHead, target: bytes, bindings: Bindings) -> None:
        self.head = head
        self.target = target
        self.bindings = bindings
        self.fits: list[tuple[int, Fit]] = []
        self.places: list[Place] = []
        self.added: list[Fit] = []
        self.foreign: list[int] = []
        self.dropped: list[int] = []
        self.dropped_with_secret: list[int] = []
        self.accepts: list[int] = []

    def uses(self) -> list[Use]:
        """All that the client asked for, so not those of `added`."""
        uses = [use for _, fit in self.fits for use in fit.uses]
        uses += [place.use for place in self.places]
        return uses

    def read(self) -> Denial | None:
        """Look at everything but the body."""
        denial = self._read_fields()
        if denial is None and self.head.authority is not None:
            denial = self._outside(self.head.authority, None)
        if denial is None and self.bindings.placeholders.may_hold(self.target):
            found = places_in(self.target, self.bindings)
            if isinstance(found, Denial):
                return found
            self.target, self.places = found
        return denial

    def _read_fields(self) -> Denial | None:
        bindings = self.bindings
        known, may_hold = bindings.known_names, bindings.placeholders.may_hold
        seen = 0
        for index, (name, value) in enumerate(self.head.fields):
            header = known[name] if name in known else bindings.header(name)
            if header is None:
                if not may_hold(value):
                    continue
                denial = self._outside(value, name)
            elif header.role is HeaderRole.CREDENTIAL:
                if seen & header.bit:
                    return denials.repeated(f"header {name.decode('latin-1').lower()}")
                seen |= header.bit
                fit = header.fits.get(value)
                if fit is not None:
                    self.fits.append((index, fit))
                    continue
                denial = self._read_credential(index, header, name, value)
            else:
                denial = self._read_other(index, header, name, value)
            if denial is not None:
                return denial
        return None

    def _read_other(self, index: int, header: Header, name: bytes, value: bytes) -> Denial | None:
        """Headers that must hold no placeholder and mean something here."""
        match header.role:
            case HeaderRole.ACCEPT_ENCODING:
                self.accepts.append(index)
            case HeaderRole.DROPPED_WITH_SECRET:
                self.dropped_with_secret.append(index)
            case HeaderRole.DROPPED:
                self.dropped.append(index)
            case HeaderRole.LOOKS_LIKE_CREDENTIAL:
                if value and not self.bindings.issued.holds(self.bindings.host, value):
                    self.foreign.append(index)
            case _:
                denial = self._outside(name, None, in_name=True)
                if denial is not None:
                    return denial
        return self._outside(value, name) if self.bindings.placeholders.may_hold(value) else None

    def _read_credential(self, index: int, header: Header, name: bytes, value: bytes) -> Denial | None:
        """A header of the family, or one that a slot names."""
        basic = slots.basic_parts(value)
        fit = _fit(header, value) if basic is None else _basic_fit(header, *basic)
        if fit is not None:
            if len(header.fits) < MAX_REMEMBERED:
                header.fits[value] = fit
            self.fits.append((index, fit))
            return None
        denial = self._outside(value if basic is None else b":".join(basic), name)
        if denial is None and value and not self.bindings.issued.holds(self.bindings.host, value):
            self.foreign.append(index)
        return denial

    def _outside(self, text: bytes, name: bytes | None, *, in_name: bool = False) -> Denial | None:
        """Deny if there is a placeholder, since here is no slot."""
        placeholders = self.bindings.placeholders
        for found in placeholders.in_name(text) if in_name else placeholders.names_in(text):
            bound = self.bindings.by_name.get(found)
            if bound is None:
                return denials.of_other_host(found, self.bindings)
            return denials.outside_slot(bound, None if name is None else denials.header_slot(name, bound))
        return None


def _fit(header: Header, value: bytes) -> Fit | None:
    """What a header becomes whose whole value is a placeholder as a slot wants it."""
    for use in header.uses:
        if use.slot.kind is SlotKind.HEADER:
            around = use.slot.around_of(value, use.bound.placeholder)
            if around is not None:
                return Fit((use,), around[0] + use.bound.value + around[1])
    return None


def _basic_fit(header: Header, user: bytes, password: bytes) -> Fit | None:
    """What Basic credentials become; both parts may be placeholders."""
    users = _basic_part(header, "user", user)
    passwords = _basic_part(header, "password", password)
    if passwords is None and (users is None or len(password) > MAX_BESIDE_USER_BYTES):
        return None
    if users is not None:
        user = users.bound.value
    if passwords is not None:
        password = passwords.bound.value
    uses = tuple(use for use in (users, passwords) if use is not None)
    return Fit(uses, slots.basic_value(user, password))


def _basic_part(header: Header, name: str, part: bytes) -> Use | None:
    for use in header.uses:
        if use.slot.kind is SlotKind.BASIC and use.slot.name == name and part == use.bound.placeholder:
            return use
    return None
