"""The root image `builtin:debian-13` as `make setup` built it: what must be in it, and what must not."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from hashlib import file_digest
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from setup.mirror import configured_sources
from tests.conftest import Built

pytestmark = pytest.mark.needs_root

APP_ID = 1000
ERROR_LIMIT = 400


@pytest.fixture(scope="module")
def root(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The image, mounted."""
    place = tmp_path_factory.mktemp("root")
    subprocess.run(["mount", "-t", "erofs", "-o", "loop,ro", built.image, place], check=True, timeout=30)
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True, timeout=30)


def inside(root: Path, command: str, *, user: str = "app") -> str:
    """What a command prints in a login shell of the image, without network.

    A sandbox runs it under gVisor; a chroot is enough to see what the image brings.
    """
    enter = 'mount -t proc proc "$0/proc" && exec chroot "$0" su --login "$1" --command "$2"'
    done = subprocess.run(
        ["unshare", "--net", "--mount", "--pid", "--fork", "sh", "-c", enter, root, user, command],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-ERROR_LIMIT:]
    return done.stdout.strip()


def text_files(directory: Path) -> Iterator[tuple[Path, str]]:
    """Every regular file below a directory, links not followed."""
    for path in directory.rglob("*"):
        if path.is_file() and not path.is_symlink():
            yield path, path.read_text(errors="replace")


def test_the_digest_is_that_of_the_file(built: Built) -> None:
    with built.image.open("rb") as image:
        assert built.image_digest == f"sha256:{file_digest(image, 'sha256').hexdigest()}"


def test_the_package_list_beside_it_names_what_the_recipe_asks_for(built: Built) -> None:
    names = {row["package"] for row in json.loads(built.image.with_name("packages.json").read_text())}

    assert {"bash", "coreutils", "git", "curl", "sudo", "python3", "python3-venv", "nodejs", "npm"} <= names


@pytest.mark.parametrize(
    ("command", "pattern"),
    [
        ("bash --version", r"GNU bash"),
        ("git --version", r"git version 2"),
        ("curl --version", r"curl \d"),
        ("python3 --version", r"Python 3\.13"),
        ("node --version", r"v20\."),
        ("npm --version", r"\d+\.\d+"),
        ("npx --version", r"\d+\.\d+"),
        ("deno --version", r"deno 2\."),
        ("ps --version", r"procps"),
        ("ip -V", r"iproute2"),
        ("less --version", r"less \d"),
    ],
)
def test_a_tool_runs_without_network(root: Path, command: str, pattern: str) -> None:
    # Deno and npm want to write below the home directory, which is read-only here.
    assert re.search(pattern, inside(root, f"HOME=/nonexistent {command}"))


def test_the_user_app(root: Path) -> None:
    assert inside(root, "id -u; id -g; echo $HOME; echo $SHELL; pwd").split() == [
        str(APP_ID),
        str(APP_ID),
        "/home/app",
        "/bin/bash",
        "/home/app",
    ]
    assert inside(root, "sudo --non-interactive id -u") == "0"
    for directory in ("app", "home/app"):
        status = (root / directory).stat()
        assert (status.st_uid, status.st_gid) == (APP_ID, APP_ID)
    assert (root / "etc/sudoers.d/app").stat().st_mode & 0o777 == 0o440


def test_login_shells_have_a_sane_path_whatever_they_were_given(root: Path) -> None:
    path = inside(root, "PATH=/nowhere /bin/bash --login -c 'echo $PATH'").split(":")

    assert path[0] == "/home/app/.local/bin"
    assert {"/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin"} <= set(path)


def test_mount_points_are_empty_directories(root: Path) -> None:
    for name in ("run/skerry", ".skerry", "data", "proc", "sys", "tmp"):
        assert list((root / name).iterdir()) == []


def test_names_resolve_without_a_network(root: Path) -> None:
    assert "127.0.0.1" in inside(root, "getent ahosts localhost")
    assert "myhostname" in (root / "etc/nsswitch.conf").read_text()
    assert "nameserver" not in (root / "etc/resolv.conf").read_text()
    assert (root / "etc/hostname").read_text() == "sandbox\n"
    assert (root / "etc/machine-id").read_text() == ""


def test_python_finds_its_compiled_files_fresh(root: Path) -> None:
    # A stale one would be compiled anew by every process of every sandbox.
    verbose = inside(root, "python3 -v -c 'import asyncio, json, http.client' 2>&1")

    assert re.search(r"matches /usr/lib/python3\.13/json/__init__\.py", verbose)
    assert "bytecode is stale" not in verbose
    assert re.findall(r"code object from '[^']*\.py'", verbose) == []


def test_only_certificate_authorities_of_the_package_are_trusted(root: Path) -> None:
    bundle = (root / "etc/ssl/certs/ca-certificates.crt").read_text()
    shipped = "".join(
        path.read_text() for path in sorted((root / "usr/share/ca-certificates").rglob("*.crt"))
    )

    certificates = re.findall(r"-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----", bundle)
    assert len(certificates) > 100
    assert [one for one in certificates if one not in shipped] == []
    assert list((root / "usr/local/share").rglob("*.crt")) == []


def test_this_machine_s_own_certificate_authorities_are_not_in_the_image(root: Path) -> None:
    own = [
        body
        for file in Path("/usr/local/share/ca-certificates").rglob("*.crt")
        for body in re.findall(r"-----BEGIN CERTIFICATE-----\s+(\S+)", file.read_text())
    ]
    found = [path for path, text in text_files(root / "etc") if any(body in text for body in own)]

    assert found == []


def private_hosts() -> set[str]:
    """Every host that this machine's package tools are pointed at, but the Debian project's own."""
    addresses = [source.uri for source in configured_sources() if not source.is_public]
    said = [" ".join(os.environ.values())]
    for command in (["apt-config", "dump"], ["pip", "config", "list"]):
        if shutil.which(command[0]):
            done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
            said.append(done.stdout)
    said += [file.read_text() for file in (Path.home() / ".npmrc", Path("/etc/npmrc")) if file.is_file()]
    addresses += [address for text in said for address in re.findall(r"https?://[^\s'\";,]+", text)]
    return {host for address in addresses if (host := urlsplit(address).hostname)}


def test_the_image_says_nothing_about_this_machine_s_mirrors_and_proxies(root: Path) -> None:
    hosts = private_hosts() | {os.uname().nodename}
    pattern = re.compile(
        "|".join(rf"(?<![\w.-]){re.escape(host)}(?![\w.-])" for host in hosts if len(host) > 3)
    )
    found = [
        path.relative_to(root)
        for directory in ("etc", "root", "home", "var/lib/apt", "var/log", "usr/local/share")
        for path, text in text_files(root / directory)
        if pattern.pattern and pattern.search(text)
    ]

    assert found == []
    assert not (root / "etc/apt/apt.conf.d/99mmdebstrap").exists()
    assert list((root / "etc/apt/auth.conf.d").iterdir()) == []


def test_nothing_is_in_it_that_only_the_build_needed(root: Path) -> None:
    for directory in ("var/lib/apt/lists", "var/cache/apt", "var/log"):
        assert [
            path for path in (root / directory).rglob("*") if path.is_file() and path.stat().st_size
        ] == []
    assert list((root / "usr/share/man").rglob("*.gz")) == []
    assert (root / "usr/share/doc/bash/copyright").is_file()


def test_nothing_is_younger_than_the_archives_it_was_built_from(root: Path) -> None:
    newest = max(path.lstat().st_mtime for path in root.rglob("*"))
    made_by_the_recipe = (root / "run/skerry").stat().st_mtime

    assert newest == made_by_the_recipe
