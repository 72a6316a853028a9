"""Recognise a process again although its number may have been reused, and end it."""

import json
import os
import select
import signal
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Identity:
    """A process and nobody else.

    Attributes:
        start_ticks: When it started, in clock ticks since boot (proc_pid_stat(5), field 22): by this a reused
            number differs.
    """

    pid: int
    start_ticks: int


@dataclass(frozen=True, slots=True)
class Recorded:
    """One process of an instance, as `skerry up` wrote it down."""

    name: str
    process: Identity
    version: str


def recorded(file: Path) -> list[Recorded]:
    """Those in a ``processes.json`` that still run."""
    try:
        rows = json.loads(file.read_bytes())
        found = [Recorded(r["name"], Identity(r["pid"], r["start_ticks"]), r["version"]) for r in rows]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return [row for row in found if is_alive(row.process)]


def identify(pid: int) -> Identity | None:
    """The process of that number now; None when there is none (a zombie counts as none)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat[stat.rindex(b")") + 2 :].split()
    return None if fields[0] in (b"Z", b"X") else Identity(pid, int(fields[19]))


def is_alive(process: Identity) -> bool:
    """Whether that very process still runs."""
    return identify(process.pid) == process


def send(process: Identity, number: signal.Signals) -> bool:
    """Signal that very process; False when it is gone."""
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return False
    try:
        # The handle is to whatever has the number now; only this check makes it one to the right process.
        if not is_alive(process):
            return False
        signal.pidfd_send_signal(handle, number)
        return True
    except ProcessLookupError:
        return False
    finally:
        os.close(handle)


def wait_gone(process: Identity, *, timeout_s: float) -> bool:
    """Wait for the end of a process that need not be a child; False when it still runs after the time."""
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return True
    try:
        if not is_alive(process):
            return True
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        return bool(poll.poll(timeout_s * 1000))
    finally:
        os.close(handle)
