"""A mount namespace for the test process, so that what tests mount goes with it, even when it is killed."""

import ctypes
import functools
from pathlib import Path

from skerry.hostd.sys.mounts import MountFlag, mount

_CLONE_NEWNS = 0x00020000
_libc = ctypes.CDLL(None, use_errno=True)


@functools.cache
def enter() -> None:
    """Move the calling thread, and threads that it makes from now on, into a namespace of their own. Once per
    process.
    """
    if _libc.unshare(_CLONE_NEWNS) != 0:
        raise OSError(ctypes.get_errno(), "unshare(CLONE_NEWNS)")
    mount("none", Path("/"), None, MountFlag.RECURSIVE | MountFlag.SLAVE)
