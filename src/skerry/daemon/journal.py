"""The log of `up` and those of its daemons: into files, and onto the terminal of a foreground run."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from skerry.daemon.log_files import RotatingFile

Show = Callable[[str, bytes], None]
"""Shows one JSON line of a process."""


def readable(name: str, line: bytes, *, max_characters: int = 2000) -> str:
    """A JSON line of a log as a person reads it, and other lines as they are; may become several lines."""
    try:
        fields = json.loads(line)
        event, level = str(fields.pop("event")), str(fields.pop("level", "info"))
        when, trace = str(fields.pop("timestamp", ""))[11:19], str(fields.pop("exception", ""))
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        return f"{name:<5} {line.decode(errors='replace').rstrip()}"[:max_characters]
    told = {key: value for key, value in fields.items() if key not in ("process", "logger") and value != ""}
    text = " ".join(
        [when, f"{name:<5}", f"{level:<7}", event, *(f"{key}={value}" for key, value in told.items())]
    )
    return (f"{text}\n{trace}" if trace else text)[:max_characters]


class Journal:
    """Owns the log files in the logs directory."""

    def __init__(self, logs: Path, show: Show | None) -> None:
        self._files = {name: RotatingFile(logs / f"{name}.log") for name in ("up", "hostd", "egressd", "api")}
        self._show = show

    def relay(self, name: str, line: bytes) -> None:
        """Store and show a line that a daemon printed."""
        self._files[name].write(line)
        if self._show is not None:
            self._show(name, line)

    def event(self, level: str, event: str, **fields: Any) -> None:
        """Store and show something that `up` itself saw or did."""
        now = datetime.now(UTC).isoformat()
        line = {"event": event, "level": level, "timestamp": now, "process": "up", **fields}
        self.relay("up", json.dumps(line).encode() + b"\n")

    def close(self) -> None:
        """Close the files. Idempotent."""
        for file in self._files.values():
            file.close()
