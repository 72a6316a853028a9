"""Root images: read-only EROFS files, each mounted once and shared by every sandbox that is made from it."""

import errno
import threading
from pathlib import Path

from skerry.errors import HostUnusable
from skerry.hostd.sys import loop
from skerry.hostd.sys.mounts import MountFlag, is_mount_point, mount, unmount

_FLAGS = MountFlag.READ_ONLY | MountFlag.NO_DEVICES | MountFlag.NO_SETUID | MountFlag.SILENT


class ImageMounts:
    """Mounts of images below one directory, named by the file's device and inode. Its methods block.

    An image file is never changed, only replaced; while it is mounted its inode number cannot be used again.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._mounting = threading.Lock()

    def ensure(self, image: Path) -> Path:
        """Mount an image unless it is, and return where.

        Raises:
            HostUnusable: The file is missing or no EROFS image, or the kernel cannot mount one.
        """
        try:
            image = image.resolve()
            status = image.stat()
            at = self._directory / f"{status.st_dev:x}-{status.st_ino:x}"
            with self._mounting:
                at.mkdir(mode=0o700, exist_ok=True)
                if at.stat().st_dev == self._directory.stat().st_dev:
                    with loop.attached_once(image, read_only=True) as device:
                        mount(device, at, "erofs", _FLAGS)
        except OSError as error:
            raise HostUnusable(_why_unmountable(error), detail=f"{image}: {error}") from error
        return at

    def drop(self) -> None:
        """Unmount every image. Roots that still use one keep it alive, unseen, until they end."""
        with self._mounting:
            for at in self._directory.iterdir():
                if is_mount_point(at):
                    unmount(at, lazily=True)
                at.rmdir()


def _why_unmountable(error: OSError) -> str:
    match error.errno:
        case errno.ENOENT:
            return "the root image is missing: build it with `make setup`"
        case errno.ENODEV:
            return "this kernel has no EROFS: load its module (modprobe erofs)"
        case errno.EINVAL:
            return "the root image is damaged or not EROFS: build it again with `make setup`"
        case _:
            return f"cannot mount the root image: {error.strerror}"
