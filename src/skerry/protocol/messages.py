"""What the payloads of the agent channel's msgpack frames mean: `docs/agent-channel.md`, generation 1.

Everything decoded here comes from inside a sandbox, so every number has a range and every text a length.
Unknown fields are ignored, because a later agent may send more than this side knows; that is why these
structures do not forbid them.
"""

from collections.abc import Hashable
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, cast

import msgspec
from msgspec import Meta, Struct

if TYPE_CHECKING:
    GuestText = str | bytes
else:
    # msgspec has no union of str and bytes: such fields are decoded as they come, then checked.
    GuestText = object

U8 = Annotated[int, Meta(ge=0, le=255)]
U32 = Annotated[int, Meta(ge=0, le=2**32 - 1)]
U64 = Annotated[int, Meta(ge=0)]
"""msgpack has no wider integers; msgspec cannot state this bound itself."""
ShortText = Annotated[str, Meta(max_length=64)]
SignalName = Annotated[str, Meta(max_length=16)]
Nonce = Annotated[bytes, Meta(min_length=16, max_length=16)]

GENERATION = 1
MAX_MESSAGE_BYTES = 8 << 20
MAX_UNANSWERED_REQUESTS = 1024
INPUT_LIMIT_BYTES = 262_144
"""What the host may send on a new input stream before the first CREDIT."""

T = TypeVar("T")


class ProtocolError(Exception):
    """The peer broke the rules of the channel: its connection must be closed.

    Args:
        part: What was wrong: ``length``, ``type``, ``flags``, ``reserved``, ``stream``, ``payload``,
            ``order`` or ``budget``.
        text: For the log; made by us, holds nothing that the peer sent but numbers.
    """

    def __init__(self, part: str, text: str) -> None:
        super().__init__(f"{part}: {text}")
        self.part = part


def _check_text(*values: object) -> None:
    for value in values:
        if type(value) is not str and type(value) is not bytes:
            raise ValueError("expected text")


# --- frames with a msgpack map --------------------------------------------------------------------


class Hello(Struct, frozen=True):
    """The agent's first frame. ``boot`` and ``key`` are minted when the agent process starts."""

    generations: Annotated[list[U32], Meta(max_length=16)]
    agent: ShortText
    boot: Nonce
    key: Nonce

    def __repr__(self) -> str:
        return f"Hello(generations={self.generations}, agent={self.agent!r})"


class Welcome(Struct, frozen=True):
    """The host's first frame."""

    generation: U32
    epoch: U64
    reattach_window_ms: U32


class Failure(Struct, frozen=True):
    """Why a request failed or a stream was given up: an errno name or a code of the channel, and a text."""

    code: ShortText
    message: Annotated[str, Meta(max_length=1024)]


class Exit(Struct, frozen=True):
    """A process was reaped; ``code`` is 128 + signal number when ``signal`` is set."""

    pid: U32
    code: U8
    signal: SignalName | None = None
    oom: bool | None = None


class Response(Struct, array_like=True, frozen=True):
    """The answer to the request of that ID: ``value`` is its result, or a `Failure` when not ``ok``."""

    id: U64
    ok: bool
    value: msgspec.Raw


class Request(Struct, array_like=True, frozen=True):
    """A request as the agent reads it."""

    id: U64
    acked: U64
    method: ShortText
    params: msgspec.Raw


# --- parameters -----------------------------------------------------------------------------------


class Nothing(Struct, frozen=True):
    """The parameters of a method that has none."""


