"""What comes as wheels, locked by hash: the Python environment, and tools that are packed so."""

import platform
import venv
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from setup.cache import ensure, fingerprint, remove_tree
from setup.commands import run, say

_PIP = ("-m", "pip", "--disable-pip-version-check", "--no-input", "-q")
_LOCKED = ("--require-hashes", "--no-deps", "--only-binary", ":all:")


def create_environment(directory: Path) -> None:
    """Make an empty virtual environment with pip in it."""
    venv.create(directory, with_pip=True, clear=True, symlinks=True)


def install_locked(python: Path, lock: Path) -> None:
    """Install exactly what a lock file names into the environment of an interpreter."""
    run([python, *_PIP, "install", *_LOCKED, "-r", lock], timeout_s=1200)


def tool(name: str, lock: Path, programs: Mapping[str, str]) -> Path:
    """Have a locked tool unpacked in the cache.

    Args:
        name: What it is called.
        lock: Names its wheel.
        programs: Where each of its programs lies in the wheel.
    Returns:
        A directory with these programs.
    """

    def build(directory: Path) -> None:
        say(f"installing {name} from its wheel")
        with _pip() as pip:
            run([*pip, "install", *_LOCKED, "--target", directory, "-r", lock], timeout_s=1200)
        # Not the wrappers that pip made: they name an interpreter by a path that does not last.
        remove_tree(directory / "bin")
        (directory / "bin").mkdir()
        for program, place in programs.items():
            (directory / place).chmod(0o755)
            (directory / "bin" / program).symlink_to(Path("..") / place)

    key = fingerprint([lock, *programs.values(), platform.machine()])
    return ensure("tools", f"{name}-{key}", build) / "bin"


def download(lock: Path, directory: Path) -> None:
    """Fetch the one wheel that a lock file names, checked by its hash, into a directory."""
    with _pip() as pip:
        run([*pip, "download", *_LOCKED, "-d", directory, "-r", lock], timeout_s=1200)


@contextmanager
def _pip() -> Iterator[list[str | Path]]:
    """A pip that needs nothing but this interpreter."""
    with TemporaryDirectory(prefix="skerry-pip-") as scratch:
        create_environment(Path(scratch))
        yield [Path(scratch) / "bin" / "python", *_PIP]
