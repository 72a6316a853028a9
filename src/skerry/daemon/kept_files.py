"""Memory files that `up` keeps for egressd, so that the secrets of sandboxes survive its restart and are
never on a disk.

egressd is not root and may have been taken over, so everything is checked; `up` never reads what is in them.
"""

import fcntl
import os
from collections.abc import Callable

from skerry.daemon.lifeline import MAX_KEPT, Forget, Kept
from skerry.spec.ids import is_sandbox_id

MAX_FILE_BYTES = 2 << 20
MAX_BYTES = 1 << 30

_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


class KeptFiles:
    """One for each sandbox.

    Args:
        complain: Told in words what was not kept.
    """

    def __init__(self, complain: Callable[[str], None]) -> None:
        self._complain = complain
        self._files: dict[str, tuple[int, int]] = {}
        """Descriptor and size by name."""

    def take(self, message: Kept, descriptors: list[int]) -> None:
        """Do what egressd asks; owns the descriptors."""
        name = message.name
        problem = None
        if not is_sandbox_id(name):
            problem = "it is not called like a sandbox"
        elif isinstance(message, Forget):
            self._drop(name)
        elif len(descriptors) != 1:
            problem = "no descriptor came along"
        else:
            problem = self._problem(name, descriptors[0])
            if problem is None:
                descriptor = descriptors.pop()
                self._drop(name)
                self._files[name] = (descriptor, os.fstat(descriptor).st_size)
        for descriptor in descriptors:
            os.close(descriptor)
        if problem is not None:
            self._complain(f"egressd asked to keep something, and was refused: {problem}")

    def descriptors(self) -> list[int]:
        """All of them; they stay this object's."""
        return [descriptor for descriptor, _ in self._files.values()]

    def close(self) -> None:
        """Forget everything. Idempotent."""
        for name in list(self._files):
            self._drop(name)

    def _problem(self, name: str, descriptor: int) -> str | None:
        """Why a descriptor is not kept."""
        try:
            seals = fcntl.fcntl(descriptor, fcntl.F_GET_SEALS)
        except OSError:
            return "it is not a memory file"
        if seals & _SEALS != _SEALS:
            return "it is not sealed"
        size = os.fstat(descriptor).st_size
        others = sum(size for other, (_, size) in self._files.items() if other != name)
        if size > MAX_FILE_BYTES or others + size > MAX_BYTES:
            return f"it has {size} bytes, and there are {others} already"
        if name not in self._files and len(self._files) >= MAX_KEPT:
            return f"there are {MAX_KEPT} already"
        return None

    def _drop(self, name: str) -> None:
        kept = self._files.pop(name, None)
        if kept is not None:
            os.close(kept[0])
