"""How long a sandbox must stand still while its upper is copied; part of `storage_candidates.py`."""

import ctypes
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from skerry.hostd.sys.filesystems import clone_file

_libc = ctypes.CDLL(None, use_errno=True)

Marks = dict[str, tuple[int, int, int]]
"""Inode, ctime and size of what a pass has copied, by target path."""


class Snapped(Protocol):
    """What is needed of a candidate's upper."""

    base: Path
    merged: Path
    upper: Path

    def prepare(self) -> None: ...
    def release(self) -> None: ...


def clone_tree(source: Path, target: Path, known: Marks) -> Marks:
    """Reflink walk of a directory with owners, modes, times, xattrs, devices and hard links.

    A file whose inode, ctime and size are in ``known`` was copied by an earlier pass and is left alone; names
    that are gone are removed. Returns what a later pass needs.
    """
    seen: Marks = {}
    links: dict[int, str] = {}
    for root, dirs, files in os.walk(source):
        here = os.path.relpath(root, source)
        for name in dirs + files:
            _clone_entry(os.path.join(root, name), os.path.join(target, here, name), known, seen, links)
    for gone in sorted(known.keys() - seen.keys(), reverse=True):
        if os.path.isdir(gone) and not os.path.islink(gone):
            os.rmdir(gone)
        else:
            os.unlink(gone)
    return seen


def _clone_entry(
    path: str,
    to: str,
    known: Marks,
    seen: Marks,
    links: dict[int, str],
) -> None:
    st = os.lstat(path)
    seen[to] = mark = (st.st_ino, st.st_ctime_ns, st.st_size)
    if known.get(to) == mark:
        return
    kind = st.st_mode & 0o170000
    if kind == 0o040000:
        os.makedirs(to, exist_ok=True)
    else:
        if to in known:
            os.unlink(to)
        if st.st_nlink > 1 and st.st_ino in links:
            os.link(links[st.st_ino], to)
            return
        links[st.st_ino] = to
        if kind == 0o120000:
            os.symlink(os.readlink(path), to)
        elif kind == 0o100000:
            clone_file(Path(path), Path(to))
        else:
            os.mknod(to, st.st_mode, st.st_rdev)
    os.chown(to, st.st_uid, st.st_gid, follow_symlinks=False)
    for name in os.listxattr(path, follow_symlinks=False):
        os.setxattr(to, name, os.getxattr(path, name, follow_symlinks=False), follow_symlinks=False)
    if kind != 0o120000:
        os.chmod(to, st.st_mode & 0o7777)
    os.utime(to, ns=(st.st_atime_ns, st.st_mtime_ns), follow_symlinks=False)


def _write(merged: Path, first: int, count: int) -> None:
    for n in range(first, first + count):
        path = merged / "home/app/files" / f"d{n // 200}" / f"f{n}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(2000))


def write_back(path: Path) -> None:
    """Write everything that the file system of this path still holds in memory (syncfs(2))."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if _libc.syncfs(descriptor):
            raise OSError(ctypes.get_errno(), "syncfs", str(path))
    finally:
        os.close(descriptor)


def _pause(upper: Snapped, target: Path, known: Marks | None) -> float:
    """The part during which the sandbox is frozen, in ms."""
    image = getattr(upper, "file", None)
    start = time.perf_counter()
    if image is not None:
        write_back(upper.base / "fs")
        clone_file(image, target)
    elif "btrfs" in str(upper.base):
        fs = os.path.realpath(upper.base / "fs")
        subprocess.run(["btrfs", "-q", "subvolume", "snapshot", "-r", fs, str(target)], check=True)
    else:
        target.mkdir(exist_ok=True)
        clone_tree(upper.upper, target, known or {})
    return round((time.perf_counter() - start) * 1000, 1)


def measure_snapshots(uppers: Mapping[str, Callable[[], Snapped]], work: Path) -> dict[str, dict[str, float]]:
    """Pause per candidate and number of changed files: at once, and as second pass after 200 more changes."""
    result: dict[str, dict[str, float]] = {}
    for name, make in uppers.items():
        result[name] = {}
        for count in (10, 1_000, 50_000):
            for two_pass in (False, True):
                upper = make()
                upper.prepare()
                target = _target(upper, work)
                _write(upper.merged, 0, count)
                known: Marks = {}
                if two_pass:
                    write_back(upper.upper)
                    if name == "xfs-dir":
                        target.mkdir()
                        known = clone_tree(upper.upper, target, {})
                    _write(upper.merged, count, 200)
                label = f"{count:,} changed" + (", two passes" if two_pass else "")
                result[name][label] = _pause(upper, target, known)
                _remove(target)
                upper.release()
    return result


def _target(upper: Snapped, work: Path) -> Path:
    kind = "btrfs" if "btrfs" in upper.base.name else "xfs"
    return work / f"pool-{kind}" / f"snapshot-{upper.base.name}"


def _remove(target: Path) -> None:
    if target.is_file():
        target.unlink()
    elif "pool-btrfs" in str(target):
        subprocess.run(["btrfs", "-q", "subvolume", "delete", str(target)], check=True)
    else:
        shutil.rmtree(target)
