"""A Skerry server of its own for the benchmarks, and the environment that points an SDK at it."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

SKERRY = str(Path(sys.executable).with_name("skerry"))


@dataclass(frozen=True, slots=True)
class Server:
    """A running server; ``environment`` has the three variables of the SDKs."""

    data_dir: Path
    environment: Mapping[str, str]

    def cli(self, *arguments: str) -> str:
        """Run a verb of the command line and return what it prints."""
        return subprocess.run(
            [SKERRY, *arguments[:1], "--data-dir", str(self.data_dir), *arguments[1:]],
            check=True,
            capture_output=True,
            text=True,
        ).stdout

    def begin(self, *arguments: str) -> "subprocess.Popen[bytes]":
        """Start a verb that goes on; what it prints is dropped."""
        null = subprocess.DEVNULL
        command = [SKERRY, *arguments[:1], "--data-dir", str(self.data_dir), *arguments[1:]]
        return subprocess.Popen(command, stdin=null, stdout=null, stderr=null)

    def status(self) -> dict[str, object]:
        """What ``skerry status --json`` says."""
        status: dict[str, object] = json.loads(self.cli("status", "--json"))
        return status

    @property
    def instance(self) -> str:
        """The instance's six characters, which stand in the name of every process of its sandboxes."""
        return str(json.loads((self.data_dir / "instance.json").read_text())["instance"])


@contextmanager
def skerry_server(**settings: str) -> Iterator[Server]:
    """Start ``skerry up --detach`` on a free port and a fresh data directory; end all of it afterwards.

    Args:
        settings: Environment variables of settings, without their ``SKERRY_`` prefix.
    """
    data_dir = Path(tempfile.mkdtemp(prefix="skerry-bench-"))
    environment = {**os.environ, **{f"SKERRY_{name}": value for name, value in settings.items()}}
    up = [SKERRY, "up", "--detach", "--data-dir", str(data_dir), "--listen", "127.0.0.1:0"]
    subprocess.run(up, check=True, stdout=subprocess.DEVNULL, env=environment)
    try:
        exports = subprocess.run(
            [SKERRY, "env", "--data-dir", data_dir], check=True, capture_output=True, text=True
        ).stdout
        pairs = (
            line.removeprefix("export ").split("=", 1)
            for line in exports.splitlines()
            if line.startswith("export ")
        )
        yield Server(data_dir, {name: value.strip("'\"") for name, value in pairs})
    finally:
        subprocess.run([SKERRY, "down", "--data-dir", data_dir], check=True, stdout=subprocess.DEVNULL)
        shutil.rmtree(data_dir)
