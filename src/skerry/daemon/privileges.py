"""Give up every right that a daemon does not need, and make sure that it is gone.

The order matters: what needs root comes first. Only while there is one thread, since capabilities belong to
threads.
"""

import os
import resource
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from skerry.daemon.data_dir import account
from skerry.daemon.descriptors import close_others
from skerry.errors import HostUnusable
from skerry.hostd.sys import credentials

_KEPT_ENV = frozenset({"PATH", "LANG", "LC_ALL", "TZ"})
_MAX_OPEN_FILES = 65_536


@dataclass(frozen=True, slots=True)
class Account:
    """Numbers of a system user."""

    uid: int
    gid: int


def system_account(name: str) -> Account:
    """Look a system user up.

    Raises:
        HostUnusable: There is no such user, or it is root.
    """
    found = account(name)
    return Account(found.pw_uid, found.pw_gid)


def harden(*, keep_fds: Collection[int]) -> None:
    """What every daemon does first, root or not: no core files, no dumps, nothing inherited unnamed.

    Clears the environment but for an allow-list (SSLKEYLOGFILE, PYTHON*, LD_* and the like are gone), closes
    other descriptors, raises the limit of open files.
    """
    for name in os.environ.keys() - _KEPT_ENV:
        del os.environ[name]
    close_others(keep_fds)
    os.umask(0o077)
    os.chdir("/")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    raise_open_files()
    credentials.set_dumpable(False)


def raise_open_files() -> None:
    """Allow this process as many open files as its hard limit lets it, within reason."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MAX_OPEN_FILES if most == resource.RLIM_INFINITY else min(_MAX_OPEN_FILES, most)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


def become(user: Account) -> None:
    """Turn from root into a plain user for ever: uid, gid, groups, capabilities, no_new_privs.

    Raises:
        HostUnusable: Something could not be given up. The caller must end the process.
    """
    if user.uid == 0 or user.gid == 0:
        raise HostUnusable("refusing to keep running as root")
    if (threads := _status()["Threads"]) != "1":
        raise HostUnusable(f"rights must be given up before other threads start; there are {threads}")
    try:
        credentials.drop_bounding_set()
        os.setgroups([])
        os.setresgid(user.gid, user.gid, user.gid)
        os.setresuid(user.uid, user.uid, user.uid)
        credentials.clear_capabilities()
        credentials.set_no_new_privileges()
        credentials.set_dumpable(False)
    except OSError as problem:
        raise HostUnusable(f"could not give up root's rights: {problem}") from problem
    verify(user)


def verify(user: Account) -> None:
    """Read back from the kernel that nothing is left.

    Raises:
        HostUnusable: Something is.
    """
    status = _status()
    uid, gid = str(user.uid), str(user.gid)
    expected = {
        "Uid": "\t".join([uid] * 4),
        "Gid": "\t".join([gid] * 4),
        "Groups": "",
        "NoNewPrivs": "1",
        **dict.fromkeys(("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"), "0" * 16),
    }
    wrong = [f"{name} is {status.get(name)}" for name, value in expected.items() if status.get(name) != value]
    if credentials.is_dumpable():
        wrong.append("the process is dumpable")
    if resource.getrlimit(resource.RLIMIT_CORE) != (0, 0):
        wrong.append("core files are allowed")
    if _can_become_root():
        wrong.append("setuid(0) works")
    if wrong:
        raise HostUnusable("could not give up root's rights: " + ", ".join(wrong))


def _status() -> dict[str, str]:
    lines = Path("/proc/self/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _can_become_root() -> bool:
    try:
        os.setuid(0)
    except PermissionError:
        return False
    return True
