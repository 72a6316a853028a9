"""Writable roots of sandboxes: a shared image below, a disk of its own on top.

Layout, all of it made and found again from names alone::

    <mounts>/pool              the pool's file system, if it has one of its own
    <mounts>/images/<dev-ino>  a root image
    <mounts>/roots/<id>/disk   the sandbox's disk: ``upper`` and ``work`` of the overlay
    <mounts>/roots/<id>/merged what the sandbox sees as its root

docs/adr/0001-root-upper.md says why.
"""

import asyncio
import contextlib
import errno
import os
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import structlog

from skerry.errors import Conflict, NotFound, ResourceExhausted, RuntimeFailed, TimedOut
from skerry.hostd.storage import headroom
from skerry.hostd.storage.blocking import BlockingWork
from skerry.hostd.storage.disk_pool import DiskPool
from skerry.hostd.storage.headroom import MIB, DiskUsage
from skerry.hostd.storage.image_mounts import ImageMounts
from skerry.hostd.storage.pool_directory import PoolDirectory
from skerry.hostd.sys import filesystems
from skerry.hostd.sys.filesystems import NotMounted
from skerry.hostd.sys.mounts import MountFlag, is_mount_point, mount, unmount
from skerry.spec.ids import SandboxId, is_sandbox_id

OPEN_DEADLINE_S = 60.0
PREPARE_DEADLINE_S = 20.0
RELEASE_DEADLINE_S = 20.0
LOOK_DEADLINE_S = 5.0
BUSY_PATIENCE_S = 1.0
"""How long a busy mount is asked to go before it is taken out of the tree."""

_FLAGS = MountFlag.NO_DEVICES | MountFlag.NO_SETUID | MountFlag.NO_ATIME | MountFlag.SILENT
_OPTIONS = "volatile,redirect_dir=on,index=off,metacopy=off,xino=auto"
"""``volatile``: a guest's fsync need not reach the device, for its root does not outlive a crash of the host.
``redirect_dir``: directories of the image can be renamed instead of EXDEV. Without ``metacopy`` and ``index``
an upper holds whole files and is readable by itself."""

_LOCKS = 64
"""One thread at a time per sandbox; sandboxes that share a lock by chance only wait for each other."""

_log = structlog.get_logger(__name__)


