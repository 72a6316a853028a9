"""Attributes of this process that Python has no call for: prctl(2)."""

import ctypes
import os

_PR_SET_DUMPABLE = 4
_PR_SET_SECCOMP = 22
_PR_SET_NO_NEW_PRIVS = 38
_SECCOMP_MODE_FILTER = 2

_libc = ctypes.CDLL(None, use_errno=True)
_libc.prctl.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]


def close_to_others() -> None:
    """No core file, ptrace(2) or /proc access by processes of the same user, and no rights by execve(2)."""
    _prctl(_PR_SET_DUMPABLE, 0, 0)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1, 0)


def filter_system_calls(header: int) -> None:
    """Install a filter, given the address of its sock_fprog. Needs `close_to_others` before."""
    _prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, header)


def _prctl(option: int, one: int, two: int) -> None:
    if _libc.prctl(option, one, two, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl({option}): {os.strerror(number)}")
