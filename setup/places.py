"""Where the set-up keeps things."""

import os
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent

BUILD = REPOSITORY / "build"
"""What belongs to this checkout and can be made again."""

VENV = REPOSITORY / ".venv"

MITMPROXY = BUILD / "mitmproxy"
"""An environment of its own: what mitmproxy depends on cannot be installed beside what Skerry depends on."""

MANIFEST = BUILD / "setup.json"
"""Names what was built; `skerry.cli` reads it."""

ENVIRONMENT = BUILD / "env.sh"
"""PATH with the toolchains that were found or installed; the Makefile's recipes source it."""

HOST_CHANGES = Path("/var/lib/skerry-setup/changes.json")
"""What was changed on the host, so that `make uninstall` undoes exactly that. Root's."""


def cache_directory() -> Path:
    """The invoking user's cache, shared by all checkouts."""
    if chosen := os.environ.get("SKERRY_CACHE_DIR"):
        return Path(chosen).absolute()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache").absolute() / "skerry"
