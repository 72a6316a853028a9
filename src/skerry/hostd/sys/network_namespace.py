"""Network namespaces that a file holds, as ip-netns(8) keeps them."""

import ctypes
import errno
import fcntl
import os
import socket
import struct
import threading
from pathlib import Path

from skerry.hostd.sys.mounts import MountFlag, mount, unmount

_libc = ctypes.CDLL(None, use_errno=True)

_CLONE_NEWNET = 0x40000000
_SIOCSIFFLAGS = 0x8914  # netdevice(7)
_IFF_UP = 1
_IFREQ_FLAGS = struct.Struct("16sH22x")


def create(pin: Path) -> None:
    """Make a namespace that has only ``lo``, up, and nothing else, and let a file hold it. Takes under 1 ms.

    A thread of its own makes it, because a network namespace belongs to a thread (unshare(2)) and this
    process must stay in its own.

    Raises:
        OSError: The kernel refused, or the file exists; nothing is left.
    """
    failures: list[OSError] = []
    pin.touch(mode=0o600, exist_ok=False)

    def work() -> None:
        try:
            _unshare_and_pin(pin)
        except OSError as error:
            failures.append(error)

    thread = threading.Thread(target=work, name="netns")
    thread.start()
    thread.join()
    if failures:
        pin.unlink(missing_ok=True)
        raise failures[0]


def remove(pin: Path) -> None:
    """Let a namespace go; it ends with its last process. Idempotent.

    Raises:
        OSError: It could not be unmounted.
    """
    try:
        unmount(pin, lazily=True)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOENT):
            raise
    pin.unlink(missing_ok=True)


def _unshare_and_pin(pin: Path) -> None:
    if _libc.unshare(_CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), "unshare(CLONE_NEWNET)")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, _SIOCSIFFLAGS, _IFREQ_FLAGS.pack(b"lo", _IFF_UP))
    mount("/proc/thread-self/ns/net", pin, None, MountFlag.BIND)