class SpawnParams(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """``process.spawn``; ``credit`` attaches each output stream at once with that limit."""

    command: GuestText
    args: list[GuestText] = []
    env: dict[GuestText, GuestText] = {}
    clear_env: bool = False
    cwd: GuestText | None = None
    stdin: bool = False
    stdout: Literal["piped", "null"]
    stderr: Literal["piped", "null"]
    credit: U64 = 0
    user: Literal["app", "root"] = "app"

    def __repr__(self) -> str:
        # Arguments and environment may hold secrets.
        return f"SpawnParams(args={len(self.args)}, env={len(self.env)}, user={self.user!r})"


class KillParams(Struct, frozen=True, omit_defaults=True):
    """``process.kill``; ``signal`` by its name ("SIGTERM")."""

    pid: U32
    signal: SignalName
    group: bool = False


class EnvUpdateParams(Struct, frozen=True, omit_defaults=True):
    """``env.update``."""

    set: dict[GuestText, GuestText] = {}
    unset: list[GuestText] = []

    def __repr__(self) -> str:
        return f"EnvUpdateParams(set={len(self.set)}, unset={len(self.unset)})"


class ReadParams(Struct, frozen=True, omit_defaults=True):
    """``fs.read``; at most ``inline_max`` bytes come in the answer, a larger file as a stream."""

    path: GuestText
    inline_max: U64 = 0
    credit: U64 = 0


class WriteParams(Struct, frozen=True, omit_defaults=True):
    """``fs.write``."""

    path: GuestText
    data: bytes
    append: bool = False
    create: bool = True
    create_new: bool = False
    mode: U32 | None = None

    def __repr__(self) -> str:
        return f"WriteParams({len(self.data)} bytes)"


class WriteOpenParams(Struct, frozen=True, omit_defaults=True):
    """``fs.write_open``."""

    path: GuestText
    append: bool = False
    create: bool = True
    create_new: bool = False
    mode: U32 | None = None


class WriteCloseParams(Struct, frozen=True):
    """``fs.write_close``."""

    stream: U32


class ReadDirParams(Struct, frozen=True):
    """``fs.read_dir``."""

    path: GuestText


class MkdirParams(Struct, frozen=True, omit_defaults=True):
    """``fs.mkdir``."""

    path: GuestText
    recursive: bool = False
    mode: U32 | None = None


class RemoveParams(Struct, frozen=True, omit_defaults=True):
    """``fs.remove``."""

    path: GuestText
    recursive: bool = False


class StatParams(Struct, frozen=True, omit_defaults=True):
    """``fs.stat``; without ``follow`` a symbolic link itself is looked at."""

    path: GuestText
    follow: bool = True


class TrustInstallParams(Struct, frozen=True, omit_defaults=True):
    """``trust.install``; certificates in PEM, and the variables that the guest's files are to name."""

    certificate_pem: str
    extra_roots_pem: str
    env: dict[GuestText, GuestText] = {}


# --- results --------------------------------------------------------------------------------------


class Spawned(Struct, frozen=True):
    """A started process and its streams."""

    pid: U32
    stdin: U32 | None = None
    stdout: U32 | None = None
    stderr: U32 | None = None


class ExitStatus(Struct, frozen=True):
    """How a process ended, as `Exit` says it."""

    code: U8
    signal: SignalName | None = None
    oom: bool | None = None


class ProcessInfo(Struct, frozen=True):
    """One process; ``started_ms`` since 1970 by the guest's clock. Long arguments are cut."""

    pid: U32
    command: GuestText
    args: list[GuestText]
    started_ms: U64
    exit: ExitStatus | None = None
    stdin: U32 | None = None
    stdout: U32 | None = None
    stderr: U32 | None = None

    def __post_init__(self) -> None:
        _check_text(self.command, *self.args)

    def __repr__(self) -> str:
        return f"ProcessInfo(pid={self.pid}, args={len(self.args)}, exit={self.exit})"


class ProcessList(Struct, frozen=True):
    """Running processes and the last ones that ended."""

    processes: list[ProcessInfo]


class StreamInfo(Struct, frozen=True):
    """One stream of the agent; its journal has the bytes from ``first`` up to ``next``."""

    stream: U32
    kind: Literal["output", "input", "file"]
    first: U64
    next: U64
    ended: bool
    dropped: U64


class StreamList(Struct, frozen=True):
    """Every stream that the agent has."""

    streams: list[StreamInfo]


class EnvAll(Struct, frozen=True):
    """The sandbox's environment."""

    env: dict[GuestText, GuestText]

    def __post_init__(self) -> None:
        _check_text(*self.env.keys(), *self.env.values())

    def __repr__(self) -> str:
        return f"EnvAll({len(self.env)} variables)"


class ReadResult(Struct, frozen=True):
    """A file's bytes, or the stream that brings them and its size when it was opened."""

    data: bytes | None = None
    stream: U32 | None = None
    size: U64 | None = None

    def __post_init__(self) -> None:
        if (self.data is None) == (self.stream is None):
            raise ValueError("either data or a stream")

    def __repr__(self) -> str:
        return f"ReadResult(stream={self.stream}, size={self.size})"


class WriteOpened(Struct, frozen=True):
    """The input stream that feeds a file."""

    stream: U32


class WriteClosed(Struct, frozen=True):
    """Bytes that were written."""

    size: U64


class DirEntry(Struct, frozen=True):
    """One name in a directory."""

    name: GuestText
    kind: Literal["file", "dir", "symlink", "other"]


class DirList(Struct, frozen=True):
    """A directory without ``.`` and ``..``, in no order."""

    entries: list[DirEntry]

    def __post_init__(self) -> None:
        _check_text(*[entry.name for entry in self.entries])


class Stat(Struct, frozen=True):
    """One file as stat(2) sees it; ``mode`` with the file type's bits."""

    kind: Literal["file", "dir", "symlink", "other"]
    size: U64
    mode: U32
    uid: U32
    gid: U32
    dev: U64
    ino: U64
    nlink: U64
    rdev: U64
    blksize: U64
    blocks: U64
    atime_ns: int
    mtime_ns: int
    ctime_ns: int
    birthtime_ns: int | None = None


class Reclaimed(Struct, frozen=True, kw_only=True):
    """The leader of the process group that was killed, and the memory it held."""

    pid: U32 | None = None
    rss_bytes: U64


class TrustInstalled(Struct, frozen=True):
    """``system``: the image has a list of authorities, to which those were added."""

    system: bool


# --- codec ----------------------------------------------------------------------------------------

_encoder = msgspec.msgpack.Encoder()

SMALL_RESPONSE_BYTES = 64 << 10
_OPEN_ENDED = frozenset({"process.list", "stream.list", "env.all", "fs.read_dir"})


def max_response_bytes(method: str, params: Struct) -> int:
    """How large the answer to a request may be on the wire."""
    if method in _OPEN_ENDED:
        return MAX_MESSAGE_BYTES
    if isinstance(params, ReadParams):
        return params.inline_max + SMALL_RESPONSE_BYTES
    return SMALL_RESPONSE_BYTES


def encode(value: object) -> bytes:
    """One msgpack value."""
    return _encoder.encode(value)


@cache
def _decoder(type_: Any) -> msgspec.msgpack.Decoder[Any]:
    return msgspec.msgpack.Decoder(type_)


def decode(payload: bytes | msgspec.Raw, type_: type[T]) -> T:
    """One msgpack value of a known type.

    Raises:
        ProtocolError: It is anything else, or nested too deeply.
    """
    try:
        value: T = _decoder(cast(Hashable, type_)).decode(payload)
    except (ValueError, RecursionError) as error:
        # The decoder's text may quote what the peer sent.
        raise ProtocolError("payload", f"no valid {type_.__name__} ({type(error).__name__})") from None
    return value
