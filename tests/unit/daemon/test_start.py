"""No two daemons of a name work on one instance."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from skerry.daemon.start import only_one
from skerry.errors import HostUnusable

_HOLD = """
import sys
from pathlib import Path
from skerry.daemon.start import only_one
only_one(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def test_the_second_waits_for_the_first(tmp_path: Path) -> None:
    lock = tmp_path / "hostd.lock"
    command = [sys.executable, "-I", "-c", _HOLD, str(lock)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as first:
        assert first.stdin is not None
        assert first.stdout is not None
        assert first.stdout.readline() == b"held\n"
        before = len(os.listdir("/proc/self/fd"))
        with pytest.raises(HostUnusable, match="another daemon holds"):
            only_one(lock, timeout_s=0)
        assert len(os.listdir("/proc/self/fd")) == before
        second = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        first.stdin.close()
        assert first.wait(30) == 0
    with second:
        assert second.stdout is not None
        assert second.stdout.readline() == b"held\n"
        assert second.wait(30) == 0
