"""The audit trail of each sandbox: JSON lines in files of bounded size, numbered without gaps.

``<sandbox>.jsonl`` is written; when it holds half of what one sandbox may have, it becomes
``<sandbox>.1.jsonl``, in place of an older one. Nothing is synchronised to the disk: lines survive the end of
any process, not of the machine.
"""

import os
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Container, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import structlog

from skerry.egress.broker.signals import Signal
from skerry.spec.ids import SandboxId, is_sandbox_id

MAX_LINE_BYTES = 16_384
MAX_OPEN = 64
"""Trails of sandboxes that are gone which are kept open for reading."""

_SUFFIX = ".jsonl"
_OLD_SUFFIX = ".1.jsonl"
_BLOCK_BYTES = 65_536

_log = structlog.get_logger("skerry.egress.audit")


class BadLine(ValueError):
    """A line that breaks the trail: not the next number, not a JSON object in one line, or too long."""


class _Numbered(msgspec.Struct):
    seq: int


_numbers = msgspec.json.Decoder(_Numbered)


@dataclass(slots=True)
class _Segment:
    """One file.

    Attributes:
        first: Number of its first line.
        count: Lines in it.
        marks: Offset and number of the first line that begins in each block.
    """

    path: Path
    first: int
    count: int = 0
    size: int = 0
    marks: list[tuple[int, int]] = field(default_factory=list)

    @property
    def end(self) -> int:
        """The number that the next line would have."""
        return self.first + self.count

    def note(self, offset: int, length: int) -> None:
        """A line was appended."""
        if not self.marks or offset // _BLOCK_BYTES > self.marks[-1][0] // _BLOCK_BYTES:
            self.marks.append((offset, self.end))
        self.count += 1
        self.size = offset + length

    def lines_from(self, seq: int) -> Iterator[bytes]:
        """Lines from this number on, without their ends."""
        at = max(bisect_right(self.marks, seq, key=lambda mark: mark[1]) - 1, 0)
        offset, number = self.marks[at] if self.marks else (0, self.first)
        with self.path.open("rb") as file:
            file.seek(offset)
            for line in file:
                if number >= self.end:
                    return
                if number >= seq:
                    yield line[:-1]
                number += 1


