"""Process attributes that Python has no call for: prctl(2) and capset(2)."""

import ctypes
import errno
import os

_PR_SET_DUMPABLE = 4
_PR_GET_DUMPABLE = 3
_PR_SET_NAME = 15
_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_CAP_VERSION_3 = 0x20080522
_MAX_CAPABILITIES = 64

_libc = ctypes.CDLL(None, use_errno=True)
_libc.prctl.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]


def _prctl(option: int, argument: int = 0) -> int:
    result: int = _libc.prctl(option, argument, 0, 0, 0)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"prctl({option}, {argument}): {os.strerror(code)}")
    return result


def set_dumpable(value: bool) -> None:
    """Whether a core file, ptrace(2) and /proc access by the same user are allowed."""
    _prctl(_PR_SET_DUMPABLE, int(value))


def is_dumpable() -> bool:
    """Whether this process is dumpable."""
    return _prctl(_PR_GET_DUMPABLE) != 0


def set_no_new_privileges() -> None:
    """No execve(2) may give more rights from now on. Cannot be undone."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def set_process_name(name: str) -> None:
    """Name the calling thread, as ps(1) shows it; at most 15 bytes count."""
    buffer = ctypes.create_string_buffer(name.encode()[:15])
    _prctl(_PR_SET_NAME, ctypes.addressof(buffer))


def drop_bounding_set() -> None:
    """Empty the capability bounding set of the calling thread; needs CAP_SETPCAP.

    Source: capabilities(7); a number that the kernel does not know answers EINVAL.
    """
    for capability in range(_MAX_CAPABILITIES):
        try:
            _prctl(_PR_CAPBSET_DROP, capability)
        except OSError as problem:
            if problem.errno != errno.EINVAL:
                raise
            return


class _CapHeader(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]


def clear_capabilities() -> None:
    """Empty the ambient, effective, permitted and inheritable sets of the calling thread."""
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    header = _CapHeader(_CAP_VERSION_3, 0)
    data = (ctypes.c_uint32 * 6)()
    if _libc.capset(ctypes.byref(header), ctypes.byref(data)) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"capset: {os.strerror(code)}")