class RootStore:
    """The writable roots of one instance. hostd must be in its private mount namespace.

    Args:
        data_dir: hostd's part of the data directory; may be on any file system.
        mounts_dir: Where everything is mounted; a path without ``,``, ``:`` and ``\\``.
    """

    def __init__(self, data_dir: Path, mounts_dir: Path) -> None:
        self._mounts = mounts_dir = mounts_dir.resolve()
        self._roots = mounts_dir / "roots"
        self._directory = PoolDirectory(data_dir, mounts_dir / "pool")
        self._disks = DiskPool(self._directory)
        self._images = ImageMounts(mounts_dir / "images")
        self._work = BlockingWork()
        self._locks = tuple(threading.Lock() for _ in range(_LOCKS))
        self._held_back: dict[str, tuple[int, int] | None] = {}
        self._promised_bytes = 0
        self._closing = False

    async def open(self) -> None:
        """Make the pool ready; adopts whatever is mounted already.

        Raises:
            HostUnusable: The host lacks something; the message says what.
        """
        await self._work.run("opening the disk pool", OPEN_DEADLINE_S, self._open)

    async def prepare(self, sandbox_id: SandboxId, image_path: Path, disk_mib: int) -> Path:
        """Make and mount a fresh root; returns its directory.

        On any error, and on cancellation, nothing of it stays (after a deadline: once the kernel has
        answered).

        Raises:
            Conflict: The sandbox has a root, or remains of one.
            ResourceExhausted: The host has not enough free space for another disk.
            HostUnusable: The image cannot be mounted or mkfs.ext4 is missing.
            RuntimeFailed: A mount failed.
            TimedOut: The kernel took more than 20 s.
        """
        return await self._work.run(
            "preparing the root",
            PREPARE_DEADLINE_S,
            partial(self._prepare, sandbox_id, image_path, disk_mib),
            undo=partial(self._release, sandbox_id),
        )

    async def release(self, sandbox_id: SandboxId) -> None:
        """Unmount and delete a root with all that was written. Idempotent.

        The sandbox's processes should be gone; what still runs gets EIO.

        Raises:
            RuntimeFailed: Something could not be removed; it stays listed by `present`.
            TimedOut: The kernel took more than 20 s; it goes on.
        """
        await self._work.run("releasing the root", RELEASE_DEADLINE_S, partial(self._release, sandbox_id))

    async def present(self) -> list[SandboxId]:
        """Every sandbox of which there is anything: mounts, directories or a disk, complete or not."""
        return await self._work.run("listing roots", LOOK_DEADLINE_S, self._present)

    async def usage(self, sandbox_id: SandboxId) -> int:
        """Bytes the sandbox has written and not deleted.

        Raises:
            NotFound: It has no mounted root.
        """
        look = partial(self._usage, sandbox_id)
        return (await self._work.run("looking at a disk", LOOK_DEADLINE_S, look)).used_bytes

    async def held_by_others(self) -> list[Path]:
        """Loop devices of released roots that some process still holds (a mount that was busy to the end)."""
        return await self._work.run("listing loop devices", LOOK_DEADLINE_S, self._disks.detached_late)

    async def guard(self) -> None:
        """Keep the pool from running full until the store is closed; a task of its own. See `headroom`."""
        while not self._closing:
            next_look_s = 1.0
            try:
                next_look_s = await self._work.run("looking at free space", LOOK_DEADLINE_S, self._look)
            except (OSError, TimedOut) as error:
                if not self._closing:
                    _log.error("free space could not be checked", error=str(error))
            await asyncio.sleep(next_look_s)

    async def close(self, *, keep: bool) -> None:
        """Stop working; the store is useless afterwards.

        Args:
            keep: Leave all roots as they are, for the next hostd. Else release them and unmount the rest.
        """
        self._closing = True
        try:
            if not keep:
                await self._work.run("closing the disk pool", OPEN_DEADLINE_S, self._tear_down)
        finally:
            self._work.close()

    def _open(self) -> None:
        with _explained("the disk pool could not be opened"):
            self._make_ready()
            self._look()

    def _make_ready(self) -> None:
        self._mounts.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not is_mount_point(self._mounts):
            # Shared, so that unmounting here also reaches the copies in mount namespaces that runtimes make
            # of ours.
            mount(self._mounts, self._mounts, None, MountFlag.BIND)
            mount("none", self._mounts, None, MountFlag.SHARED)
        for part in ("images", "roots"):
            (self._mounts / part).mkdir(mode=0o700, exist_ok=True)
        self._disks.open()
        if not self._present():
            self._images.drop()

    def _prepare(self, sandbox_id: SandboxId, image_path: Path, disk_mib: int) -> Path:
        with self._lock(sandbox_id), _explained("the root could not be made"):
            if (self._roots / sandbox_id).exists() or self._disks.exists(sandbox_id):
                raise Conflict(f"{sandbox_id} has a root already")
            self._admit(disk_mib)
            with contextlib.ExitStack() as undo:
                undo.callback(self._free, sandbox_id)
                merged = self._mount_root(sandbox_id, self._images.ensure(image_path), disk_mib)
                undo.pop_all()
            return merged

    def _mount_root(self, sandbox_id: SandboxId, lower: Path, disk_mib: int) -> Path:
        root = self._roots / sandbox_id
        disk, merged = root / "disk", root / "merged"
        for directory in (root, disk, merged):
            directory.mkdir(mode=0o700)
        self._disks.create(sandbox_id, disk_mib)
        self._disks.attach(sandbox_id, disk)
        upper, work = disk / "upper", disk / "work"
        upper.mkdir()
        upper.chmod(0o755)  # the mode of the sandbox's /, whatever hostd's umask is
        work.mkdir(mode=0o700)
        mount(
            "overlay",
            merged,
            "overlay",
            _FLAGS,
            f"lowerdir={lower},upperdir={upper},workdir={work},{_OPTIONS}",
        )
        return merged

    def _admit(self, disk_mib: int) -> None:
        spendable = headroom.spendable_bytes(self._directory.spaces(), self._promised_bytes)
        needed = headroom.needed_for_a_new_disk(disk_mib * MIB)
        if spendable < needed:
            raise ResourceExhausted(
                f"the host's disk is almost full: {spendable // MIB} MiB left above the reserve, "
                f"a sandbox needs {needed // MIB} MiB; "
                "end sandboxes or free space on the file system of the data directory"
            )

    def _release(self, sandbox_id: SandboxId) -> None:
        with self._lock(sandbox_id), _explained("the root could not be removed"):
            self._free(sandbox_id)

    def _free(self, sandbox_id: SandboxId) -> None:
        # Only rmdir below: with a recursive removal a mount that did not go away would be walked, and it is
        # the guest's.
        root = self._roots / sandbox_id
        disk, merged = root / "disk", root / "merged"
        with contextlib.suppress(NotMounted, OSError):  # OSError: shut down already, before a kill
            filesystems.shut_down(disk)
        for point in (merged, disk):
            _unmount_for_sure(point)
        self._disks.delete(sandbox_id)
        for directory in (merged, disk, root):
            with contextlib.suppress(FileNotFoundError):
                directory.rmdir()

    def _present(self) -> list[SandboxId]:
        names = {entry.name for entry in self._roots.iterdir()} | set(self._disks.names())
        return sorted(SandboxId(name) for name in names if is_sandbox_id(name))

    def _usage(self, sandbox_id: SandboxId) -> DiskUsage:
        try:
            return self._disks.usage(sandbox_id, self._roots / sandbox_id / "disk")
        except (NotMounted, FileNotFoundError) as error:
            raise NotFound(f"{sandbox_id} has no root") from error

    def _usages(self) -> dict[str, DiskUsage]:
        usages: dict[str, DiskUsage] = {}
        for sandbox_id in self._present():
            with contextlib.suppress(NotFound, OSError):  # being released
                usages[sandbox_id] = self._usage(sandbox_id)
        return usages

    def _look(self) -> float:
        usages = self._usages()
        self._promised_bytes = sum(usage.promised_bytes for usage in usages.values())
        plan = headroom.plan(self._directory.spaces(), usages)
        for name in self._held_back.keys() - usages.keys():
            del self._held_back[name]
        for name, usage in usages.items():
            allowance = plan.allowances[name]
            # What is set is relative to the use at that time, so a disk that is held back is set again when
            # it has grown.
            wanted = (allowance, usage.used_bytes) if allowance < usage.remaining_bytes else None
            if name not in self._held_back or self._held_back[name] != wanted:
                with contextlib.suppress(NotMounted):  # released meanwhile
                    self._disks.allow(self._roots / name / "disk", allowance)
                    self._held_back[name] = wanted
        return plan.next_look_s

    def _tear_down(self) -> None:
        for sandbox_id in self._present():
            self._release(sandbox_id)
        self._images.drop()
        if self._directory.is_mounted:
            _unmount_for_sure(self._directory.path)
        _unmount_for_sure(self._mounts)

    def _lock(self, sandbox_id: SandboxId) -> threading.Lock:
        return self._locks[hash(sandbox_id) % _LOCKS]


@contextlib.contextmanager
def _explained(what: str) -> Iterator[None]:
    """Turn an error of the kernel into one that may cross layers; the path stays in the detail."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise ResourceExhausted(f"{what}: the host's disk is full", detail=str(error)) from error
        raise RuntimeFailed(f"{what}: {os.strerror(error.errno or 0)}", detail=str(error)) from error


def _unmount_for_sure(point: Path) -> None:
    """Unmount; when it stays busy for a second, take it out of the tree: it goes with its last user."""
    give_up = time.monotonic() + BUSY_PATIENCE_S
    while True:
        try:
            unmount(point, lazily=time.monotonic() > give_up)
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.ENOENT):
                return
            if error.errno != errno.EBUSY:
                raise
            time.sleep(0.01)
