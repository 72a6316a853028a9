"""gVisor's runsc: the machine's own if it is recent enough, else built from the pinned Go module."""

import os
import platform
import re
from pathlib import Path

from setup import toolchains
from setup.cache import ensure, fingerprint, remove_tree
from setup.commands import SetupError, find_program, output, run, say
from setup.places import REPOSITORY

_MODULE = REPOSITORY / "third_party" / "runsc"
_PACKAGE = "gvisor.dev/gvisor/runsc"
_BUILD_FLAGS = ("-trimpath", "-mod=readonly", "-buildvcs=false")

MIN_DATE = "20260905"
"""Releases from before about mid 2026 burn 4 % of a core per idle sandbox; this is the first seen not to."""


def existing_runsc() -> Path | None:
    """The runsc of the setting or on PATH.

    It is used in place: a release may be split into runsc and ``gvisor-bin/`` beside it.

    Raises:
        SetupError: The setting names one that cannot be used.
    """
    if chosen := os.environ.get("SKERRY_RUNSC_PATH"):
        if not is_recent(Path(chosen)):
            raise SetupError(
                f"SKERRY_RUNSC_PATH={chosen} is no runsc of {MIN_DATE} or later; unset it to have one built"
            )
        return Path(chosen).resolve()
    found = find_program("runsc")
    return found.resolve() if found and is_recent(found) else None


def is_recent(runsc: Path) -> bool:
    """Whether this is a runsc that leaves idle sandboxes idle."""
    printed = output([runsc, "--version"]) or ""
    date = re.search(r"\d{8}", printed)
    return date is not None and date.group() >= MIN_DATE


def runsc_key() -> str:
    """What the build is named by in the cache."""
    pins = [_MODULE / name for name in ("go.mod", "go.sum", "tools.go")]
    return fingerprint([*pins, _linker_flags(), *_BUILD_FLAGS, platform.machine()])


def build_runsc() -> Path:
    """Have the pinned runsc built.

    Returns:
        The binary.
    """

    def build(directory: Path) -> None:
        go = toolchains.go().directory / "go"
        say("building runsc (about a minute on two cores)")
        scratch = directory / "go"
        run(
            [go, "build", *_BUILD_FLAGS, f"-ldflags={_linker_flags()}", "-o", directory / "runsc", _PACKAGE],
            cwd=_MODULE,
            environment={
                "CGO_ENABLED": "0",
                "GOTOOLCHAIN": "local",
                "GOPATH": str(scratch / "path"),
                "GOMODCACHE": str(scratch / "modules"),
                "GOCACHE": str(scratch / "objects"),
            },
            quiet=True,
            timeout_s=1800,
        )
        remove_tree(scratch)

    return ensure("runsc", runsc_key(), build) / "runsc"


def _linker_flags() -> str:
    """The module does not say its version by itself; runsc states it in checkpoints and to `--version`."""
    found = re.search(r"gvisor\.dev/gvisor v0\.0\.0-(\d{14}-[0-9a-f]{12})", (_MODULE / "go.mod").read_text())
    if found is None:
        raise SetupError("third_party/runsc/go.mod pins no version of gVisor")
    return f"-s -w -X gvisor.dev/gvisor/runsc/version.version=module-{found.group(1)}"
