"""Parameters of the RPC methods. Unknown members are ignored; every optional one may be absent or null.

Source: protocol notes, section 3.
"""

from typing import Literal

import msgspec

Stdio = Literal["piped", "null", "inherit"]


class _Params(msgspec.Struct, frozen=True, rename="camel"):
    """Base: camelCase on the wire."""


class Abort(_Params, frozen=True):
    """`abort`."""

    abort_id: int


class Spawn(_Params, frozen=True):
    """`spawn`. ``inherit`` is taken for ``piped``, which both SDKs turn it into anyway."""

    command: str
    stdout: Stdio
    stderr: Stdio
    args: list[str] | None = None
    env: dict[str, str] | None = None
    clear_env: bool | None = None
    cwd: str | None = None
    stdin_stream_id: int | None = None


class ProcessWait(_Params, frozen=True):
    """`processWait`."""

    pid: int


class ProcessKill(_Params, frozen=True):
    """`processKill`."""

    pid: int
    signal: str | None = None


class Path(_Params, frozen=True):
    """Methods whose only parameter is a path."""

    path: str


class ReadFile(_Params, frozen=True):
    """`readFile` and `readTextFile`."""

    path: str
    abort_id: int | None = None


class WriteOptions(_Params, frozen=True):
    """How a file is opened for writing; absent means false, but `create`, which is true unless refused."""

    append: bool | None = None
    create: bool | None = None
    create_new: bool | None = None
    mode: int | None = None


class WriteFile(_Params, frozen=True):
    """`writeFile` and `writeTextFile`: either `content` or `content_stream_id`."""

    path: str
    content: str | None = None
    content_stream_id: int | None = None
    options: WriteOptions | None = None
    abort_id: int | None = None


class RemoveOptions(_Params, frozen=True):
    """Options of `remove`."""

    recursive: bool | None = None


class Remove(_Params, frozen=True):
    """`remove`."""

    path: str
    options: RemoveOptions | None = None


class MkdirOptions(_Params, frozen=True):
    """Options of `mkdir`."""

    recursive: bool | None = None
    mode: int | None = None


class Mkdir(_Params, frozen=True):
    """`mkdir`."""

    path: str
    options: MkdirOptions | None = None


class EnvKey(_Params, frozen=True):
    """`envGet` and `envDelete`."""

    key: str


class EnvSet(_Params, frozen=True):
    """`envSet`."""

    key: str
    value: str


class Nothing(_Params, frozen=True):
    """Methods without parameters."""


class StreamChunk(_Params, frozen=True):
    """`$sandbox.stream.enqueue` from a client. The ID keeps its JSON text, to be echoed in a cancel."""

    stream_id: msgspec.Raw
    data: str


class StreamMark(_Params, frozen=True):
    """`$sandbox.stream.start`, ``end`` and ``cancel``."""

    stream_id: msgspec.Raw


class StreamFailed(_Params, frozen=True):
    """`$sandbox.stream.error` from a client: one SDK sends a plain string, the other an error object or
    null."""

    stream_id: msgspec.Raw
    error: str | dict[str, object] | None = None
