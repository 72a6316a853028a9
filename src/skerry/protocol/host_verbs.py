"""The verbs between api and hostd, and how they are framed.

A connection to hostd's socket carries frames: 4 bytes big-endian length (at most `MAX_FRAME_BYTES`), then
msgpack. api sends `Call`, hostd answers each with one `Reply` of the same ``id`` in any order, and sends
`Event`s on connections that asked with `Watch`. The reply to `OpenListener` carries one descriptor
(SCM_RIGHTS, unix(7)); it is asked on a connection of its own, because stream transports drop ancillary data.
"""

import struct

import msgspec

from skerry.spec.ids import SandboxId
from skerry.spec.sandbox import DriverReport, Ended, StartSpec

MAX_FRAME_BYTES = 1 << 20
"""A listing of 1,000 sandboxes takes about 150 KiB."""

_LENGTH = struct.Struct(">I")


class Describe(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Ask who hostd is and what its drivers can do → `HostDescription`."""


class Start(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Start a sandbox with everything it needs → None. On error nothing of it is left."""

    spec: StartSpec


class Pause(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Freeze every task of the sandbox → None. Idempotent."""

    sandbox_id: SandboxId


class Resume(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Thaw the sandbox → None. Idempotent."""

    sandbox_id: SandboxId


class Destroy(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """End the sandbox and free all that it held → `Ended`. Idempotent: unknown IDs answer ``Ended(None,
    False)``."""

    sandbox_id: SandboxId


class Inspect(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Look at every sandbox of this instance → list of `Observed`."""


class Stats(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Ask what a sandbox uses → `Usage`."""

    sandbox_id: SandboxId


class OpenListener(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Ask for the listening socket of the sandbox's agent → None and one descriptor.

    May be asked before `Start` (which makes it if need be) and again at any time: every answer is a duplicate
    of the same listener.
    """

    sandbox_id: SandboxId


class OpenGateway(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Ask for the gateway's end of a sandbox's network → None and two descriptors.

    They are a listening TCP socket that gets every TCP connection of the sandbox, and a UDP socket that gets
    its packets to port 53.

    For egressd's user only, who may ask nothing else. It may be asked any number of times while the sandbox
    exists, each time on a connection of its own as `OpenListener`.
    """

    sandbox_id: SandboxId


class Watch(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """From now on send `Event`s on this connection → None."""


Verb = Describe | Start | Pause | Resume | Destroy | Inspect | Stats | OpenListener | OpenGateway | Watch


class HostDescription(msgspec.Struct, frozen=True):
    """Who answers: version, boot of the machine (`/proc/sys/kernel/random/boot_id`), drivers, digests of
    images by name, and all of the machine's memory (0: unknown)."""

    version: str
    pid: int
    boot_id: str
    drivers: tuple[DriverReport, ...]
    images: dict[str, str]
    memory_mib: int = 0


class SandboxExited(msgspec.Struct, frozen=True, tag=True):
    """A sandbox ended by itself or was killed by the kernel. It stays in `Inspect` until it is destroyed."""

    sandbox_id: SandboxId
    ended: Ended


class MemoryPressure(msgspec.Struct, frozen=True, tag=True):
    """A sandbox's memory is almost used up: the agent should kill its largest process group now."""

    sandbox_id: SandboxId
    used_bytes: int


Happening = SandboxExited | MemoryPressure


class Call(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One request; ``id`` is the caller's, unique on its connection."""

    id: int
    verb: Verb


class Failure(msgspec.Struct, frozen=True):
    """A refused or failed verb: family name of `skerry.errors`, its code, the public message."""

    family: str
    code: str
    message: str


class Reply(msgspec.Struct, frozen=True, tag=True):
    """The answer to the `Call` of the same ID. ``value`` is decoded by the caller, who knows the type."""

    id: int
    value: msgspec.Raw = msgspec.Raw(b"\xc0")
    failure: Failure | None = None


class Event(msgspec.Struct, frozen=True, tag=True):
    """Something happened that nobody asked for; only after `Watch`."""

    what: Happening


_encoder = msgspec.msgpack.Encoder()


def frame(message: msgspec.Struct) -> bytes:
    """Encode one message (`Call`, `Reply`, `Event`, or what `skerry.protocol.egress_verbs` has) with its
    length in front.

    Raises:
        ValueError: It would exceed `MAX_FRAME_BYTES`.
    """
    body = _encoder.encode(message)
    if len(body) > MAX_FRAME_BYTES:
        raise ValueError(f"message of {len(body)} bytes exceeds {MAX_FRAME_BYTES}")
    return _LENGTH.pack(len(body)) + body


class FrameReader:
    """Cuts a byte stream into frame bodies; holds at most one unfinished frame."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Take bytes, return every body that is complete now.

        Raises:
            ValueError: A frame announces more than `MAX_FRAME_BYTES`; the connection must be closed.
        """
        self._buffer += data
        bodies: list[bytes] = []
        while len(self._buffer) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer)
            if length > MAX_FRAME_BYTES:
                raise ValueError(f"frame of {length} bytes exceeds {MAX_FRAME_BYTES}")
            end = _LENGTH.size + length
            if len(self._buffer) < end:
                break
            bodies.append(bytes(self._buffer[_LENGTH.size : end]))
            del self._buffer[:end]
        return bodies
