"""The `x-deno-sandbox-config` header: base64 of a JSON object that says what sandbox to make.

Only shapes and grammar are checked here; limits (memory, labels, lifetimes) are the service's, so that every
adapter has the same.
The header may hold secret values: nothing here, and no error text, repeats one.

Source: protocol notes, section 1.6.
"""

import re
from typing import Any

import msgspec
import pybase64

from skerry.errors import InvalidRequest
from skerry.protocol.deno_flavour import Flavour

MAX_HEADER_BYTES = 262_144
"""Longest header that is accepted: about 190 KiB of JSON, most of it environment."""

_TIMEOUT = re.compile(r"([0-9]{1,9})(s|m)", re.ASCII)


def invalid_config(message: str) -> InvalidRequest:
    """An error about the header; the service's own ones about its values have the same code."""
    return InvalidRequest(message, code="INVALID_SANDBOX_CONFIG")


class _Root(msgspec.Struct, frozen=True):
    volume: str


class _Mount(msgspec.Struct, frozen=True):
    volume: str
    path: str


class SandboxConfig(msgspec.Struct, frozen=True):
    """The header as it was sent; members that are absent or null have their default.

    Attributes:
        memory_mb: MiB, despite the name.
        stop_at_ms: Absolute end, milliseconds since 1970 (one SDK computes it).
        timeout: ``session``, ``<n>s`` or ``<n>m`` as typed (the other SDK passes it on).
        volumes: An array of volume and path, or an object path → volume.
        allow_net: Absent is not the same as empty.
        secrets: By name, as they were sent; `skerry.policy.deno_fields` knows their members.
    """

    memory_mb: int | None = None
    stop_at_ms: int | None = None
    timeout: str | None = None
    labels: dict[str, str] | None = None
    root: _Root | None = None
    volumes: list[_Mount] | dict[str, str] | None = None
    allow_net: list[str] | None = None
    secrets: dict[str, dict[str, Any]] | None = None
    env: dict[str, str] | None = None
    ssh: bool | None = None
    port: int | None = None
    region: str | None = None

    def __repr__(self) -> str:
        return "SandboxConfig(…)"

    def mounts(self) -> dict[str, str]:
        """Mount path → volume, whichever shape was sent.

        Raises:
            InvalidRequest: Two volumes have the same path.
        """
        if isinstance(self.volumes, dict):
            return self.volumes
        mounts: dict[str, str] = {}
        for mount in self.volumes or ():
            if mount.path in mounts:
                raise invalid_config(
                    f"volumes: two of them are mounted at {mount.path!r}; each needs a path of its own"
                )
            mounts[mount.path] = mount.volume
        return mounts

    def duration_s(self) -> int | None:
        """Seconds that the sandbox lives by `timeout`; None for a session.

        Raises:
            InvalidRequest: It is not ``session``, ``<n>s`` or ``<n>m``.
        """
        if self.timeout is None or self.timeout == "session":
            return None
        match = _TIMEOUT.fullmatch(self.timeout)
        if match is None or int(match[1]) == 0:
            raise invalid_config(
                'timeout: expected "session", "<seconds>s" or "<minutes>m", such as "90s" or "5m"'
            )
        return int(match[1]) * (60 if match[2] == "m" else 1)


_decoder = msgspec.json.Decoder(SandboxConfig)


def decode_config(header: str | None, flavour: Flavour) -> SandboxConfig:
    """Decode the header.

    Args:
        header: None when it was not sent: everything has its default.
        flavour: Both SDKs' bytes are exact as Latin-1 (one sends ASCII, the other's ``btoa`` makes single
            bytes of U+0080 to U+00FF); other
            clients are taken for UTF-8 where that is valid.

    Raises:
        InvalidRequest: It is too long, not base64, not JSON, or has a member of the wrong type; the text
            names the member.
    """
    if header is None:
        return SandboxConfig()
    if len(header) > MAX_HEADER_BYTES:
        raise invalid_config(
            f"x-deno-sandbox-config: {len(header)} bytes, at most {MAX_HEADER_BYTES} are accepted;"
            " set large variables with env.set"
        )
    try:
        return _decoder.decode(_text(_from_base64(header), flavour))
    except msgspec.ValidationError as error:
        raise invalid_config(f"x-deno-sandbox-config: {_location(error)}") from None
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise invalid_config("x-deno-sandbox-config: expected the base64 form of a JSON object") from None


def _from_base64(header: str) -> bytes:
    """Decode leniently: either alphabet, with or without padding."""
    compact = header.strip().translate(str.maketrans("-_", "+/")).rstrip("=")
    return pybase64.b64decode(compact + "=" * (-len(compact) % 4), validate=True)


def _text(raw: bytes, flavour: Flavour) -> str:
    if flavour is Flavour.OTHER:
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            pass
    return raw.decode("latin-1")


def _location(error: msgspec.ValidationError) -> str:
    """What msgspec says is wrong and where: types and member names only, never a value."""
    text = str(error)
    return text.replace("`$.", "`").replace("`$`", "the object")
