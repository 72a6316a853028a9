"""A directory of built things, each named by the hash of what it was built from."""

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from setup.places import cache_directory

_PARTIAL = ".partial-"


def fingerprint(parts: Iterable[str | Path], *, skip: frozenset[str] = frozenset()) -> str:
    """Hash texts, files and whole directories.

    Args:
        parts: Texts count by themselves, files by content and mode, directories by all files below them.
        skip: Names of files and directories that do not count, at any depth.
    Returns:
        24 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for part in parts:
        for name, content in _facts(part, skip):
            for field in (name, content):
                digest.update(len(field).to_bytes(8, "big"))
                digest.update(field)
    return digest.hexdigest()[:24]


def _facts(part: str | Path, skip: frozenset[str]) -> Iterator[tuple[bytes, bytes]]:
    if isinstance(part, str):
        yield b"", part.encode()
        return
    for path in [part, *sorted(part.rglob("*"))]:
        relative = path.relative_to(part)
        if path.is_file() and not skip.intersection(relative.parts):
            executable = "x" if path.stat().st_mode & 0o100 else "-"
            yield f"{executable} {relative}".encode(), path.read_bytes()


def entry(kind: str, key: str) -> Path:
    """Where the thing is or would be; it is complete if the directory exists."""
    return cache_directory() / kind / key


def ensure(kind: str, key: str, build: Callable[[Path], None]) -> Path:
    """Have the thing built once, whatever is interrupted and however many set-ups run at a time.

    Args:
        kind: What sort of thing: a directory name.
        key: Hash of everything that it is built from.
        build: Fills the empty directory that it is given.
    Returns:
        The directory, complete.
    """
    final = entry(kind, key)
    if final.is_dir():
        return final
    final.parent.mkdir(parents=True, exist_ok=True)
    with _only_one(final.parent / ".lock"):
        for leftover in final.parent.glob(f"{_PARTIAL}*"):
            remove_tree(leftover)
        if not final.is_dir():
            partial = Path(tempfile.mkdtemp(prefix=_PARTIAL, dir=final.parent))
            try:
                build(partial)
                partial.chmod(0o755)
                partial.rename(final)
            finally:
                remove_tree(partial)
    return final


def remove_tree(path: Path) -> None:
    """Remove a directory and everything below it, read-only directories too. No error if it is not there."""
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
        return
    for directory, _, _ in os.walk(path):
        # Go writes its module cache without write permission.
        Path(directory).chmod(0o700)
    shutil.rmtree(path)


@contextmanager
def _only_one(lock_file: Path) -> Iterator[None]:
    """Wait for every other set-up that builds the same kind.

    Source: flock(2); the kernel drops the lock when its holder dies.
    """
    with lock_file.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
