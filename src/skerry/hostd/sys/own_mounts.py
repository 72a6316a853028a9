"""A mount namespace that ends with the process."""

import ctypes
import os
from pathlib import Path

from skerry.hostd.sys.mounts import MountFlag, mount

_libc = ctypes.CDLL(None, use_errno=True)

_CLONE_NEWNS = 0x00020000


def enter() -> None:
    """Move the calling thread, and threads that it makes from now on, into a namespace of their own.

    It receives mounts and unmounts of the host and sends none; whatever is mounted in it goes when the last
    process in it ends.

    Raises:
        OSError: As unshare(2) says.
    """
    if _libc.unshare(_CLONE_NEWNS) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), "unshare(CLONE_NEWNS)")
    mount("none", Path("/"), None, MountFlag.RECURSIVE | MountFlag.SLAVE)
