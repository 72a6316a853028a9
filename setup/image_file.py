"""The part of the image build that needs root: packages to a root tree, and the tree to an EROFS file.

Only this machine's apt is asked how to reach its mirror; nothing of that stays in the image.
"""

import fcntl
import json
import os
import re
import subprocess
import tempfile
import tomllib
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from setup.cache import remove_tree
from setup.commands import SetupError, output, run, say
from setup.mirror import Source, configured_sources, sources_of_release

_KEYRING = "/usr/share/keyrings/debian-archive-keyring"
_IMAGE_KEYRING = "/usr/share/keyrings/debian-archive-keyring.pgp"
_APT_HELPER = "/usr/lib/apt/apt-helper"


def build_image_file(*, recipe: Path, deno: Path, directory: Path, key: str) -> None:
    """Write `rootfs.erofs` and `packages.json` into a directory.

    Args:
        recipe: The directory with `recipe.toml`, `customize.sh` and `files/`.
        deno: Deno's binary.
        directory: Where to write.
        key: Hash of the recipe; the file system's UUID comes from it.
    Raises:
        SetupError: The mirror, the keyring or a package failed. Nothing is left on the host.
    """
    choices = tomllib.loads((recipe / "recipe.toml").read_text())
    # Set-user-ID programs appear in the tree: nobody else on this host may reach them, now or after a crash.
    with _private_directory(Path("/var/tmp"), "skerry-image-") as scratch:  # noqa: S108 (mkdtemp makes it)
        sources = _usable_sources(choices["suite"], scratch)
        tree = scratch / "rootfs"
        _bootstrap(choices, sources, recipe, deno, scratch, tree)
        (directory / "packages.json").write_text(_package_list(tree))
        _write_erofs(tree, directory / "rootfs.erofs", key, epoch=(scratch / "epoch").read_text().strip())


@contextmanager
def _private_directory(parent: Path, prefix: str) -> Iterator[Path]:
    """A directory for root only. Removes those of dead builds: a living one holds a lock on its own."""
    for leftover in parent.glob(f"{prefix}*"):
        if leftover.stat().st_uid == 0 and (lock := _try_lock(leftover)) is not None:
            remove_tree(leftover)
            os.close(lock)
    scratch = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    lock = _try_lock(scratch)
    try:
        yield scratch
    finally:
        remove_tree(scratch)
        if lock is not None:
            os.close(lock)


def _try_lock(directory: Path) -> int | None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _usable_sources(suite: str, scratch: Path) -> list[Source]:
    """Those of the machine's archives that have the release, signed by a key that this machine has.

    Returns:
        Empty on a machine without a Debian mirror, such as Ubuntu: mmdebstrap's own default serves.
    Raises:
        SetupError: The release itself cannot be used.
    """
    usable = []
    for source in sources_of_release(configured_sources(), suite):
        problem = _why_unusable(source, scratch / "InRelease")
        if problem is None:
            usable.append(source)
        elif source.suite == suite:
            raise SetupError(f"the base image needs Debian {suite} from {source.uri}: {problem}")
        else:
            say(f"base image: goes without {source.suite}: {problem}")
    return usable


def _why_unusable(source: Source, release_file: Path) -> str | None:
    release_file.unlink(missing_ok=True)
    address = f"{source.uri}/dists/{source.suite}/InRelease"
    if output([_APT_HELPER, "download-file", address, release_file], timeout_s=120.0) is None:
        return "this machine's apt cannot fetch its InRelease file"
    # gpgv fails if one of several signatures is unknown; apt, and so this, wants at least one that is good.
    checked = subprocess.run(
        ["gpgv", "--status-fd", "1", "--keyring", _keyring(), release_file],
        capture_output=True,
        timeout=60,
        check=False,
    )
    if b"[GNUPG:] VALIDSIG " not in checked.stdout:
        return "none of this machine's keys signed it; install a newer debian-archive-keyring"
    return None


