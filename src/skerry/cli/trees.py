"""Files and directories that `skerry cp` reads and writes: what is here, and what is in a sandbox.

A tree is named by a root; everything below it by a tuple of names. Names from a sandbox are hostile: each is
one component of a path or is refused, and here no symbolic link is ever followed below the root.
"""

import os
import secrets
import stat
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, Protocol

from skerry.errors import Conflict, InvalidRequest, NotFound

Kind = Literal["file", "dir", "symlink", "other"]
Names = tuple[str, ...]

_CHUNK_BYTES = 1 << 18
_MAX_NAME_BYTES = 255


@dataclass(frozen=True, slots=True)
class Found:
    """What a path leads to; ``mode`` has permission bits only, ``size`` means something for files."""

    kind: Kind
    size: int = 0
    mode: int = 0o644


class Tree(Protocol):
    """One side of a copy. Errors are `skerry.errors.SkerryError` or OSError."""

    async def look(self, names: Names) -> Found | None:
        """What is there; None when nothing. The root itself may be a link, and is followed."""
        ...

    async def entries(self, names: Names) -> list[tuple[str, Kind]]:
        """The names in a directory."""
        ...

    def read(self, names: Names, found: Found) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """A file's contents, while the context lasts."""
        ...

    async def make_directory(self, names: Names) -> None:
        """Make a directory, unless it is there."""
        ...

    async def write(self, names: Names, chunks: AsyncIterator[bytes], mode: int) -> None:
        """Make or replace a file; on error what was there before stays."""
        ...


def checked_name(name: str) -> str:
    """A name as one component of a path.

    Raises:
        InvalidRequest: It could lead anywhere else.
    """
    encoded = name.encode(errors="surrogateescape")
    if name in ("", ".", "..") or b"/" in encoded or b"\0" in encoded or len(encoded) > _MAX_NAME_BYTES:
        raise InvalidRequest(f"{name[:100]!r} is no usable file name: not copied")
    return name


class LocalTree:
    """What is here, at and below a path that the user typed."""

    def __init__(self, root: Path) -> None:
        self._root = root

    async def look(self, names: Names) -> Found | None:
        try:
            if not names:
                return _found(self._root.stat())
            with self._directory(names[:-1]) as parent:
                return _found(os.stat(names[-1], dir_fd=parent.fd, follow_symlinks=False))
        except FileNotFoundError:
            return None

    async def entries(self, names: Names) -> list[tuple[str, Kind]]:
        with self._directory(names) as directory, os.scandir(directory.fd) as listing:
            found = [(entry.name, _found(entry.stat(follow_symlinks=False)).kind) for entry in listing]
        return sorted(found)

    @asynccontextmanager
    async def read(self, names: Names, found: Found) -> AsyncIterator[AsyncIterator[bytes]]:
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
        if names:
            with self._directory(names[:-1]) as parent:
                fd = os.open(names[-1], flags | os.O_NOFOLLOW, dir_fd=parent.fd)
        else:
            fd = os.open(self._root, flags)
        with os.fdopen(fd, "rb") as file:
            yield _chunks_of(file)

    async def make_directory(self, names: Names) -> None:
        if not names:
            self._root.mkdir(exist_ok=True)
            return
        with self._directory(names[:-1]) as parent:
            with suppress(FileExistsError):
                os.mkdir(names[-1], dir_fd=parent.fd)
            # Fails unless it is a real directory: a link that is there already is not followed.
            os.close(os.open(names[-1], _DIRECTORY | os.O_NOFOLLOW, dir_fd=parent.fd))

    async def write(self, names: Names, chunks: AsyncIterator[bytes], mode: int) -> None:
        # The new file appears under its name complete, and replaces a link instead of writing through it.
        if names:
            directory, name = self._directory(names[:-1]), names[-1]
        else:
            directory, name = _OpenDirectory(os.open(self._root.parent, _DIRECTORY)), self._root.name
        new = f".skerry-{secrets.token_hex(8)}"
        with directory as parent:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            fd = os.open(new, flags, mode & 0o777, dir_fd=parent.fd)
            try:
                with os.fdopen(fd, "wb") as file:
                    async for chunk in chunks:
                        file.write(chunk)
                os.rename(new, name, src_dir_fd=parent.fd, dst_dir_fd=parent.fd)
            except BaseException:
                os.unlink(new, dir_fd=parent.fd)
                raise

    def _directory(self, names: Names) -> "_OpenDirectory":
        """A directory below the root, walked to component by component without following a link."""
        fd = os.open(self._root, _DIRECTORY)
        for name in names:
            try:
                inner = os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=fd)
            finally:
                os.close(fd)
            fd = inner
        return _OpenDirectory(fd)


