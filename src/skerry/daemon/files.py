"""Small files written whole or not at all."""

import json
import os
from pathlib import Path
from typing import Any


def write_file(path: Path, data: bytes, *, mode: int, uid: int = 0, gid: int = 0) -> None:
    """Replace a file in one step; nobody ever sees half of it or another owner.

    Args:
        path: In a directory that only root can write.
        mode: Permission bits, set whatever the umask is.
    """
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fchown(file.fileno(), uid, gid)
            os.fchmod(file.fileno(), mode)
        new.rename(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise


def write_json(path: Path, document: Any, *, mode: int = 0o644) -> None:
    """Replace a JSON file that belongs to root."""
    write_file(path, json.dumps(document).encode() + b"\n", mode=mode)


def tail(path: Path, *, lines: int, max_bytes: int = 65_536) -> list[str]:
    """The last lines of a text file; empty when it cannot be read."""
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - max_bytes))
            return file.read().decode(errors="replace").splitlines()[-lines:]
    except OSError:
        return []
