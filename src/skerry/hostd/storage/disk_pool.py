"""Disks: thin ext4 image files of a fixed capacity in the pool."""

import os
import re
import threading
from pathlib import Path

from skerry.errors import InvalidRequest
from skerry.hostd.storage.headroom import MIB, DiskUsage
from skerry.hostd.storage.pool_directory import PoolDirectory, format_file
from skerry.hostd.sys import filesystems, loop
from skerry.hostd.sys.mounts import MountFlag, mount

_NAME = re.compile(r"[a-z0-9_]{1,64}", re.ASCII)
_SUFFIX = ".ext4"

_FLAGS = MountFlag.NO_DEVICES | MountFlag.NO_SETUID | MountFlag.NO_ATIME | MountFlag.SILENT
_OPTIONS = "discard,barrier=0,noinit_itable,errors=remount-ro"
"""``discard`` gives space back. ``barrier=0``: the content need not outlive a crash of the host, so its
commits need not flush the host's disk. ``noinit_itable``: else a kernel thread writes the inode tables of
every fresh disk, 320 MiB for 10 GiB, into the thin image."""


class DiskPool:
    """Creates, attaches and deletes disks by name.

    Its methods block and may be called from several threads, for one disk from one at a time. A disk needs no
    other record than its file: it exists when the file does.
    """

    def __init__(self, directory: PoolDirectory) -> None:
        self._directory = directory
        self._making_empty = threading.Lock()

    def open(self) -> None:
        """Make the pool ready.

        A predecessor's empty disks go: it may have formatted them otherwise, or been killed while it did.
        """
        self._directory.open()
        for part in (self._disks, self._empty):
            part.mkdir(mode=0o700, exist_ok=True)
        for empty in self._empty.iterdir():
            empty.unlink()

    def create(self, name: str, size_mib: int) -> None:
        """Make an empty disk; takes about a millisecond, and space only as it is written.

        Raises:
            OSError: FileExistsError when there is one of that name.
            HostUnusable: mkfs.ext4 is missing or failed.
        """
        filesystems.clone_file(self._empty_of(size_mib), self._file(name))

    def delete(self, name: str) -> None:
        """Delete a disk. Its space comes back when nothing has it attached any more. Idempotent."""
        self._file(name).unlink(missing_ok=True)

    def names(self) -> list[str]:
        """Every disk there is."""
        return [file.stem for file in self._disks.iterdir() if file.suffix == _SUFFIX]

    def exists(self, name: str) -> bool:
        """Whether there is a disk of that name."""
        return self._file(name).exists()

    def attach(self, name: str, at: Path) -> None:
        """Mount a disk on a directory. Unmounting it detaches it."""
        with loop.attached(self._file(name)) as device:
            mount(device, at, "ext4", _FLAGS, _OPTIONS)

    def detached_late(self) -> list[Path]:
        """Loop devices of disks that were deleted, but are still held by some process."""
        prefix = f"{self._disks}/"
        return [
            device.path
            for device in loop.devices()
            if device.backing_file.startswith(prefix) and device.backing_file.endswith(f"{_SUFFIX} (deleted)")
        ]

    def usage(self, name: str, at: Path) -> DiskUsage:
        """How full an attached disk is.

        Raises:
            NotMounted: It is not attached there.
        """
        with filesystems.loop_mounted(at) as top:
            inside = os.fstatvfs(top)
        backed = os.stat(self._file(name)).st_blocks * 512
        block = inside.f_frsize
        return DiskUsage(inside.f_blocks * block, (inside.f_blocks - inside.f_bfree) * block, backed)

    def allow(self, at: Path, allowance_bytes: int) -> None:
        """Let an attached disk grow by so much from now on; writes beyond get ENOSPC at once, also root's.

        Source: kernel Documentation/ABI/testing/sysfs-fs-ext4, reserved_clusters;
        ext4_has_free_clusters() never grants these to ordinary writes.

        Raises:
            NotMounted: It is not attached there.
        """
        with filesystems.loop_mounted(at) as top:
            inside = os.fstatvfs(top)
            usual = min(inside.f_blocks // 50, 4096)  # ext4_calculate_resv_clusters()
            held_back = max(usual, inside.f_bfree - allowance_bytes // inside.f_frsize)
            device = os.fstat(top).st_dev
            entry = os.readlink(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}")
            Path("/sys/fs/ext4", Path(entry).name, "reserved_clusters").write_text(str(held_back))

    @property
    def _disks(self) -> Path:
        return self._directory.path / "disks"

    @property
    def _empty(self) -> Path:
        return self._directory.path / "empty"

    def _file(self, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise InvalidRequest("not a disk name: expected up to 64 characters of [a-z0-9_]")
        return self._disks / f"{name}{_SUFFIX}"

    def _empty_of(self, size_mib: int) -> Path:
        """The formatted empty disk of this size that new ones are clones of."""
        empty = self._empty / f"{size_mib}-mib{_SUFFIX}"
        with self._making_empty:
            if not empty.exists():
                half_made = empty.with_suffix(".tmp")
                with half_made.open("wb") as file:
                    file.truncate(size_mib * MIB)
                format_file(*_format(size_mib), str(half_made))
                half_made.rename(empty)
        return empty


def _format(size_mib: int) -> list[str]:
    # Inodes for files of 8 KiB on average, as trees of packages have, so that space ends before inodes do.
    # With a journal, discards are batched by commit; without one each deleted file waits for its own. A small
    # one, because a busy disk sooner or later takes all of it from the pool.
    journal_mib = 16 if size_mib >= 512 else 4
    tuning = ["-m", "0", "-i", "8192", "-O", "^resize_inode", "-J", f"size={journal_mib}"]
    return ["mkfs.ext4", "-q", "-F", "-b", "4096", "-I", "256", *tuning, "-E", "lazy_itable_init=1,nodiscard"]
