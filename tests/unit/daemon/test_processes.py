"""Processes are recognised although numbers are reused."""

import json
import os
import signal
import subprocess
from pathlib import Path

from skerry.cli.processes import Identity, identify, is_alive, recorded, send, wait_gone


def test_a_process_until_its_end() -> None:
    with subprocess.Popen(["sleep", "60"]) as child:
        found = identify(child.pid)
        assert found is not None
        assert is_alive(found)
        assert not wait_gone(found, timeout_s=0)
        assert send(found, signal.SIGKILL)
        assert wait_gone(found, timeout_s=10)
        # Not reaped yet: a zombie runs no more.
        assert not is_alive(found)
        child.wait()
    assert not send(found, signal.SIGKILL)
    assert wait_gone(found, timeout_s=0)


def test_another_process_with_the_same_number_is_never_touched() -> None:
    me = identify(os.getpid())
    assert me is not None
    other = Identity(me.pid, me.start_ticks + 1)
    assert not is_alive(other)
    assert not send(other, signal.SIGKILL)
    assert wait_gone(other, timeout_s=0)


def test_only_those_that_live_are_listed(tmp_path: Path) -> None:
    me = identify(os.getpid())
    assert me is not None
    file = tmp_path / "processes.json"
    assert recorded(file) == []
    rows = [
        {"name": "api", "pid": me.pid, "start_ticks": me.start_ticks, "version": "1"},
        {"name": "hostd", "pid": me.pid, "start_ticks": 1, "version": "1"},
    ]
    file.write_text(json.dumps(rows))
    assert [row.name for row in recorded(file)] == ["api"]
    file.write_text('[{"name": 1}]')
    assert recorded(file) == []
