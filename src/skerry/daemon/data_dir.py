"""Make and check the data directory, lock it."""

import fcntl
import os
import pwd
import secrets
import shlex
import stat
from pathlib import Path

from skerry.cli.invoker import Invoker
from skerry.cli.places import DataDir, read_instance
from skerry.daemon.files import write_json
from skerry.errors import Conflict, HostUnusable
from skerry.spec.ids import InstanceId, new_instance_id

API_USER = "skerry"
EGRESS_USER = "skerry-egress"


def account(name: str) -> pwd.struct_passwd:
    """A system user that set-up makes.

    Raises:
        HostUnusable: There is no such user, or it is root.
    """
    command = f"sudo useradd --system --no-create-home --shell /usr/sbin/nologin {name}"
    try:
        found = pwd.getpwnam(name)
    except KeyError:
        raise HostUnusable(f"there is no user {name}: run `make setup`, or `{command}`") from None
    if found.pw_uid == 0 or found.pw_gid == 0:
        raise HostUnusable(f"the user {name} has root's uid or gid: remove it, then run `{command}`")
    return found


def prepare(place: DataDir, who: Invoker) -> InstanceId:
    """Make the directory and what is in it, or check that what is there can be trusted; idempotent.

    Afterwards it belongs to root, so that nobody else can exchange what the root daemon works on.

    Raises:
        HostUnusable: Something in it belongs to somebody else or is a symbolic link, or it cannot be made.
    """
    try:
        return _prepare(place, who)
    except OSError as problem:
        raise HostUnusable(f"{place.path} cannot be the data directory: {problem}") from problem


def _prepare(place: DataDir, who: Invoker) -> InstanceId:
    _make_parents(place.path, who)
    place.path.mkdir(mode=0o755, exist_ok=True)
    _own(place.path, allowed={0, who.uid}, uid=0, gid=0, mode=0o755)
    api, egress = account(API_USER), account(EGRESS_USER)
    for path, uid, gid, mode in (
        (place.state, api.pw_uid, api.pw_gid, 0o700),
        (place.egress, egress.pw_uid, egress.pw_gid, 0o700),
        (place.host, 0, 0, 0o700),
        (place.logs, 0, 0, 0o755),
    ):
        path.mkdir(mode=0o700, exist_ok=True)
        _own(path, allowed={0, uid}, uid=uid, gid=gid, mode=mode)
    instance = read_instance(place.instance)
    if instance is None:
        instance = new_instance_id(secrets.randbelow)
        write_json(place.instance, {"instance": instance})
    return instance


def _make_parents(path: Path, who: Invoker) -> None:
    """Missing directories above; those in the user's home belong to the user."""
    missing = [parent for parent in path.parents if not parent.exists()]
    for parent in reversed(missing):
        parent.mkdir(mode=0o755)
        if parent.is_relative_to(who.home):
            os.chown(parent, who.uid, who.gid, follow_symlinks=False)


def _own(path: Path, *, allowed: set[int], uid: int, gid: int, mode: int) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        found = os.fstat(fd)
        if found.st_uid not in allowed:
            raise HostUnusable(
                f"{path} belongs to uid {found.st_uid}: choose another --data-dir, or move it out of the way"
            )
        if (found.st_uid, found.st_gid) != (uid, gid):
            os.fchown(fd, uid, gid)
        if stat.S_IMODE(found.st_mode) != mode:
            os.fchmod(fd, mode)
    finally:
        os.close(fd)


class DataDirLock:
    """The right to run the daemons of a data directory; freed by `release` or the end of the last holder."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    @classmethod
    def try_take(cls, place: DataDir) -> "DataDirLock | None":
        """Take it; None when another process has it. A fork shares it (flock(2))."""
        fd = os.open(place.lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return None
        except BaseException:
            os.close(fd)
            raise
        return cls(fd)

    @classmethod
    def take(cls, place: DataDir) -> "DataDirLock":
        """Take it.

        Raises:
            Conflict: Another process has it.
        """
        lock = cls.try_take(place)
        if lock is None:
            raise Conflict(
                f"Skerry already runs for {place.path}: "
                f"see `skerry status --data-dir {shlex.quote(str(place.path))}`",
                code="ALREADY_RUNNING",
            )
        return lock

    def fileno(self) -> int:
        """Its descriptor."""
        return self._fd

    def release(self) -> None:
        """Give it back. Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
