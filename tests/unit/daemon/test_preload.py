"""What a daemon reads before it gives up its rights."""

import subprocess
import sys

import pytest

PROGRAM = """
from skerry.daemon import preload
preload.preload(getattr(preload, "{needs}"))
from skerry.policy import suffixes
assert suffixes.load.cache_info().currsize == 1
"""


@pytest.mark.parametrize("needs", ["API", "EGRESSD"])
def test_the_list_of_public_suffixes_is_read(needs: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(needs=needs)], capture_output=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")
