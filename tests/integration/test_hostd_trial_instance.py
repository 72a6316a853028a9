"""`skerry probe` runs a sandbox for real without a running Skerry, and leaves nothing."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec
import pytest

from skerry.hostd.sys import loop
from tests.conftest import REPOSITORY, Built
from tests.harness.hostd_process import settings_for

pytestmark = [pytest.mark.needs_root, pytest.mark.timeout(120)]


def test_a_sandbox_of_each_driver_is_run_and_removed(built: Built) -> None:
    before = _traces()
    asked = msgspec.json.encode(settings_for(built, Path("/nonexistent")))
    done = subprocess.run(
        [sys.executable, "-m", "skerry", "probe"],
        input=asked,
        capture_output=True,
        timeout=60,
        cwd=REPOSITORY,
        check=True,
    )
    (report,) = json.loads(done.stdout)

    assert (report["isolation"], report["usable"], report["missing"]) == ("gvisor", True, [])
    assert _traces() - before == set()


def _traces() -> set[str]:
    """Directories, disks and control groups of probes."""
    found = {
        str(path) for root in (tempfile.gettempdir(), "/run") for path in Path(root).glob("skerry-probe-*")
    }
    found |= {one.backing_file for one in loop.devices() if "skerry-probe-" in one.backing_file}
    return found
