"""Thin wrappers of mount(2) and its relatives, and what this process's mount namespace holds now."""

import ctypes
import os
import re
from dataclasses import dataclass
from enum import IntFlag
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p]
_libc.umount2.argtypes = [ctypes.c_char_p, ctypes.c_int]

_ESCAPED = re.compile(r"\\([0-7]{3})")


class MountFlag(IntFlag):
    """``MS_…`` of <linux/mount.h>."""

    READ_ONLY = 1
    NO_SETUID = 2
    NO_DEVICES = 4
    NO_ATIME = 1024
    BIND = 4096
    RECURSIVE = 16384
    SILENT = 32768
    PRIVATE = 1 << 18
    SLAVE = 1 << 19
    SHARED = 1 << 20


@dataclass(frozen=True, slots=True)
class MountPoint:
    """One line of mountinfo.

    Attributes:
        path: Where it is mounted.
        kind: Type of the file system, such as ``ext4``.
        source: What is mounted, such as ``/dev/loop3``; for overlays only a name.
    """

    path: Path
    kind: str
    source: str


def mount(source: str | Path, target: Path, kind: str | None, flags: MountFlag, data: str = "") -> None:
    """Mount, bind, or change propagation.

    Raises:
        OSError: As mount(2) says; ``filename`` is the target.
    """
    encoded_kind = None if kind is None else kind.encode()
    if (
        _libc.mount(os.fsencode(source), os.fsencode(target), encoded_kind, int(flags), os.fsencode(data))
        != 0
    ):
        raise _last_error(target)


def unmount(target: Path, *, lazily: bool = False) -> None:
    """Unmount what is on top at this path.

    Args:
        lazily: Take it out of the tree even when busy; the file system goes with its last user (MNT_DETACH).

    Raises:
        OSError: As umount2(2) says; EINVAL when nothing is mounted there, EBUSY when it is in use.
    """
    detach, no_follow = 2, 8
    if _libc.umount2(os.fsencode(target), no_follow | (detach if lazily else 0)) != 0:
        raise _last_error(target)


def mounts_below(directory: Path) -> list[MountPoint]:
    """What is mounted at or below a directory in this mount namespace, in the order it was mounted.

    Source: proc_pid_mountinfo(5).
    """
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as listing:
        points = [_parse(line) for line in listing]
    return [point for point in points if point.path.is_relative_to(directory)]


def is_mount_point(path: Path) -> bool:
    """Whether something is mounted exactly there in this mount namespace."""
    return any(point.path == path for point in mounts_below(path))


def _parse(line: str) -> MountPoint:
    before, _, after = line.rstrip("\n").partition(" - ")
    kind, source, *_ = after.split(" ")
    return MountPoint(Path(_unescape(before.split(" ")[4])), kind, _unescape(source))


def _unescape(text: str) -> str:
    return _ESCAPED.sub(lambda match: chr(int(match[1], 8)), text)


def _last_error(path: Path) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), str(path))