def _keyring() -> str:
    for path in (f"{_KEYRING}.pgp", f"{_KEYRING}.gpg"):
        if Path(path).exists():
            return path
    raise SetupError("the package debian-archive-keyring is not installed")


def _bootstrap(
    choices: dict[str, Any], sources: Sequence[Source], recipe: Path, deno: Path, scratch: Path, tree: Path
) -> None:
    suite, components = choices["suite"], " ".join(choices["components"])
    apt_options = scratch / "apt.conf"
    apt_options.write_text(_apt_options())
    own_sources = scratch / "debian.sources"
    own_sources.write_text(_sources_inside(sources, components) if sources else "")
    arguments = ["mmdebstrap", "--mode=root", "--variant=essential", "--format=directory", "--quiet"]
    arguments += ["--skip=cleanup/run"]  # the recipe makes mount points there
    arguments += [f"--keyring={_keyring()}", f"--components={','.join(choices['components'])}"]
    arguments += [f"--include={','.join(choices['packages'])}", f"--aptopt={apt_options}"]
    arguments += ['--aptopt=APT::Install-Recommends "false"']
    arguments += [f"--dpkgopt={option}" for option in choices["dpkg_options"]]
    arguments += [f'--customize-hook="{recipe}/customize.sh" "$1"', suite, str(tree)]
    arguments += [f"deb {source.uri} {source.suite} {components}" for source in sources]
    run(
        arguments,
        environment={
            "DENO": str(deno),
            "FILES": str(recipe / "files"),
            "SOURCES": str(own_sources),
            "EPOCH": str(scratch / "epoch"),
            "LC_ALL": "C.UTF-8",
            "TMPDIR": str(scratch),
        },
        timeout_s=1200,
    )


def _apt_options() -> str:
    """How this machine's apt reaches archives (proxies, certificates); mmdebstrap does not look."""
    dump = output(["apt-config", "dump"]) or ""
    kept = [
        line
        for line in dump.splitlines()
        if re.match(r"Acquire::(https?|ftp|Retries|ForceIPv|Check-|Languages)", line)
        and not line.endswith('"";')
    ]
    credentials = Path("/etc/apt/auth.conf.d")
    if credentials.is_dir():
        kept.append(f'Dir::Etc::netrcparts "{credentials}";')
    return "\n".join(kept) + "\n"


def _sources_inside(sources: Sequence[Source], components: str) -> str:
    """The image's own apt sources: those of a stock Debian, or none if this machine's mirror is private."""
    if not all(source.is_public for source in sources):
        return "# Built from a private mirror. Add sources that can be reached from the sandbox.\n"
    stanza = "Types: deb\nURIs: {}\nSuites: {}\nComponents: {}\nSigned-By: {}\n"
    return "\n".join(
        stanza.format(source.uri, source.suite, components, _IMAGE_KEYRING) for source in sources
    )


def _package_list(tree: Path) -> str:
    form = "${Package}\\t${Version}\\t${Architecture}\\n"
    printed = output(["dpkg-query", f"--admindir={tree}/var/lib/dpkg", "-W", "-f", form]) or ""
    names = ("package", "version", "architecture")
    packages = [dict(zip(names, line.split("\t"), strict=True)) for line in printed.splitlines()]
    return json.dumps(packages, indent=1) + "\n"


def _write_erofs(tree: Path, file: Path, key: str, *, epoch: str) -> None:
    """Write the tree as a file system: uncompressed, because gVisor reads nothing else.

    What the build itself wrote gets the date of the archives it was built from. Files out of packages are
    older and keep their time: Python compares it with what its compiled files say.

    Args:
        epoch: That date, in seconds since 1970.
    """
    identity = uuid.uuid5(uuid.NAMESPACE_OID, key)
    run(
        ["mkfs.erofs", "--preserve-mtime", f"-U{identity}", file, tree],
        environment={"SOURCE_DATE_EPOCH": epoch},
        quiet=True,
        timeout_s=600,
    )
