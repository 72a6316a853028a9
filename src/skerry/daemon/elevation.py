"""Become root by one announced sudo(8)."""

import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from typing import NoReturn

from skerry.cli.output import note
from skerry.errors import HostUnusable


def is_root() -> bool:
    """Whether this process is root."""
    return os.geteuid() == 0


def run_as_root(verb: Sequence[str], *, why: str) -> NoReturn:
    """Replace this process by the same program run as root, with this verb and its arguments.

    Never through a shell; of the environment only the SKERRY_ variables go along.

    Raises:
        HostUnusable: There is no sudo.
    """
    # -B: no files of root's among the sources of the person who asks.
    again = [sys.executable, "-I", "-B", "-m", "skerry", *verb]
    sudo = shutil.which("sudo")
    if sudo is None:
        line = shlex.join(again)
        raise HostUnusable(f"root is needed {why}, and there is no sudo here: run this as root: {line}")
    kept = sorted(name for name in os.environ if name.startswith("SKERRY_"))
    note(f"skerry: root is needed {why}: sudo may ask for your password")
    keep = [f"--preserve-env={','.join(kept)}"] if kept else []
    os.execv(sudo, ["sudo", *keep, "--", *again])  # noqa: S606 - no shell is wanted
