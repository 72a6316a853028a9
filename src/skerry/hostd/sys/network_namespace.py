"""Network namespaces that a file holds, as ip-netns(8) keeps them.

A network namespace belongs to a thread (unshare(2), setns(2)), and this process must stay in its own. So
everything that must be done in another one is done by a thread that ends with it.
"""

import ctypes
import errno
import fcntl
import os
import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from skerry.hostd.sys.mounts import MountFlag, mount, unmount

_T = TypeVar("_T")

_libc = ctypes.CDLL(None, use_errno=True)

_CLONE_NEWNET = 0x40000000
_NS_GET_NSTYPE = 0xB703  # ioctl_ns(2)
_SIOCSIFFLAGS = 0x8914  # netdevice(7)
_IFF_UP = 1
_IFREQ_FLAGS = struct.Struct("16sH22x")
_IPV6 = Path("/proc/sys/net/ipv6/conf")


def create(pin: Path, set_up: Callable[[], None] = lambda: None) -> None:
    """Make a namespace that has only ``lo``, up, without IPv6, and let a file hold it. Takes under 1 ms.

    Args:
        set_up: Called in it, before anybody can see it.

    Raises:
        OSError: The kernel refused, or the file exists; nothing is left.
    """
    pin.touch(mode=0o600, exist_ok=False)

    def work() -> None:
        _unshare()
        set_up()
        mount("/proc/thread-self/ns/net", pin, None, MountFlag.BIND)

    try:
        _in_thread(work)
    except BaseException:
        pin.unlink(missing_ok=True)
        raise


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


def open_pinned(pin: Path) -> int | None:
    """A descriptor of the namespace that a file holds; None when it holds none."""
    try:
        descriptor = os.open(pin, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    try:
        if fcntl.ioctl(descriptor, _NS_GET_NSTYPE) == _CLONE_NEWNET:
            return descriptor
    except OSError as error:
        if error.errno not in (errno.ENOTTY, errno.EINVAL):
            os.close(descriptor)
            raise
    os.close(descriptor)
    return None


def enter(descriptor: int) -> None:
    """Move the calling thread into a namespace.

    Raises:
        OSError: The kernel refused.
    """
    if _libc.setns(descriptor, _CLONE_NEWNET) != 0:
        raise _last_error("setns")


def _in_thread(work: Callable[[], _T]) -> _T:
    results: list[_T] = []
    failures: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run, name="netns")
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
    return results[0]


def _unshare() -> None:
    if _libc.unshare(_CLONE_NEWNET) != 0:
        raise _last_error("unshare(CLONE_NEWNET)")
    for which in ("all", "default"):
        try:
            (_IPV6 / which / "disable_ipv6").write_text("1")
        except FileNotFoundError:
            break  # a kernel without IPv6
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, _SIOCSIFFLAGS, _IFREQ_FLAGS.pack(b"lo", _IFF_UP))


def _last_error(what: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), what)
