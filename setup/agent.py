"""The agent: a static Rust binary that runs in every guest, whatever its image holds."""

import platform
from pathlib import Path

from setup.cache import ensure, fingerprint
from setup.commands import run, say
from setup.places import BUILD, REPOSITORY
from setup.toolchains import Toolchain

_WORKSPACE = REPOSITORY / "guest"
_FLAGS = "-C target-feature=+crt-static"


def build_agent(rust: Toolchain) -> Path:
    """Have the agent built from this checkout's sources.

    Returns:
        The binary.
    """
    target = f"{platform.machine()}-unknown-linux-gnu"

    def build(directory: Path) -> None:
        say("building the agent")
        scratch = BUILD / "agent-target"
        command: list[str | Path] = [rust.directory / "cargo", "build", "--release", "--locked", "-q"]
        command += ["-p", "skerry-agent", "--target", target, "--target-dir", scratch]
        run(
            command,
            cwd=_WORKSPACE,
            environment={"RUSTFLAGS": _FLAGS, "PATH": rust.search_path()},
            timeout_s=1800,
        )
        (directory / "skerry-agent").write_bytes((scratch / target / "release" / "skerry-agent").read_bytes())
        (directory / "skerry-agent").chmod(0o755)

    key = fingerprint([_WORKSPACE, _FLAGS, target, rust.version], skip=frozenset({"target"}))
    return ensure("agent", key, build) / "skerry-agent"