async def _chunks_of(file: BinaryIO) -> AsyncIterator[bytes]:
    while chunk := file.read(_CHUNK_BYTES):
        yield chunk


_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class _OpenDirectory:
    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __enter__(self) -> "_OpenDirectory":
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)


def _found(status: os.stat_result) -> Found:
    kinds: dict[int, Kind] = {stat.S_IFREG: "file", stat.S_IFDIR: "dir", stat.S_IFLNK: "symlink"}
    kind = kinds.get(stat.S_IFMT(status.st_mode), "other")
    return Found(kind, status.st_size, stat.S_IMODE(status.st_mode) & 0o777)


async def copy_tree(source: Tree, target: Tree, report: "Report", *, max_depth: int = 100) -> None:
    """Copy a file, or a directory with everything below it.

    Links and special files below the root are left out and reported. What fails is reported, and the rest is
    copied.

    Raises:
        NotFound, Conflict: The source is not there, or neither file nor directory.
    """
    found = await source.look(())
    if found is None:
        raise NotFound("no such file or directory")
    if found.kind not in ("file", "dir"):
        raise Conflict("neither a file nor a directory")
    if found.kind == "file":
        async with source.read((), found) as chunks:
            await target.write((), chunks, found.mode)
        report.copied((), found.size)
        return
    await target.make_directory(())
    pending: list[Names] = [()]
    while pending:
        names = pending.pop()
        with report.problems_of(names):
            for name, kind in await source.entries(names):
                inner = (*names, name)
                with report.problems_of(inner):
                    checked_name(name)
                    if kind == "dir" and len(inner) > max_depth:
                        raise InvalidRequest(f"deeper than {max_depth} directories: not copied")
                    if kind == "dir":
                        await target.make_directory(inner)
                        pending.append(inner)
                    else:
                        await _copy_entry(source, target, inner, kind, report)


async def _copy_entry(source: Tree, target: Tree, names: Names, kind: Kind, report: "Report") -> None:
    found = await source.look(names) if kind == "file" else None
    if found is None or found.kind != "file":
        report.skipped(names, "a symbolic link" if kind == "symlink" else "not a regular file")
        return
    async with source.read(names, found) as chunks:
        await target.write(names, chunks, found.mode)
    report.copied(names, found.size)


class Report:
    """What a copy did. Subclasses show it."""

    def __init__(self, label: str) -> None:
        self._label = label
        self.files = 0
        self.bytes = 0
        self.left_out: list[str] = []
        self.problems: list[str] = []

    def copied(self, names: Names, size_bytes: int) -> None:
        """A file is there."""
        self.files += 1
        self.bytes += size_bytes

    def skipped(self, names: Names, reason: str) -> None:
        """Something was left out."""
        self.left_out.append(f"{self._path(names)}: {reason}")

    def failed(self, problem: str) -> None:
        """Something could not be copied."""
        self.problems.append(problem)

    def add(self, other: "Report") -> None:
        """Count what another copy did as well."""
        self.files += other.files
        self.bytes += other.bytes
        self.left_out += other.left_out
        self.problems += other.problems

    def problems_of(self, names: Names) -> "_Problems":
        """A context that turns an error into a problem of one path."""
        return _Problems(self, self._path(names))

    def _path(self, names: Names) -> str:
        return "/".join((self._label.rstrip("/"), *names))


class _Problems:
    def __init__(self, report: Report, path: str) -> None:
        self._report = report
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, problem: BaseException | None, _trace: object) -> bool:
        from skerry.cli.output import Unreachable
        from skerry.errors import SkerryError

        if isinstance(problem, Unreachable) or not isinstance(problem, SkerryError | OSError):
            return False
        text = problem.message if isinstance(problem, SkerryError) else problem.strerror or str(problem)
        self._report.failed(f"{self._path}: {text}")
        return True
