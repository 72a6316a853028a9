"""Where the disks lie: a directory on a file system with reflinks, of its own making where the data directory
has none."""

import errno
import os
import subprocess  # noqa: TID251 - hostd formats its own file systems
from pathlib import Path

from skerry.errors import HostUnusable
from skerry.hostd.storage.headroom import GIB, Space
from skerry.hostd.sys import filesystems, loop
from skerry.hostd.sys.mounts import MountFlag, is_mount_point, mount

_MAX_IMAGE_BYTES = 8 << 40
"""An ext4 host file holds at most 16 TiB."""

_FORMAT_DEADLINE_S = 30.0
_FLAGS = MountFlag.NO_DEVICES | MountFlag.NO_SETUID | MountFlag.NO_ATIME


class PoolDirectory:
    """The pool's directory and the file systems it rests on. Its methods block.

    Args:
        data_dir: hostd's part of the data directory.
        mount_point: Where the pool's own file system is mounted if it needs one.
    """

    def __init__(self, data_dir: Path, mount_point: Path) -> None:
        self._data_dir = data_dir
        self._mount_point = mount_point
        self._image = data_dir / "pool.img"
        self.path = data_dir / "pool"

    def open(self) -> None:
        """Find or make the directory; afterwards `path` is valid.

        A pool that was begun as an image stays one, whatever the data directory can do now.

        Raises:
            HostUnusable: The pool's file system could not be made or mounted.
        """
        self._data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not self._image.exists() and filesystems.can_clone(self._data_dir):
            self.path.mkdir(mode=0o700, exist_ok=True)
            return
        self.path = self._mount_point
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not is_mount_point(self.path):
            self._make_image()
            self._mount_image()

    @property
    def is_mounted(self) -> bool:
        """Whether the pool is a mount that must be undone."""
        return self.path == self._mount_point

    def spaces(self) -> list[Space]:
        """Every file system that must not run full: the pool's and, below an image, the host's."""
        return [_space(path) for path in ({self.path, self._data_dir} if self.is_mounted else {self.path})]

    def _make_image(self) -> None:
        # As large as the host's file system and sparse: it takes only what is written, and `headroom` keeps
        # it from taking the rest.
        if self._image.exists():
            return
        half_made = self._image.with_suffix(".tmp")
        half_made.unlink(missing_ok=True)
        size = min(max(_space(self._data_dir).total_bytes, GIB), _MAX_IMAGE_BYTES)
        half_made.touch(mode=0o600)
        os.truncate(half_made, size)
        format_file("mkfs.xfs", "-q", "-m", "reflink=1", "-l", "size=64m", str(half_made))
        half_made.rename(self._image)

    def _mount_image(self) -> None:
        try:
            with loop.attached_once(self._image) as device:
                mount(device, self.path, "xfs", _FLAGS, "discard")
        except OSError as error:
            raise HostUnusable(_why_unmountable(error), detail=f"{self._image}: {error}") from error


def format_file(*command: str) -> None:
    """Run a mkfs program on a file.

    Raises:
        HostUnusable: It is not installed, failed, or took too long.
    """
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=_FORMAT_DEADLINE_S)
    except FileNotFoundError as error:
        packages = {"mkfs.xfs": "xfsprogs", "mkfs.ext4": "e2fsprogs"}
        raise HostUnusable(
            f"{command[0]} is missing: install the package {packages[command[0]]}", code="MKFS_MISSING"
        ) from error
    except subprocess.CalledProcessError as error:
        tail = error.stderr.decode(errors="replace")[-500:]
        raise HostUnusable(f"{command[0]} failed with status {error.returncode}", detail=tail) from error
    except subprocess.TimeoutExpired as error:
        raise HostUnusable(f"{command[0]} took more than {_FORMAT_DEADLINE_S:g} s") from error


def _why_unmountable(error: OSError) -> str:
    if error.errno == errno.ENODEV:
        return "this kernel has no XFS: load its module (modprobe xfs) or put the data directory on btrfs"
    if error.errno == errno.EUCLEAN:
        return (
            "the disk pool is damaged: stop Skerry and run xfs_repair on host/pool.img of the data directory"
        )
    if error.errno in (errno.ENOENT, errno.ENXIO, errno.EPERM, errno.EACCES):
        needs = "hostd needs root, /dev/loop-control and the module loop"
        return f"cannot use loop devices here ({error.strerror}): {needs}"
    return f"cannot mount the disk pool: {error.strerror}"


def _space(path: Path) -> Space:
    now = os.statvfs(path)
    return Space(now.f_blocks * now.f_frsize, now.f_bavail * now.f_frsize)
