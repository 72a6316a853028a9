"""The steps that need root.

As a program it serves them, one JSON object a line, to the `setup.elevation.Root` that started it by sudo.
"""

import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from setup import host_changes
from setup.commands import SetupError
from setup.image_file import build_image_file

Argument = str | list[str]


def _build_image(*, recipe: str, deno: str, directory: str, key: str) -> None:
    build_image_file(recipe=Path(recipe), deno=Path(deno), directory=Path(directory), key=key)
    # The cache is the invoking user's.
    owner = (int(os.environ.get("SUDO_UID", "0")), int(os.environ.get("SUDO_GID", "0")))
    for file in Path(directory).iterdir():
        os.chown(file, *owner, follow_symlinks=False)


_STEPS: Mapping[str, Callable[..., None]] = {
    "build_image": _build_image,
    "create_users": host_changes.create_users,
    "install_packages": host_changes.install_packages,
    "undo": host_changes.undo,
    "update_package_lists": host_changes.update_package_lists,
}


def perform(step: str, arguments: Mapping[str, Argument]) -> None:
    """Do one step in this process, which is root."""
    _STEPS[step](**arguments)


def _serve() -> None:
    os.umask(0o022)
    for line in sys.stdin:
        request = json.loads(line)
        problem = None
        try:
            perform(request["step"], request["arguments"])
        except (SetupError, OSError) as error:
            problem = str(error)
        print(json.dumps({"problem": problem}), flush=True)


if __name__ == "__main__":
    _serve()
