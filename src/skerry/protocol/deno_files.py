"""File metadata in the shapes of the Deno Sandbox protocol.

Source: protocol notes, section 3.2; inode(7) for the bits of st_mode.
"""

import stat
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TypedDict

from skerry.protocol.messages import Stat

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_SAFE_INTEGER = 2**53 - 1
_FIRST_S = -62_135_596_800
_LAST_S = 253_402_300_799


class DirectoryEntry(TypedDict):
    """One entry of a directory."""

    name: str
    isFile: bool
    isDirectory: bool
    isSymlink: bool


def iso_time(time_ns: int) -> str:
    """ISO-8601 in UTC with milliseconds. Times outside years 1 to 9999 (a guest may set any) are moved to the
    nearest year that both SDKs parse."""
    seconds, rest_ns = divmod(time_ns, 1_000_000_000)
    seconds = min(max(seconds, _FIRST_S), _LAST_S)
    moment = _EPOCH + timedelta(seconds=seconds)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{rest_ns // 1_000_000:03d}Z".rjust(24, "0")


def iso_time_ms(time_ms: int) -> str:
    """The same for milliseconds since 1970."""
    return iso_time(time_ms * 1_000_000)


def _safe(number: int) -> int:
    """JavaScript reads larger integers wrong: keep the low 53 bits, which still tell inodes and devices
    apart."""
    return number & _MAX_SAFE_INTEGER


def file_info(status: Stat) -> dict[str, object]:
    """The FileInfo of a file: every member present and non-null, as one SDK's schema demands."""
    kind = stat.S_IFMT(status.mode)
    birthtime_ns = status.ctime_ns if status.birthtime_ns is None else status.birthtime_ns
    return {
        "isFile": kind == stat.S_IFREG,
        "isDirectory": kind == stat.S_IFDIR,
        "isSymlink": kind == stat.S_IFLNK,
        "size": _safe(status.size),
        "mtime": iso_time(status.mtime_ns),
        "atime": iso_time(status.atime_ns),
        "birthtime": iso_time(birthtime_ns),
        "ctime": iso_time(status.ctime_ns),
        "mode": status.mode,
        "dev": _safe(status.dev),
        "ino": _safe(status.ino),
        "nlink": _safe(status.nlink),
        "uid": status.uid,
        "gid": status.gid,
        "rdev": _safe(status.rdev),
        "blksize": _safe(status.blksize),
        "blocks": _safe(status.blocks),
        "isBlockDevice": kind == stat.S_IFBLK,
        "isCharDevice": kind == stat.S_IFCHR,
        "isFifo": kind == stat.S_IFIFO,
        "isSocket": kind == stat.S_IFSOCK,
    }


def directory_entry(name: str, kind: str) -> DirectoryEntry:
    """One entry of a directory from the agent's ``kind``: ``file``, ``dir``, ``symlink`` or ``other``."""
    return DirectoryEntry(
        name=name, isFile=kind == "file", isDirectory=kind == "dir", isSymlink=kind == "symlink"
    )


def string_map(values: Mapping[str | bytes, str | bytes]) -> dict[str, str]:
    """Names and values that need not be UTF-8 (a guest may set any bytes), with U+FFFD for what is not."""
    return {readable(name): readable(value) for name, value in values.items()}


def readable(text: str | bytes) -> str:
    """A name from the guest as text, with U+FFFD for what is not UTF-8."""
    return text if isinstance(text, str) else text.decode("utf-8", "replace")
