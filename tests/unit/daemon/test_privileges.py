"""Rights are given up for good, or the daemon does not run."""

import json
import subprocess
import sys

import pytest

from skerry.daemon.privileges import Account, become, verify
from skerry.errors import HostUnusable

NOBODY = 65534

_BECOME = """
import json, os, resource, sys
os.environ.update(SSLKEYLOGFILE="/x", PYTHONPATH="/x", LD_PRELOAD_NOT="/x", LANG="C.UTF-8")
stray = os.open("/dev/null", os.O_RDONLY)
os.set_inheritable(stray, True)
from skerry.daemon import privileges
kept = os.open("/dev/null", os.O_RDONLY)
privileges.harden(keep_fds={kept})
privileges.become(privileges.Account(65534, 65534))
found = {
    "ids": [*os.getresuid(), *os.getresgid(), *os.getgroups()],
    "environment": sorted(os.environ),
    "descriptors": [fd for fd in range(3, 256) if not raises(os.fstat, fd)],
    "kept": kept,
    "umask": os.umask(0),
    "cwd": os.getcwd(),
    "core": resource.getrlimit(resource.RLIMIT_CORE),
    "root again": not raises(os.setuid, 0) or not raises(os.setresuid, 0, 0, 0),
}
print(json.dumps(found))
"""

_RAISES = """
def raises(call, *arguments):
    try:
        call(*arguments)
    except OSError:
        return True
    return False
"""


@pytest.mark.needs_root
def test_nothing_is_left_but_what_is_named() -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-c", _RAISES + _BECOME],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["ids"] == [NOBODY] * 6
    assert set(found["environment"]) <= {"PATH", "LANG", "LC_ALL", "TZ"}
    assert found["descriptors"] == [found["kept"]]
    assert (found["umask"], found["cwd"], found["core"]) == (0o077, "/", [0, 0])
    assert found["root again"] is False


@pytest.mark.parametrize("user", [Account(0, 0), Account(0, NOBODY), Account(NOBODY, 0)])
def test_it_never_falls_back_to_root(user: Account) -> None:
    with pytest.raises(HostUnusable, match="refusing to keep running as root"):
        become(user)


def test_what_is_left_is_found() -> None:
    with pytest.raises(HostUnusable) as refused:
        verify(Account(12345, 12345))
    for part in ("Uid is", "Gid is", "NoNewPrivs is 0", "the process is dumpable"):
        assert part in refused.value.message


@pytest.mark.needs_root
def test_threads_would_keep_their_rights() -> None:
    script = """
import threading
threading.Thread(target=threading.Event().wait, daemon=True).start()
from skerry.daemon.privileges import Account, become
from skerry.errors import HostUnusable
try:
    become(Account(65534, 65534))
except HostUnusable as problem:
    print(problem.message)
"""
    done = subprocess.run(
        [sys.executable, "-I", "-c", script], capture_output=True, text=True, check=True, timeout=30
    )
    assert "before other threads start; there are 2" in done.stdout
