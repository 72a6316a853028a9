"""Log files of bounded size, written by `up` from what the daemons print on their standard error."""

import os
from pathlib import Path

MAX_FILE_BYTES = 8 << 20
KEPT_FILES = 3
MAX_LINE_BYTES = 16_384


class RotatingFile:
    """An append-only file; when full it becomes ``name.1`` and older ones move up, `KEPT_FILES` in all.

    A disk that is full loses log lines and nothing else.
    """

    def __init__(self, path: Path, *, max_bytes: int = MAX_FILE_BYTES) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._fd = -1
        self._size = 0
        self._open()

    def write(self, line: bytes) -> None:
        """Append one line, which ends in a newline."""
        if self._size + len(line) > self._max_bytes and self._size:
            self._rotate()
        try:
            self._size += os.write(self._fd, line)
        except OSError:
            return

    def close(self) -> None:
        """Close it. Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        self._fd = os.open(self._path, flags, 0o640)
        self._size = os.fstat(self._fd).st_size

    def _rotate(self) -> None:
        self.close()
        for number in range(KEPT_FILES - 1, 0, -1):
            older = self._path.with_name(f"{self._path.name}.{number}")
            newer = self._path if number == 1 else self._path.with_name(f"{self._path.name}.{number - 1}")
            if newer.exists():
                newer.replace(older)
        self._open()


class LineSplitter:
    """Cuts a byte stream into lines of at most `MAX_LINE_BYTES`; a longer one becomes several."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Take bytes, return every line that is complete now, newline included."""
        *lines, rest = (self._rest + data).split(b"\n")
        while len(rest) > MAX_LINE_BYTES:
            lines.append(rest[:MAX_LINE_BYTES])
            rest = rest[MAX_LINE_BYTES:]
        self._rest = rest
        return [part + b"\n" for line in lines for part in _cut(line)]

    def end(self) -> list[bytes]:
        """The last line, if it had no newline."""
        rest, self._rest = self._rest, b""
        return [rest + b"\n"] if rest else []


def _cut(line: bytes) -> list[bytes]:
    return [line[at : at + MAX_LINE_BYTES] for at in range(0, max(1, len(line)), MAX_LINE_BYTES)]
