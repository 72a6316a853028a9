"""Loop devices that end by themselves: every one is attached with autoclear. Source: loop(4),
<linux/loop.h>."""

import contextlib
import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_LOOP_CONFIGURE = 0x4C0A
_LOOP_CTL_GET_FREE = 0x4C82
_LOOP_GET_STATUS64 = 0x4C05

_FLAG_READ_ONLY, _FLAG_AUTOCLEAR, _FLAG_DIRECT_IO = 1, 4, 16

_INFO64 = struct.Struct("=QQQQQIIII64s64s32s2Q")  # struct loop_info64
_CONFIG = struct.Struct(f"=II{_INFO64.size}s64x")  # struct loop_config
_NAME_BYTES = 64
_ATTEMPTS = 64

_SYSFS = Path("/sys/block")


@dataclass(frozen=True, slots=True)
class LoopDevice:
    """An attached device.

    Attributes:
        path: Its node, such as ``/dev/loop3``.
        backing_file: The file behind it as the kernel names it now; `` (deleted)`` at its end when that
            was unlinked.
    """

    path: Path
    backing_file: str


@contextlib.contextmanager
def attached(file: Path, *, read_only: bool = False) -> Iterator[Path]:
    """Attach a file and yield the device's path; while the block runs, the device is held open.

    Mount it inside the block: with the last mount and the last opener gone the kernel detaches it
    (autoclear), whatever dies. Direct I/O is asked for, so that pages are not cached twice; the kernel
    falls back by itself where the file system cannot.

    Raises:
        OSError: The file or a device cannot be opened, or (EBUSY) other programs took every free device.
    """
    mode = os.O_RDONLY if read_only else os.O_RDWR
    backing = os.open(file, mode | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        device, path = _configure(backing, os.fsencode(file)[: _NAME_BYTES - 1], read_only=read_only)
    finally:
        os.close(backing)
    try:
        yield path
    finally:
        os.close(device)


@contextlib.contextmanager
def attached_once(file: Path, *, read_only: bool = False) -> Iterator[Path]:
    """As `attached`, but use the device that already has this very file behind it if there is one.

    Two devices on one file would be two caches of one file system. This is also how a mount whose namespace
    was lost is found again.
    """
    device = _open_device_of(file)
    if device is None:
        with attached(file, read_only=read_only) as path:
            yield path
        return
    try:
        yield Path(os.readlink(f"/proc/self/fd/{device}"))
    finally:
        os.close(device)


def devices() -> list[LoopDevice]:
    """Every attached loop device of the machine."""
    found = []
    for entry in _SYSFS.glob("loop*"):
        try:
            backing = (entry / "loop" / "backing_file").read_text(errors="surrogateescape").rstrip("\n")
        except (FileNotFoundError, OSError):  # not attached, or just gone
            continue
        found.append(LoopDevice(Path("/dev") / entry.name, backing))
    return found


def _configure(backing: int, name: bytes, *, read_only: bool) -> tuple[int, Path]:
    flags = _FLAG_AUTOCLEAR | _FLAG_DIRECT_IO | (_FLAG_READ_ONLY if read_only else 0)
    info = _INFO64.pack(0, 0, 0, 0, 0, 0, 0, 0, flags, name, b"", b"", 0, 0)
    config = _CONFIG.pack(backing, 0, info)
    control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    try:
        for _ in range(_ATTEMPTS):
            path = Path(f"/dev/loop{fcntl.ioctl(control, _LOOP_CTL_GET_FREE)}")
            device = os.open(path, (os.O_RDONLY if read_only else os.O_RDWR) | os.O_CLOEXEC)
            try:
                fcntl.ioctl(device, _LOOP_CONFIGURE, config)
                return device, path
            except OSError as error:
                os.close(device)
                if error.errno != errno.EBUSY:
                    raise OSError(error.errno, f"LOOP_CONFIGURE: {error.strerror}", str(path)) from error
    finally:
        os.close(control)
    raise OSError(errno.EBUSY, "other programs keep taking the free loop devices", "/dev/loop-control")


def _open_device_of(file: Path) -> int | None:
    wanted = file.stat()
    for candidate in devices():
        if not candidate.backing_file.endswith(file.name):
            continue
        with contextlib.suppress(OSError):  # it went away
            device = os.open(candidate.path, os.O_RDONLY | os.O_CLOEXEC)
            if _backing_of(device) == (wanted.st_dev, wanted.st_ino):
                return device
            os.close(device)
    return None


def _backing_of(device: int) -> tuple[int, int]:
    try:
        info = _INFO64.unpack(fcntl.ioctl(device, _LOOP_GET_STATUS64, bytes(_INFO64.size)))
    except OSError as error:
        if error.errno == errno.ENXIO:  # detached meanwhile
            return 0, 0
        raise
    return info[0], info[1]
