"""inotify(7): one descriptor that tells which of several files was modified."""

import ctypes
import os
import struct
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)
_libc.inotify_add_watch.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32]

_IN_NONBLOCK, _IN_CLOEXEC = os.O_NONBLOCK, os.O_CLOEXEC
_IN_MODIFY = 0x2
_EVENT = struct.Struct("iIII")
_READ_BYTES = 65_536


class Inotify:
    """Watches files for modification. One instance serves many: a user may have only 128
    (max_user_instances).
    """

    def __init__(self) -> None:
        self._fd = _checked(_libc.inotify_init1(_IN_NONBLOCK | _IN_CLOEXEC), "inotify_init1")

    def fileno(self) -> int:
        """The descriptor: readable when something happened."""
        return self._fd

    def watch(self, file: Path) -> int:
        """Start to watch; returns the number under which `read` reports the file.

        Raises:
            OSError: No such file, or the user's limit of watches is reached.
        """
        return _checked(_libc.inotify_add_watch(self._fd, os.fsencode(file), _IN_MODIFY), str(file))

    def forget(self, number: int) -> None:
        """Stop to watch. A file that is gone was forgotten by the kernel already."""
        _libc.inotify_rm_watch(self._fd, number)

    def read(self) -> set[int]:
        """The numbers of the files modified since the last read; empty when none was."""
        try:
            data = os.read(self._fd, _READ_BYTES)
        except BlockingIOError:
            return set()
        numbers, offset = set(), 0
        while offset + _EVENT.size <= len(data):
            number, _mask, _cookie, name_bytes = _EVENT.unpack_from(data, offset)
            numbers.add(number)
            offset += _EVENT.size + name_bytes
        return numbers

    def close(self) -> None:
        """Free it."""
        os.close(self._fd)


def _checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
    return result
