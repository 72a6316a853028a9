"""The guest agent's binary as guests get it: a copy in a directory of its own, which is bound into each of
them, read-only.
"""

import hashlib
import os
from pathlib import Path

from skerry.errors import HostUnusable

NAME = "skerry-agent"
_MAX_BYTES = 64 << 20


class GuestAgent:
    """Keeps one copy per version: sandboxes that run keep theirs when Skerry is upgraded.

    Args:
        source: The binary that was built or installed.
        directory: Where copies are kept; root only.
    """

    def __init__(self, source: Path, directory: Path) -> None:
        self.source = source
        self._directory = directory
        self._seen: tuple[int, int, int] | None = None
        self._installed: Path | None = None

    def installed(self) -> Path:
        """The directory that holds the present version and nothing else; makes it when need be.

        Raises:
            HostUnusable: There is no binary.
        """
        try:
            found = self.source.stat()
            seen = (found.st_ino, found.st_mtime_ns, found.st_size)
            if self._installed is None or seen != self._seen:
                self._installed, self._seen = self._install(), seen
        except OSError as error:
            raise HostUnusable(
                "the guest agent's binary was not found: run `make setup`, or set agent_path",
                detail=str(error),
            ) from error
        return self._installed

    def _install(self) -> Path:
        with self.source.open("rb") as file:
            content = file.read(_MAX_BYTES)
        target = self._directory / hashlib.sha256(content).hexdigest()[:16]
        target.mkdir(exist_ok=True)
        target.chmod(0o755)  # whatever the umask is
        unfinished = self._directory / f"{target.name}.new"
        unfinished.write_bytes(content)
        unfinished.chmod(0o555)
        os.replace(unfinished, target / NAME)
        return target
