"""Open descriptors of this process."""

import os
from collections.abc import Collection

_STANDARD = frozenset({0, 1, 2})


def close_others(kept: Collection[int]) -> None:
    """Close every descriptor but the standard three and these."""
    for fd in [int(name) for name in os.listdir("/proc/self/fd")]:
        if fd not in kept and fd not in _STANDARD:
            try:
                os.close(fd)
            except OSError:
                continue  # the one that listed the directory
