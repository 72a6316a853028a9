"""A whole Skerry, as `skerry up` starts it: the command line is the only way in."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from skerry.cli.orphans import leftovers_of
from skerry.cli.places import DataDir, RuntimeDir, read_instance, runtime_dir
from skerry.cli.processes import Recorded, recorded

COMMAND_S = 60
_OWN_ENVIRONMENT = ("SKERRY_", "DENO_", "SANDBOX_ID")


class SkerryUp:
    """One data directory and the command line that looks at it.

    Args:
        data_dir: Need not exist.
        program: How the command line is started.
    """

    def __init__(
        self, data_dir: Path, *, program: tuple[str, ...] = (sys.executable, "-I", "-m", "skerry")
    ) -> None:
        self.data = DataDir(data_dir)
        self._program = program
        self.environment = {
            key: value for key, value in os.environ.items() if not key.startswith(_OWN_ENVIRONMENT)
        }
        self.environment["SKERRY_DATA_DIR"] = str(data_dir)

    def command(
        self, *words: str, stdin: bytes = b"", expect: int | None = 0, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a verb to its end.

        Args:
            expect: The exit code that it must have; None: any.
        """
        done = subprocess.run(
            [*self._program, *words],
            input=stdin,
            capture_output=True,
            env=self.environment | (env or {}),
            timeout=COMMAND_S,
            check=False,
        )
        if expect is not None:
            assert done.returncode == expect, (words, done.returncode, done.stdout, done.stderr)
        return done

    @contextmanager
    def begin(self, *words: str, **pipes: Any) -> Iterator["subprocess.Popen[bytes]"]:
        """Start a verb that goes on; when the body fails, it is killed, else it must end by itself."""
        with subprocess.Popen([*self._program, *words], env=self.environment, **pipes) as running:
            try:
                yield running
            except BaseException:
                running.kill()
                raise

    def text(self, *words: str, **options: Any) -> str:
        """What a verb prints, without the last newline."""
        return self.command(*words, **options).stdout.decode().removesuffix("\n")

    def json(self, *words: str, **options: Any) -> Any:
        """What a verb prints for programs."""
        return json.loads(self.command(*words, "--json", **options).stdout)

    def up(self, *words: str, **options: Any) -> Any:
        """Start it in the background, on a free port."""
        return self.json("up", "--detach", "--listen", "127.0.0.1:0", *words, **options)

    def ensure_up(self) -> None:
        """Start it if it does not run: `up` gives up on a daemon that dies seven times in a minute.

        One that is just ending still holds the lock; whoever waits for Skerry calls this again.
        """
        if "up" not in self.processes():
            self.command("up", "--detach", "--listen", "127.0.0.1:0", expect=None)

    def down(self, *words: str) -> None:
        """Stop it."""
        self.command("down", *words)

    @property
    def runtime(self) -> RuntimeDir:
        """Its runtime directory."""
        instance = read_instance(self.data.instance)
        assert instance is not None
        return runtime_dir(instance)

    def processes(self) -> dict[str, Recorded]:
        """Those of its processes that run, by name."""
        return {row.name: row for row in recorded(self.runtime.processes)}

    def kill(self, *names: str) -> None:
        """Kill processes with SIGKILL, all of them before any can react to another's end."""
        running = self.processes()
        for name in names:
            os.kill(running[name].process.pid, signal.SIGKILL)

    def leftovers(self) -> list[str]:
        """What the kernel holds of the instance."""
        instance = read_instance(self.data.instance)
        assert instance is not None
        return [f"{found.kind} {found.name}" for found in leftovers_of(instance)]
