"""What comes of putting secrets into a request."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

from skerry.egress.http1.model import RequestHead
from skerry.policy.verdict import Reason


class Carried(NamedTuple):
    """A secret that a request carries, and the slot that it stands in."""

    secret: str
    slot: str


@dataclass(frozen=True, slots=True)
class Stray:
    """A placeholder that does nothing where it is.

    Attributes:
        place: ``target`` or ``header:<name>``.
    """

    secret: str
    place: str
    on_stray: Literal["forward", "block", "kill"]


@dataclass(slots=True)
class Substituted:
    """The request as it is sent.

    The head that came in is unchanged: it holds placeholders only and may be logged with care. This one may
    hold values and must not be.

    Attributes:
        carried: One for each slot that holds a secret; when the answer has ended, `Budgets.release` must be
            called with their secrets, each once.
        scrub: The answer must be scrubbed.
    """

    head: RequestHead
    target: bytes
    carried: tuple[Carried, ...] = ()
    strays: tuple[Stray, ...] = ()
    scrub: bool = False

    @property
    def secrets(self) -> tuple[str, ...]:
        """Names of the secrets that are carried, each once."""
        return tuple(dict.fromkeys(one.secret for one in self.carried))

    def __repr__(self) -> str:
        return f"Substituted({self.carried!r}, {self.strays!r})"


@dataclass(frozen=True, slots=True)
class Denial:
    """The request must not be sent.

    Attributes:
        owner_action: For the answer's body: what the owner can do. Holds names of headers, parameters and
            secrets, never a value.
        secret: Whose rule denied; None when it is about the host.
        cut: The sandbox's network must be cut: a placeholder strayed whose rule says ``kill``.
    """

    reason: Reason
    owner_action: str
    secret: str | None = None
    cut: bool = False
