"""Everything works when interpreter, libraries and checkout lie where only root can look.

The api, which is not root, has loaded all it needs before it became a plain user.
"""

import importlib.metadata
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from skerry.cli.manifest import REPOSITORY
from skerry.daemon.data_dir import API_USER, EGRESS_USER
from tests.conftest import Built
from tests.harness.skerry_up import SkerryUp

pytestmark = [pytest.mark.needs_root, pytest.mark.timeout(180)]

STDLIB = Path(sysconfig.get_paths()["stdlib"])

LEFT_OUT = ("test", "site-packages", "ensurepip", "idlelib", "lib2to3", "pydoc_data", "tkinter", "turtledemo")

IN_OWN_NAMESPACE = """
set -e
mount --make-rprivate /
mount --bind "$1" "$2"
shift 2
exec "$@"
"""
"""Puts a directory that only root can enter in the place of the standard library, for one process tree."""


def required(name: str, found: set[str]) -> set[str]:
    """The distribution and all that it needs here."""
    key = name.lower().replace("_", "-")
    if key not in found:
        found.add(key)
        for line in importlib.metadata.requires(key) or []:
            need = Requirement(line)
            if need.marker is None or need.marker.evaluate({"extra": ""}):
                required(need.name, found)
    return found


@pytest.fixture(scope="module")
def private_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout with an environment of its own, below a directory with mode 0700."""
    home = tmp_path_factory.mktemp("home")
    home.chmod(0o700)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", home / "venv"], check=True, timeout=60)
    (packages,) = (home / "venv").glob("lib/python*/site-packages")
    for name in required("skerry", set()) - {"skerry"}:
        for file in importlib.metadata.files(name) or []:
            source = Path(str(file.locate()))
            if ".." not in file.parts and source.is_file():
                (packages / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(source, packages / file)
    shutil.copytree(REPOSITORY / "src", home / "src", ignore=shutil.ignore_patterns("__pycache__"))
    (packages / "skerry.pth").write_text(f"{home / 'src'}\n")
    stdlib = home / "stdlib"
    shutil.copytree(STDLIB, stdlib, symlinks=True, ignore=shutil.ignore_patterns(*LEFT_OUT))
    stdlib.chmod(0o700)
    return home


@pytest.fixture
def skerry(private_home: Path, built: Built) -> Iterator[SkerryUp]:
    """One that runs from there."""
    python = private_home / "venv" / "bin" / "python"
    inside = ["sh", "-c", IN_OWN_NAMESPACE, "sh", str(private_home / "stdlib"), str(STDLIB)]
    made = SkerryUp(
        private_home / "data",
        program=("unshare", "--mount", *inside, str(python), "-I", "-m", "skerry"),
    )
    made.environment |= {
        "SKERRY_AGENT_PATH": str(built.agent),
        "SKERRY_RUNSC_PATH": str(built.runsc),
        "SKERRY_POOL_SIZE": "1",
    }
    config = private_home / "skerry.toml"
    image = '"builtin:debian-13"'
    config.write_text(
        f'[images]\n{image} = "{built.image}"\n[image_digests]\n{image} = "{built.image_digest}"\n'
    )
    made.environment["SKERRY_CONFIG"] = str(config)
    yield made
    made.command("down", expect=None)
    assert made.leftovers() == []


def seen_by(pid: int, user: str, places: tuple[Path, ...]) -> list[Path]:
    """Those that a user can list, in the mount namespace of a process."""
    inside = ["nsenter", f"--mount=/proc/{pid}/ns/mnt", "setpriv", f"--reuid={user}", f"--regid={user}"]
    return [
        place
        for place in places
        if not subprocess.run(
            [*inside, "--clear-groups", "ls", str(place)], capture_output=True, check=False, timeout=30
        ).returncode
    ]


def test_a_whole_round_with_errors_needs_no_file_of_the_interpreter(
    skerry: SkerryUp, private_home: Path
) -> None:
    skerry.up()
    hidden = (private_home / "src", private_home / "venv", STDLIB)
    for name, user, state in (
        ("api", API_USER, skerry.runtime.state),
        ("egressd", EGRESS_USER, skerry.runtime.egress_state),
    ):
        assert seen_by(skerry.processes()[name].process.pid, user, (*hidden, state)) == [state]
    sandbox_id = skerry.text("create", "--timeout", "5m", "--label", "name=größe")
    assert skerry.text("exec", sandbox_id, "echo works") == "works"
    (private_home / "file").write_bytes(os.urandom(500_000))
    skerry.command("cp", str(private_home / "file"), f"{sandbox_id}:file")
    skerry.command("cp", f"{sandbox_id}:file", str(private_home / "back"))
    assert (private_home / "back").read_bytes() == (private_home / "file").read_bytes()
    # Errors of every kind, which take other paths through the code than success does.
    skerry.command("exec", sandbox_id, "no-such-program", "x", expect=127)
    skerry.command("exec", sandbox_id.replace("_ord_", "_ams_"), "true", expect=4)
    skerry.command("cp", f"{sandbox_id}:/etc/shadow", str(private_home), expect=1)
    skerry.command("create", "--memory", "1", "--timeout", "1m", expect=2)
    skerry.command("token", "revoke", "tok_none", expect=4)
    skerry.command("logs", sandbox_id, "99999", expect=4)
    skerry.json("status")
    made = skerry.json("token", "create", "other", "--expires", "1h")
    skerry.json("token", "list")
    skerry.command("token", "revoke", made["view"]["token_id"])
    skerry.command("extend", sandbox_id, "10m")
    skerry.kill("hostd")
    assert skerry.text("exec", sandbox_id, "echo again") == "again"
    # A worker of the gateway, which denies an address and looks for a name. While both daemons that know the
    # sandbox's sockets are away, connections are refused.
    patience = "--retry 20 --retry-delay 1 --retry-connrefused"
    fetch = f"curl -sS {patience} -o /dev/null -w '%{{http_code}}' http://10.0.0.1"
    for _ in range(2):
        assert skerry.text("exec", sandbox_id, fetch) == "403"
        # Whatever the host's resolver says of it.
        skerry.command("exec", sandbox_id, "curl -sS -m 20 http://no-such-name.example", expect=None)
        skerry.kill("egressd")
    skerry.kill("api")
    skerry.command("kill", sandbox_id)
    skerry.json("list")
    for name in ("api", "egressd"):
        log = (skerry.data.logs / f"{name}.log").read_text()
        for defect in ("late_import", "Traceback", "worker failed", "worker defect", "worker_crashed"):
            assert defect not in log, name