class Trail:
    """One sandbox's lines.

    Attributes:
        grown: Something was appended, or the trail ended.
    """

    def __init__(self, directory: Path, sandbox_id: SandboxId, max_bytes: int) -> None:
        self._path = directory / f"{sandbox_id}{_SUFFIX}"
        self._old_path = directory / f"{sandbox_id}{_OLD_SUFFIX}"
        self._max_segment_bytes = max_bytes // 2
        self.grown = Signal()
        self._old = _scan(self._old_path)
        found = _scan(self._path)
        if found is None:
            found = _Segment(self._path, self._old.end if self._old else 1)
        if self._old is not None and self._old.end != found.first:
            _log.warning("audit_trail_broken", file=self._old_path.name)
            self._old_path.unlink()
            self._old = None
        self._current = found
        self._fd = -1

    @property
    def next_seq(self) -> int:
        """The number that the next line must have."""
        return self._current.end

    def append(self, seq: int, text: bytes) -> None:
        """Append one line. When this returns, it is in the file.

        Raises:
            BadLine: It does not fit; nothing was written.
            OSError: It could not be written, as on a full disk; nothing of it is there.
        """
        self._check(seq, text)
        line = text + b"\n"
        if self._current.count and self._current.size + len(line) > self._max_segment_bytes:
            self._rotate()
        fd = self._open()
        written = 0
        try:
            written = os.write(fd, line)
        finally:
            if written != len(line):
                os.ftruncate(fd, self._current.size)
        if written != len(line):
            raise OSError("the disk is full")
        self._current.note(self._current.size, len(line))
        self.grown.notify()

    def read(self, *, after: int, limit: int, max_bytes: int) -> tuple[list[bytes], int]:
        """Lines with a higher number than this, oldest first.

        Args:
            limit, max_bytes: The most; the first is returned however long it is.
        Returns:
            The lines, and the number of the last (``after`` when there is none).
        """
        oldest = self._old.first if self._old else self._current.first
        seq = max(after + 1, oldest)
        lines: list[bytes] = []
        size = 0
        for segment in (self._old, self._current):
            if segment is None or segment.count == 0 or seq >= segment.end:
                continue
            for line in segment.lines_from(seq):
                size += len(line)
                if len(lines) >= limit or (lines and size > max_bytes):
                    return lines, seq - 1
                lines.append(line)
                seq += 1
        return lines, seq - 1 if lines else after

    def close(self) -> None:
        """Close the file; it is opened again when need be."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def delete(self) -> None:
        """Delete the files. The object must not be used any more."""
        self.close()
        for path in (self._path, self._old_path):
            path.unlink(missing_ok=True)

    def _check(self, seq: int, text: bytes) -> None:
        if seq != self.next_seq:
            raise BadLine(f"line {seq} where {self.next_seq} was due")
        if len(text) > MAX_LINE_BYTES or b"\n" in text:
            raise BadLine("a line that is too long, or two")
        try:
            numbered = _numbers.decode(text)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            raise BadLine("not a JSON object with a number") from None
        if numbered.seq != seq:
            raise BadLine(f"line {seq} says that it is {numbered.seq}")

    def _open(self) -> int:
        if self._fd < 0:
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            self._fd = os.open(self._path, flags, 0o600)
        return self._fd

    def _rotate(self) -> None:
        os.replace(self._path, self._old_path)
        self.close()
        self._old = self._current
        self._old.path = self._old_path
        self._current = _Segment(self._path, self._old.end)


def _scan(path: Path) -> _Segment | None:
    """Look a file over, cutting off a last line that was not finished; None when there is nothing good."""
    try:
        with path.open("r+b") as file:
            segment: _Segment | None = None
            offset = 0
            for line in file:
                if not line.endswith(b"\n"):
                    file.truncate(offset)
                    break
                if segment is None:
                    segment = _Segment(path, _numbers.decode(line).seq)
                segment.note(offset, len(line))
                offset += len(line)
    except FileNotFoundError:
        return None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        _log.warning("audit_file_damaged", file=path.name)
        path.unlink()
        return None
    return segment


class Trails:
    """All trails below a directory.

    Args:
        max_bytes: Of one sandbox.
    """

    def __init__(self, directory: Path, *, max_bytes: int) -> None:
        self._directory = directory
        self._max_bytes = max_bytes
        self._live: dict[SandboxId, Trail] = {}
        self._gone: OrderedDict[SandboxId, Trail] = OrderedDict()

    def live(self, sandbox_id: SandboxId) -> Trail:
        """The trail of a sandbox that is served.

        Raises:
            OSError: It cannot be read.
        """
        if sandbox_id not in self._live:
            self._live[sandbox_id] = self._new(sandbox_id)
            self._gone.pop(sandbox_id, None)
        return self._live[sandbox_id]

    def end(self, sandbox_id: SandboxId) -> None:
        """The sandbox is served no more; its trail stays. Idempotent."""
        trail = self._live.pop(sandbox_id, None)
        if trail is not None:
            trail.close()
            trail.grown.notify()

    def find(self, sandbox_id: SandboxId) -> tuple[Trail, bool]:
        """A sandbox's trail, and whether it goes on.

        Raises:
            OSError: It cannot be read.
        """
        if sandbox_id in self._live:
            return self._live[sandbox_id], True
        if sandbox_id not in self._gone:
            self._gone[sandbox_id] = self._new(sandbox_id)
            while len(self._gone) > MAX_OPEN:
                self._gone.popitem(last=False)
        self._gone.move_to_end(sandbox_id)
        return self._gone[sandbox_id], False

    def forget(self, keep: Container[SandboxId]) -> None:
        """Delete the trails of all sandboxes that are not served, but these."""
        for name in os.listdir(self._directory):
            text = name.removesuffix(_SUFFIX).removesuffix(".1")
            if not is_sandbox_id(text):
                continue
            sandbox_id = SandboxId(text)
            if sandbox_id not in keep and sandbox_id not in self._live:
                self._gone.pop(sandbox_id, None)
                with suppress(FileNotFoundError):
                    (self._directory / name).unlink()

    def close(self) -> None:
        """Close all files."""
        for trail in self._live.values():
            trail.close()

    def _new(self, sandbox_id: SandboxId) -> Trail:
        return Trail(self._directory, sandbox_id, self._max_bytes)
