"""A mount namespace that outlives its processes, because a file holds it (``unshare --mount=FILE``)."""

import ctypes
import errno
import fcntl
import os
import select
import signal
from pathlib import Path

from skerry.errors import TimedOut
from skerry.hostd.sys.mounts import MountFlag, mount, unmount

_libc = ctypes.CDLL(None, use_errno=True)

_CLONE_NEWNS = 0x00020000
_NS_GET_NSTYPE = 0xB703  # ioctl_ns(2)
_CHILD_DEADLINE_S = 10.0
_MAX_STACKED = 8


def enter(pin: Path) -> None:
    """Move this process into the namespace held by a file; make both when there is none.

    Must be called before the process has a second thread (setns(2) refuses otherwise), from the namespace
    in which the pin lives. The working directory becomes ``/``. The new namespace receives mounts and
    unmounts of the host (it is a slave, so it never keeps a disk of the host busy) and sends none.

    Raises:
        OSError: The kernel refused; nothing is left pinned.
        TimedOut: The helper process did not answer.
    """
    if not is_pinned(pin):
        _create(pin)
    descriptor = os.open(pin, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _libc.setns(descriptor, _CLONE_NEWNS) != 0:
            raise _last_error(pin)
    finally:
        os.close(descriptor)


def enter_own() -> None:
    """Move this process into a new namespace of its own, which ends with it.

    The host's mounts and unmounts are still received. Must be called before the process has a second thread.

    Raises:
        OSError: The kernel refused.
    """
    if _libc.unshare(_CLONE_NEWNS) != 0:
        raise _last_error(Path("/"))
    mount("none", Path("/"), None, MountFlag.RECURSIVE | MountFlag.SLAVE)


def is_pinned(pin: Path) -> bool:
    """Whether the file holds a mount namespace."""
    try:
        descriptor = os.open(pin, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    try:
        return fcntl.ioctl(descriptor, _NS_GET_NSTYPE) == _CLONE_NEWNS
    except OSError as error:
        if error.errno in (errno.ENOTTY, errno.EINVAL):
            return False
        raise
    finally:
        os.close(descriptor)


def remove(pin: Path) -> None:
    """Let the namespace go: its mounts end when the last process in it has. Idempotent.

    Call it where `enter` was called, in the host's namespace; inside, the pin cannot be seen.
    """
    for _ in range(_MAX_STACKED):
        try:
            unmount(pin, lazily=True)
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.ENOENT):
                break
            raise
    pin.unlink(missing_ok=True)


def _create(pin: Path) -> None:
    remove(pin)
    pin.touch(mode=0o600)
    # A namespace file cannot be mounted where mounts propagate (on most hosts /run is shared), hence the
    # private mount below it.
    mount(pin, pin, None, MountFlag.BIND)
    try:
        mount("none", pin, None, MountFlag.PRIVATE)
        _pin_newer_namespace(pin)
    except BaseException:
        remove(pin)
        raise


def _pin_newer_namespace(pin: Path) -> None:
    """Pin a new namespace that counts as newer than ours, as the kernel asks for.

    Since Linux 6.18 namespaces are numbered from ranges of each CPU, so one made later on another CPU may
    count as older (EINVAL); one made on the CPU on which ours was made never does. Where ours is the first of
    all, as outside of containers, every other one is newer. Source: mnt_ns_loop() in fs/namespace.c.
    """
    cpus = sorted(os.sched_getaffinity(0))
    for cpu in cpus:
        try:
            return _pin_namespace_of_child(pin, cpu)
        except OSError as error:
            if error.errno != errno.EINVAL or cpu == cpus[-1]:
                raise


def _pin_namespace_of_child(pin: Path, cpu: int) -> None:
    # The kernel lets only an older namespace hold a newer one, so a child makes it and the parent, still
    # outside, mounts its file.
    from_child, to_parent = os.pipe()
    child = os.fork()
    if child == 0:
        _unshare_and_wait(to_parent, cpu)
    os.close(to_parent)
    try:
        if not select.select([from_child], [], [], _CHILD_DEADLINE_S)[0]:
            raise TimedOut("making a mount namespace", _CHILD_DEADLINE_S)
        failure = int.from_bytes(os.read(from_child, 1), "big")
        if failure:
            raise OSError(failure, os.strerror(failure), "making a mount namespace")
        mount(f"/proc/{child}/ns/mnt", pin, None, MountFlag.BIND)
    finally:
        os.close(from_child)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _unshare_and_wait(to_parent: int, cpu: int) -> None:
    """The child's whole life: its exit frees nothing, because the parent has pinned what it made."""
    failure = 0
    try:
        os.sched_setaffinity(0, {cpu})
        enter_own()
    except OSError as error:
        failure = error.errno or errno.EIO
    try:
        os.write(to_parent, failure.to_bytes(1, "big"))
        signal.alarm(int(_CHILD_DEADLINE_S))  # in case the parent dies
        signal.pause()
    finally:
        os._exit(0)


def _last_error(path: Path) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), str(path))
