"""How the set-up runs programs: a list of arguments, a deadline, and an error that says what failed."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path


class SetupError(Exception):
    """Something that the person at the keyboard has to act on; the text says how."""


def run(
    arguments: Sequence[str | Path],
    *,
    timeout_s: float,
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
    quiet: bool = False,
) -> None:
    """Run a program; what it prints goes to standard error, so that standard output stays the caller's.

    Args:
        arguments: The program and its arguments.
        timeout_s: Upper bound in seconds; afterwards the program is killed.
        cwd: Directory to run in.
        environment: Variables set on top of this process's own.
        quiet: Show the output only if the program fails.
    Raises:
        SetupError: It is not there, ended with another status than 0, or took too long.
    """
    shown = " ".join(str(argument) for argument in arguments)
    try:
        done = subprocess.run(
            [str(argument) for argument in arguments],
            cwd=cwd,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if quiet else sys.stderr,
            stderr=subprocess.STDOUT if quiet else sys.stderr,
            timeout=timeout_s,
            check=False,
        )
    except FileNotFoundError as error:
        raise SetupError(f"{arguments[0]} is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise SetupError(f"no end after {timeout_s:.0f} s: {shown}") from error
    if done.returncode != 0:
        if quiet:
            sys.stderr.write(done.stdout.decode(errors="replace"))
        raise SetupError(f"failed with status {done.returncode}: {shown}")


def output(
    arguments: Sequence[str | Path], *, timeout_s: float = 30.0, environment: Mapping[str, str] | None = None
) -> str | None:
    """What a program prints on standard output, or None if it is not there, fails or takes too long."""
    try:
        done = subprocess.run(
            [str(argument) for argument in arguments],
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=timeout_s,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode(errors="replace") if done.returncode == 0 else None


def find_program(name: str, *extra_directories: Path) -> Path | None:
    """Find a program on PATH, among the system's programs for root (not on every PATH), or elsewhere."""
    places = [os.environ.get("PATH", ""), "/usr/local/sbin:/usr/sbin:/sbin", *map(str, extra_directories)]
    found = shutil.which(name, path=":".join(place for place in places if place))
    return Path(found) if found else None


def say(text: str) -> None:
    """Tell the person at the keyboard what happens."""
    print(text, file=sys.stderr, flush=True)
