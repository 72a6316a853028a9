"""What can be asked of a mounted file system beyond mount(2): reflinks and a forced end."""

import contextlib
import fcntl
import os
import struct
from collections.abc import Iterator
from pathlib import Path

_FICLONE = 0x40049409  # ioctl_ficlone(2)
_SHUTDOWN = 0x8004587D  # EXT4_IOC_SHUTDOWN, XFS_IOC_GOINGDOWN
_SHUTDOWN_WITHOUT_LOG = 2
_LOOP_MAJOR = 7


class NotMounted(Exception):
    """No file system on a loop device is mounted there."""


def clone_file(source: Path, target: Path) -> None:
    """Make a new file that shares every block of another (a reflink): at once, and without taking space.

    Raises:
        OSError: As ioctl_ficlone(2) says, or the target exists; no target is left.
    """
    origin = os.open(source, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        copy = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            fcntl.ioctl(copy, _FICLONE, origin)
        except BaseException:
            target.unlink()
            raise
        finally:
            os.close(copy)
    finally:
        os.close(origin)


def can_clone(directory: Path) -> bool:
    """Whether files in a directory can be reflinked, found by doing it with two files that have no name."""
    flags = os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC
    with contextlib.ExitStack() as stack:
        try:
            source, target = (os.open(directory, flags, 0o600) for _ in range(2))
            stack.callback(os.close, source)
            stack.callback(os.close, target)
            os.write(source, b"x")
            fcntl.ioctl(target, _FICLONE, source)
        except OSError:
            return False
    return True


@contextlib.contextmanager
def loop_mounted(mount_point: Path) -> Iterator[int]:
    """Open the top directory of a file system on a loop device; while the block runs, it stays mounted.

    What is done to a disk through its path alone would be done to the host's own file system if the disk was
    unmounted meanwhile.

    Raises:
        NotMounted: The path is not the top of a file system on a loop device.
    """
    try:
        descriptor = os.open(mount_point, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY | os.O_NOFOLLOW)
    except FileNotFoundError as error:
        raise NotMounted(str(mount_point)) from error
    try:
        device = os.fstat(descriptor).st_dev
        if os.major(device) != _LOOP_MAJOR or device == os.stat("..", dir_fd=descriptor).st_dev:
            raise NotMounted(str(mount_point))
        yield descriptor
    finally:
        os.close(descriptor)


def shut_down(mount_point: Path) -> None:
    """End an ext4 or XFS file system on a loop device for ever: every access fails with EIO from now on.

    For file systems whose content is about to be deleted: unmounting one would first write its dirty pages,
    for seconds.

    Raises:
        NotMounted: See `loop_mounted`.
        OSError: It cannot be opened (it was shut down already) or has no such operation.
    """
    with loop_mounted(mount_point) as descriptor:
        fcntl.ioctl(descriptor, _SHUTDOWN, struct.pack("=I", _SHUTDOWN_WITHOUT_LOG))
