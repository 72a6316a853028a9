"""What one host's requests are judged by, made ready before the first of them comes."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum, auto

from skerry.egress.messages import Secret
from skerry.egress.substitution.budgets import Budgets
from skerry.egress.substitution.issued import Issued
from skerry.egress.substitution.model import Carried
from skerry.egress.substitution.placeholders import Placeholders
from skerry.policy import paths, slots
from skerry.policy.credential_headers import FAMILY, NEVER_SENT, alike
from skerry.policy.credential_parameters import certain_names
from skerry.policy.slots import Slot, SlotKind

MAX_REMEMBERED = 64
"""Values of one header whose slot is known already; a client has few."""

MAX_KNOWN_NAMES = 1_024
"""Spellings of names of headers."""

_NEVER_CARRIES = frozenset({b"CONNECT", b"OPTIONS", b"TRACE"})
_BY_DEFAULT_NOT = _NEVER_CARRIES | {b"HEAD"}
_STRICTNESS = {"refuse": 2, "strip": 1, "allow": 0}


@dataclass(frozen=True, slots=True)
class Bound:
    """A secret on a host that it is bound to."""

    secret: Secret
    name: str
    placeholder: bytes
    slots: tuple[Slot, ...]
    sets: bool
    methods: frozenset[bytes] | None
    paths: paths.Paths | None
    scrubs: bool

    @property
    def value(self) -> bytes:
        """Of the secret; empty when it has none, and then no request with it is sent."""
        return self.secret.value or b""

    def has_method(self, method: bytes) -> bool:
        """Whether a request of this method may carry it."""
        if self.methods is None:
            return method not in _BY_DEFAULT_NOT
        return method in self.methods and method not in _NEVER_CARRIES

    def __repr__(self) -> str:
        return f"Bound({self.name!r})"


@dataclass(frozen=True, slots=True)
class Use:
    """A secret in a slot."""

    bound: Bound
    slot: Slot
    carried: Carried

    @classmethod
    def of(cls, bound: Bound, slot: Slot) -> "Use":
        """Say that a secret stands in one of its slots."""
        return cls(bound, slot, Carried(bound.name, slot.text))


@dataclass(frozen=True, slots=True)
class Fit:
    """A value of a header that fits a slot, or both parts of Basic, and what it becomes.

    Attributes:
        value: Holds the value of the secret.
    """

    uses: tuple[Use, ...]
    value: bytes

    def __repr__(self) -> str:
        return f"Fit({[use.carried for use in self.uses]!r})"


class HeaderRole(Enum):
    """Why a header is looked at. One that ``LOOKS_LIKE_CREDENTIAL`` has underscores for hyphens, or hyphens
    for underscores of a slot: origins behind CGI cannot tell them apart. A ``LONG`` name could hold a
    placeholder."""

    CREDENTIAL = auto()
    ACCEPT_ENCODING = auto()
    DROPPED = auto()
    DROPPED_WITH_SECRET = auto()
    LOOKS_LIKE_CREDENTIAL = auto()
    LONG = auto()


@dataclass(slots=True)
class Header:
    """What is done about one header.

    Attributes:
        bit: One of its own, to notice that it comes twice; 0 where that does not matter.
        uses: Who may stand in it, and how.
        fits: Values seen before that fit; filled while requests come.
    """

    role: HeaderRole
    bit: int = 0
    uses: list[Use] = field(default_factory=list)
    fits: dict[bytes, Fit] = field(default_factory=dict)


_ROLES = {
    b"accept-encoding": HeaderRole.ACCEPT_ENCODING,
    NEVER_SENT: HeaderRole.DROPPED,
    # Without extensions the payload of a WebSocket can be searched (G25).
    b"sec-websocket-extensions": HeaderRole.DROPPED,
    # A slice of an answer, or a change to an earlier one, would hide what is looked for (S6, S7).
    b"range": HeaderRole.DROPPED_WITH_SECRET,
    b"if-range": HeaderRole.DROPPED_WITH_SECRET,
    b"te": HeaderRole.DROPPED_WITH_SECRET,
    b"a-im": HeaderRole.DROPPED_WITH_SECRET,
}


class Bindings:
    """The secrets of a sandbox as seen from one host and port.

    Made anew when the sandbox's rules change; what was used and issued is kept by `budgets` and `issued`.
    """

    def __init__(
        self,
        host: str,
        bound: Sequence[Secret],
        everything: Sequence[Secret],
        *,
        budgets: Budgets,
        issued: Issued,
    ) -> None:
        """Prepare.

        Args:
            bound: Secrets that are bound to the host and port; may be empty.
            everything: All secrets of the sandbox, these included.
        """
        self.host = host
        self.budgets = budgets
        self.issued = issued
        self.bound = tuple(map(_bound, bound))
        self.placeholders = Placeholders(everything)
        self.by_name = {one.name: one for one in self.bound}
        self.others = {one.rule.name: one.rule for one in everything if one.rule.name not in self.by_name}
        self.setting = tuple(one for one in self.bound if one.sets)
        self.foreign = max(
            (one.secret.rule.foreign_credentials for one in self.bound),
            key=_STRICTNESS.__getitem__,
            default="allow",
        )
        self.scrubs_always = any(one.secret.rule.scrub == "always" for one in self.bound)
        self._headers = _headers(self.bound) if self.bound else {}
        self._alike = {alike(name): header for name, header in self._headers.items()}
        self.known_names: dict[bytes, Header | None] = dict(self._headers)
        self.parameters = certain_names(host, _parameters(self.bound))

    def header(self, name: bytes) -> Header | None:
        """What is done about a header of this name, in any case; None: nothing.

        The answer is kept in `known_names`, where the next request finds it quicker.
        """
        lower = name.lower()
        header = self._headers.get(lower)
        if header is None and len(name) >= self.placeholders.shortest:
            header = Header(HeaderRole.LONG)
        elif header is None:
            header = _imitation(self._alike.get(alike(name)))
        if len(self.known_names) < MAX_KNOWN_NAMES:
            self.known_names[name] = header
        return header

    def __repr__(self) -> str:
        return f"Bindings({self.host!r}, {self.bound!r})"


def _bound(secret: Secret) -> Bound:
    rule = secret.rule
    sets = rule.mode == "set"
    return Bound(
        secret=secret,
        name=rule.name,
        placeholder=secret.placeholder.encode("ascii"),
        # A value cannot be set in all credential headers at once.
        slots=slots.for_rule(rule.slots or (("header:authorization=Bearer {}",) if sets else ())),
        sets=sets,
        methods=None if rule.methods is None else frozenset(one.encode("ascii") for one in rule.methods),
        paths=None if rule.paths is None else paths.parse_all(rule.paths),
        scrubs=rule.scrub != "off",
    )


def _parameters(bound: tuple[Bound, ...]) -> list[str]:
    return [slot.name for one in bound for slot in one.slots if slot.kind is SlotKind.QUERY]


def _imitation(like: Header | None) -> Header | None:
    """What is done about a header whose name an origin may take for another one's."""
    if like is None:
        return None
    match like.role:
        case HeaderRole.CREDENTIAL:
            return Header(HeaderRole.LOOKS_LIKE_CREDENTIAL)
        case HeaderRole.DROPPED:
            return Header(HeaderRole.DROPPED)
        case _:
            return Header(HeaderRole.DROPPED_WITH_SECRET)


def _headers(bound: tuple[Bound, ...]) -> dict[bytes, Header]:
    headers = {name: Header(role) for name, role in _ROLES.items()}
    names = sorted({*FAMILY, *(slot.field for one in bound for slot in one.slots)} - headers.keys() - {b""})
    for at, name in enumerate(names):
        headers[name] = Header(HeaderRole.CREDENTIAL, 1 << at)
    for one in bound:
        for slot in one.slots:
            if slot.kind in (SlotKind.HEADER, SlotKind.BASIC):
                headers[slot.field].uses.append(Use.of(one, slot))
    return headers
