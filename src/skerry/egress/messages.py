"""What passes between egressd's broker and a sandbox's worker: msgpack over a SOCK_SEQPACKET pair.

The worker gets only its own sandbox's rules and secrets, and never asks for more. Messages are at most
`MAX_MESSAGE_BYTES`; larger policies are refused when they are granted.
"""

import msgspec

from skerry.policy.document import SecretRule
from skerry.protocol.egress_verbs import NamedLayer
from skerry.spec.ids import SandboxId
from skerry.spec.settings import EgressSettings

MAX_MESSAGE_BYTES = 1 << 20


class Secret(msgspec.Struct, frozen=True, kw_only=True):
    """A secret as the worker has it.

    Attributes:
        value: None: revoked or lost, as ``state`` says.
        state: ``active``, ``revoked`` or ``lost``; expiry is the worker's to see.
        used: Requests that carried it before this worker was started.
    """

    rule: SecretRule
    placeholder: str
    value: bytes | None
    state: str = "active"
    used: int = 0

    def __repr__(self) -> str:
        return f"Secret({self.rule.name!r}, …)"


class Authority(msgspec.Struct, frozen=True):
    """The sandbox's own certificate authority."""

    certificate_pem: str
    key_pem: str

    def __repr__(self) -> str:
        return "Authority(…)"


class OwnPlaces(msgspec.Struct, frozen=True, kw_only=True):
    """What belongs to Skerry or to the host itself; see `skerry.policy.compiled.Own`, which
    `skerry.egress.own_places` makes of it.

    Attributes:
        names: By which clients reach the API.
        addresses: The host's own.
        listeners: ``address:port`` of Skerry's own sockets.
    """

    names: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    listeners: tuple[str, ...] = ()


class Rules(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """All that a worker goes by. Sent first, and again whenever something changes; the last one counts.

    Attributes:
        layers: Outer first, the operator's included.
        settings: Resolvers, roots, limits; the same in every message to one worker.
        next_seq: The first audit line's number; meaningful in the first message only.
        own: What no rule can open.
    """

    sandbox_id: SandboxId
    version: int
    layers: tuple[NamedLayer, ...]
    secrets: tuple[Secret, ...]
    authority: Authority | None
    settings: EgressSettings
    next_seq: int = 1
    own: OwnPlaces = OwnPlaces()


class Written(msgspec.Struct, frozen=True, tag=True):
    """Audit lines up to this number are in the file."""

    seq: int


class Stop(msgspec.Struct, frozen=True, tag=True):
    """Close everything and end."""


ToWorker = Rules | Written | Stop


class Line(msgspec.Struct, frozen=True, tag=True):
    """One audit line.

    Attributes:
        text: A JSON object without a line end; it holds its ``seq``.
        confirm: Answer with `Written` when it is in the file.
    """

    seq: int
    text: bytes
    confirm: bool = False


class Lines(msgspec.Struct, frozen=True, tag=True):
    """Several audit lines that came about together, in their order."""

    lines: tuple[Line, ...]


class Used(msgspec.Struct, frozen=True, tag=True):
    """Requests that carried each secret since the last such message, by name."""

    counts: dict[str, int]


class Adopted(msgspec.Struct, frozen=True, tag=True):
    """The worker goes by this version of the rules now; flows that do not fit have been closed."""

    version: int


class Cut(msgspec.Struct, frozen=True, tag=True):
    """A placeholder strayed and its rule says ``kill``: serve this sandbox no more."""

    secret: str


FromWorker = Line | Lines | Used | Adopted | Cut
