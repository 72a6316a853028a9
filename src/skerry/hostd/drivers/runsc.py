"""gVisor's command, runsc: how it is called, and which version it is.

What it prints is bounded and only used in error details and as a version.
"""

import mmap
import os
import re
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from skerry.errors import HostUnusable
from skerry.hostd.sys.processes import run_program

VERSION_S = 5.0

IDLE_FIXED = date(2026, 6, 1)
"""Versions from before about then use 4 % of a core for every idle sandbox."""

_RELEASE = re.compile(r"release-(\d{4})(\d\d)(\d\d)\.\d+")
_MODULE = re.compile(rb"\tgvisor\.dev/gvisor\t(v0\.0\.0-(\d{4})(\d\d)(\d\d)\d{6}-[0-9a-f]{12})")


@dataclass(frozen=True, slots=True)
class RunscVersion:
    """Which runsc.

    Attributes:
        text: As it, or its build information, says; ``unknown`` when neither does.
        released: Day of its source; None when unknown.
    """

    text: str
    released: date | None

    @property
    def wastes_cpu_when_idle(self) -> bool:
        """Whether it is known to be from before `IDLE_FIXED`."""
        return self.released is not None and self.released < IDLE_FIXED


def parse_version(output: str) -> RunscVersion | None:
    """Read what ``runsc --version`` prints; None when no release is named."""
    match = _RELEASE.search(output)
    return RunscVersion(match[0], date(int(match[1]), int(match[2]), int(match[3]))) if match else None


def parse_build_information(binary: bytes | mmap.mmap) -> RunscVersion | None:
    """Find the module version that Go left in a binary built from the module, where ``--version`` says
    nothing.
    """
    match = _MODULE.search(binary)
    if match is None:
        return None
    return RunscVersion(match[1].decode(), date(int(match[2]), int(match[3]), int(match[4])))


class Runsc:
    """One runsc binary with the flags of this instance.

    Args:
        binary: Absolute path.
        state_dir: Its own state (``--root``); root only.
    """

    def __init__(self, binary: Path, state_dir: Path) -> None:
        self.binary = binary
        self._state_dir = state_dir
        self._version: RunscVersion | None = None
        self._version_of = (0, 0)

    @property
    def flags(self) -> list[str]:
        """Flags before the subcommand; the same for every one."""
        return [
            f"--root={self._state_dir}",
            "--platform=systrap",
            "--network=sandbox",  # its own network stack, in a namespace that has only lo
            "--overlay2=none",  # the root is writable already, with a limit; the host must be able to read it
            "--host-uds=open",  # the agent dials a unix socket of the host
            "--allow-suid",  # sudo inside
        ]

    async def version(self) -> RunscVersion:
        """Find out which version it is.

        Raises:
            HostUnusable: It cannot be run.
        """
        try:
            found = self.binary.stat()
            if self._version is not None and self._version_of == (found.st_mtime_ns, found.st_size):
                return self._version
            printed = await run_program([str(self.binary), "--version"], timeout_s=VERSION_S)
        except OSError as error:
            raise HostUnusable(
                f"runsc cannot be run: {error.strerror}; set runsc_path to a working one"
            ) from error
        if printed.status != 0:
            raise HostUnusable(
                "`runsc --version` fails; set runsc_path to a working one", detail=printed.output
            )
        version = parse_version(printed.output) or self._built_from() or RunscVersion("unknown", None)
        self._version, self._version_of = version, (found.st_mtime_ns, found.st_size)
        return version

    def forget(self, name: str) -> None:
        """Remove what runsc remembers of a container whose processes are gone. Idempotent.

        Quicker than ``runsc delete`` (15 ms of a new Go process), works when half of it is missing, and does
        not depend on the form of its state: every file of a container has its name in its own.
        """
        for entry in os.listdir(self._state_dir):
            if name in entry:
                (self._state_dir / entry).unlink(missing_ok=True)

    def _built_from(self) -> RunscVersion | None:
        with self.binary.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return parse_build_information(content)
