"""What can be asked of a mounted file system beyond mount(2): reflinks and a forced end."""

import errno
import fcntl
import os
import struct
import tempfile
from pathlib import Path

_FICLONE = 0x40049409  # ioctl_ficlone(2)
_SHUTDOWN = 0x8004587D  # EXT4_IOC_SHUTDOWN, XFS_IOC_GOINGDOWN
_SHUTDOWN_WITHOUT_LOG = 2
_LOOP_MAJOR = 7


def clone_file(source: Path, target: Path) -> None:
    """Make a new file that shares every block of another (a reflink): at once and without space, whatever its
    size.

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
    """Whether files in a directory can be reflinked, found by doing it."""
    with tempfile.TemporaryDirectory(prefix="probe-", dir=directory) as scratch:
        source = Path(scratch, "source")
        source.write_bytes(b"x")
        try:
            clone_file(source, Path(scratch, "copy"))
        except OSError:
            return False
    return True


def shut_down(mount_point: Path) -> None:
    """End an ext4 or XFS file system for ever: nothing more is written, every access fails with EIO.

    For file systems whose content is about to be deleted: unmounting one would first write its dirty pages,
    for seconds.

    Raises:
        OSError: EINVAL when the path is not the top of a file system on a loop device. Without this check a
        call for a directory
            that is not mounted (any more) would end the host's own file system.
    """
    descriptor = os.open(mount_point, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        device = os.fstat(descriptor).st_dev
        if os.major(device) != _LOOP_MAJOR or device == os.stat("..", dir_fd=descriptor).st_dev:
            raise OSError(errno.EINVAL, "not the top of a file system on a loop device", str(mount_point))
        fcntl.ioctl(descriptor, _SHUTDOWN, struct.pack("=I", _SHUTDOWN_WITHOUT_LOG))
    finally:
        os.close(descriptor)
