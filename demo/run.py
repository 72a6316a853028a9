"""`make demo`: a server of its own, the official SDK's example program, and nothing left behind.

Every part is what a person would type: `skerry up`, `skerry env`, the program, `skerry list`, `skerry down`.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from demo.leftovers import find_leftovers

PROGRAM = Path(__file__).with_name("hello.py")
SKERRY = Path(sys.executable).with_name("skerry")
EXPECTED = "Hello, World!"
STEP_TIMEOUT_S = 120


class DemoFailed(Exception):
    """A step did not do what it should; the text says which."""


@dataclass(slots=True)
class Demo:
    """One run: its data directory, and how long each step took.

    Attributes:
        data_dir: Made for this run.
        times_s: Seconds by the name of the step, in order.
    """

    data_dir: Path
    times_s: dict[str, float] = field(default_factory=dict)

    def skerry(self, *arguments: str) -> str:
        """Run a verb of the command line; its standard output."""
        done = subprocess.run(
            [SKERRY, *arguments, "--data-dir", self.data_dir],
            stdout=subprocess.PIPE,
            text=True,
            timeout=STEP_TIMEOUT_S,
            check=False,
        )
        if done.returncode != 0:
            raise DemoFailed(f"skerry {arguments[0]} ended with status {done.returncode}")
        return done.stdout

    @contextmanager
    def timed(self, step: str) -> Iterator[None]:
        """Note how long a step takes."""
        start = time.monotonic()
        try:
            yield
        finally:
            self.times_s[step] = time.monotonic() - start

    def run_program(self) -> None:
        """Run the program with the variables that `skerry env` gives, and show what it prints."""
        variables = json.loads(self.skerry("env", "--json"))
        with self.timed("the program"):
            done = subprocess.run(
                [sys.executable, PROGRAM],
                env={**os.environ, **variables},
                stdout=subprocess.PIPE,
                text=True,
                timeout=STEP_TIMEOUT_S,
                check=False,
            )
        print(f"\n$ python demo/{PROGRAM.name}\n{done.stdout}", end="", flush=True)
        if done.returncode != 0 or EXPECTED not in done.stdout:
            raise DemoFailed(
                f"the program ended with status {done.returncode} and did not print {EXPECTED!r}"
            )

    def isolation(self) -> str:
        """What separated the newest sandbox from this host, as the server recorded it."""
        rows = json.loads(self.skerry("list", "--json"))
        if not rows:
            raise DemoFailed("the server lists no sandbox")
        return str(rows[0]["isolation"])

    def instance(self) -> str | None:
        """The ID in the names of everything this server made on the host; None if it never began."""
        try:
            return str(json.loads((self.data_dir / "instance.json").read_text())["instance"])
        except FileNotFoundError:
            return None

    def stop(self) -> None:
        """Stop the server and make sure that nothing is left of it.

        Raises:
            DemoFailed: Something is.
        """
        # A second Ctrl-C must not keep the first from cleaning up; children inherit this.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        instance = self.instance()
        if instance is not None:
            with self.timed("skerry down"):
                self.skerry("down")
            if left := find_leftovers(instance, self.data_dir):
                raise DemoFailed("skerry down left behind:\n  " + "\n  ".join(left))
        remove = ["rm", "-rf", "--one-file-system", str(self.data_dir)]
        # Root and the system users own what is in it.
        prefix = [] if os.geteuid() == 0 else ["sudo", "--"]
        subprocess.run([*prefix, *remove], timeout=STEP_TIMEOUT_S, check=True)


def main() -> int:
    """Run the demo.

    Returns:
        The exit status: 0 if the program ran in a sandbox and nothing is left.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    # Not /tmp, which may be memory: the pool of disks lies in the data directory.
    place = os.environ.get("TMPDIR", "/var/tmp")  # noqa: S108
    demo = Demo(Path(tempfile.mkdtemp(prefix="skerry-demo-", dir=place)))
    try:
        try:
            with demo.timed("skerry up"):
                demo.skerry("up", "--detach", "--listen", "127.0.0.1:0")
            demo.run_program()
            isolation = demo.isolation()
        finally:
            demo.stop()
    except (DemoFailed, subprocess.SubprocessError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("demo: interrupted; the server is stopped and nothing is left", file=sys.stderr)
        return 130
    print(f"\nisolation: {isolation}")
    for step, seconds in demo.times_s.items():
        print(f"{step + ':':<14}{seconds:6.2f} s")
    print("Nothing is left running or mounted.")
    return 0


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
