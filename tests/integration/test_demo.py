"""`make demo` does what it promises, and leaves nothing behind however it ends."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from demo.leftovers import find_leftovers
from demo.run import SKERRY
from tests.conftest import REPOSITORY, Built

pytestmark = [pytest.mark.needs_root, pytest.mark.usefixtures("built"), pytest.mark.timeout(120)]

DEADLINE_S = 60.0


def start_demo(place: Path) -> subprocess.Popen[str]:
    """Start the demo in a process group of its own, as a shell does."""
    return subprocess.Popen(
        [sys.executable, "-m", "demo.run"],
        cwd=REPOSITORY,
        env={**os.environ, "TMPDIR": str(place)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )


def wait_for(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end, f"no {what} after {DEADLINE_S} s"
        time.sleep(0.01)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """Where the demo's data directory will be; stops what a demo that failed left running."""
    yield tmp_path
    for data_dir in tmp_path.iterdir():
        subprocess.run([SKERRY, "down", "--data-dir", data_dir], timeout=DEADLINE_S, check=True)


def test_it_runs_the_program_in_a_real_sandbox(place: Path, built: Built) -> None:
    demo = start_demo(place)
    output, errors = demo.communicate(timeout=DEADLINE_S)

    assert demo.returncode == 0, errors
    assert "Hello from the sandbox!\nHello, World!\n" in output
    assert "isolation: gvisor\n" in output
    assert re.search(
        r"skerry up: +\d+\.\d\d s\nthe program: +\d+\.\d\d s\nskerry down: +\d+\.\d\d s\n", output
    )
    assert list(place.iterdir()) == []


def test_the_program_is_the_one_in_the_readme() -> None:
    program = (REPOSITORY / "demo" / "hello.py").read_text()
    readme = (REPOSITORY / "README.md").read_text()

    assert [line for line in program.splitlines() if line and line not in readme] == []


@pytest.mark.parametrize(
    ("moment", "name"), [("instance.json", signal.SIGTERM), ("endpoint.json", signal.SIGINT)]
)
def test_an_interruption_leaves_nothing(place: Path, moment: str, name: signal.Signals) -> None:
    demo = start_demo(place)
    try:
        wait_for(lambda: any(place.glob(f"*/{moment}")), moment)
        (data_dir,) = place.iterdir()
        instance = json.loads((data_dir / "instance.json").read_text())["instance"]
        # Ctrl-C reaches the whole group; a termination only the driver.
        os.killpg(demo.pid, name) if name is signal.SIGINT else demo.send_signal(name)
        _, errors = demo.communicate(timeout=DEADLINE_S)
    finally:
        demo.kill()

    assert demo.returncode == 130, errors
    assert "interrupted" in errors
    assert find_leftovers(instance, data_dir) == []
    assert list(place.iterdir()) == []


def test_leftovers_are_found(tmp_path: Path) -> None:
    instance = "zzzzzz"
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    reader = subprocess.Popen(["tail", "-f", "/dev/null", data_dir / "log"], stderr=subprocess.DEVNULL)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", data_dir], check=True)
    subprocess.run(["nft", "add", "table", "inet", f"skerry_{instance}"], check=True)
    try:
        found = find_leftovers(instance, data_dir)
    finally:
        reader.kill()
        reader.wait()
        subprocess.run(["umount", data_dir], check=True)
        subprocess.run(["nft", "delete", "table", "inet", f"skerry_{instance}"], check=True)

    assert found == [
        f"process {reader.pid}: tail -f /dev/null {data_dir / 'log'}",
        f"mount {data_dir} (/)",
        f"packet filter table inet skerry_{instance}",
    ]
    assert find_leftovers(instance, data_dir) == []
