"""Looks for bytes where a secret must not be: memory of processes, files, what descriptors lead to."""

import array
import base64
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

_PIECE_BYTES = 16 << 20
_PAGE_BYTES = os.sysconf("SC_PAGESIZE")


def forms(value: bytes) -> list[bytes]:
    """A value as it may be written."""
    found = [value, value[::-1], value.hex().encode(), value.decode().encode("utf-16-le")]
    found += [base64.b64encode(bytes(shift) + value)[4:-4] for shift in range(3)]
    found += [base64.b64encode(b"user:" + value)[8:-4], "".join(f"%{byte:02X}" for byte in value).encode()]
    return found


@dataclass(frozen=True, slots=True)
class Found:
    """Where one was.

    Attributes:
        place: Of a process's memory, a file.
        form: Its number in `forms`.
    """

    place: str
    form: int


def in_memory(pid: int, needles: list[bytes]) -> list[Found]:
    """Search what a process can write to, and what its descriptors of memory files hold (proc_pid_mem(5))."""
    found: list[Found] = []
    try:
        with Path(f"/proc/{pid}/mem").open("rb", 0) as memory:
            for start, end, name in _regions(pid):
                found += _search(_parts(memory.fileno(), start, end), needles, f"memory of {pid} {name}")
        for one in Path(f"/proc/{pid}/fd").iterdir():
            if "memfd:" in os.readlink(one):
                found += in_file(one, needles, name=f"descriptor of {pid}: {os.readlink(one)}")
    except (FileNotFoundError, ProcessLookupError):
        return found  # it has ended
    for kind in ("environ", "cmdline"):
        data = Path(f"/proc/{pid}/{kind}").read_bytes()
        found += [Found(f"{kind} of {pid}", at) for at, form in enumerate(needles) if form in data]
    return found


def in_file(path: Path, needles: list[bytes], *, name: str | None = None) -> list[Found]:
    """Search the parts of a file that hold data (lseek(2), SEEK_DATA)."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return []
        return _search(_data_of(descriptor), needles, name or str(path))
    finally:
        os.close(descriptor)


def in_tree(root: Path, needles: list[bytes]) -> list[Found]:
    """Search all regular files below a directory."""
    found: list[Found] = []
    for directory, _, names in os.walk(root):
        for name in names:
            path = Path(directory, name)
            if path.is_file() and not path.is_symlink():
                found += in_file(path, needles)
    return found


def _regions(pid: int) -> Iterator[tuple[int, int, str]]:
    """What is really there of the writable mappings (proc_pid_pagemap(5)): to read other pages would create
    them, at the cost of a sandbox that may have only so much. Memory files are read as files."""
    with Path(f"/proc/{pid}/pagemap").open("rb", 0) as pagemap:
        for start, end, name in _mappings(pid):
            size = (end - start) // _PAGE_BYTES
            entries = array.array("Q", os.pread(pagemap.fileno(), 8 * size, start // _PAGE_BYTES * 8))
            begin = None
            for at, entry in enumerate(entries):
                if entry >> 62 and begin is None:
                    begin = at
                elif not entry >> 62 and begin is not None:
                    yield start + begin * _PAGE_BYTES, start + at * _PAGE_BYTES, name
                    begin = None
            if begin is not None:
                yield start + begin * _PAGE_BYTES, end, name


def _mappings(pid: int) -> Iterator[tuple[int, int, str]]:
    """Writable mappings of which anything is there."""
    span, name = None, ""
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        words = line.split(maxsplit=5)
        if "-" in words[0] and not words[0].endswith(":"):
            name = words[5] if len(words) > 5 else ""
            wanted = words[1].startswith("rw") and not name.startswith(("[vvar", "/memfd:"))
            span = tuple(int(part, 16) for part in words[0].split("-")) if wanted else None
        elif words[0] == "Rss:" and span is not None and words[1] != "0":
            yield span[0], span[1], name


def _parts(descriptor: int, start: int, end: int) -> Iterator[bytes]:
    while start < end:
        try:
            part = os.pread(descriptor, min(_PIECE_BYTES, end - start), start)
        except OSError:
            part = b""  # not mapped after all
        if not part:
            return
        yield part
        start += len(part)


def _data_of(descriptor: int) -> Iterator[bytes]:
    end, at = os.fstat(descriptor).st_size, 0
    while at < end:
        try:
            start = os.lseek(descriptor, at, os.SEEK_DATA)
        except OSError:
            return
        at = os.lseek(descriptor, start, os.SEEK_HOLE)
        yield from _parts(descriptor, start, at)


def _search(parts: Iterable[bytes], needles: list[bytes], place: str) -> list[Found]:
    """Each needle at most once."""
    keep = max(map(len, needles)) - 1
    tail, seen = b"", set[int]()
    for part in parts:
        data = tail + part
        seen.update(at for at, form in enumerate(needles) if at not in seen and form in data)
        tail = data[-keep:]
    return [Found(place, at) for at in sorted(seen)]
