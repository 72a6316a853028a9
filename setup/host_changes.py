"""What root changes on the host: packages and system users.

Every change is recorded before it is made, so that it can be undone.
"""

import json
import pwd
import re
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from setup.commands import SetupError, output, run, say
from setup.places import HOST_CHANGES

USERS = ("skerry", "skerry-egress")
"""Whom api and egressd run as."""

_APT = {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
_QUIET_SERVICES = {"nginx": ("nginx.service",), "openssh-server": ("ssh.service", "ssh.socket")}
"""Services that a package starts and that Skerry needs only the program of."""


@dataclass(slots=True)
class Changes:
    """What was not there before.

    Attributes:
        packages: Debian packages, those that came as dependencies too.
        users: System users.
    """

    packages: list[str] = field(default_factory=list)
    users: list[str] = field(default_factory=list)

    def save(self) -> None:
        """Write the record in one step."""
        HOST_CHANGES.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        partial = HOST_CHANGES.with_suffix(".partial")
        partial.write_text(json.dumps(asdict(self), indent=1) + "\n")
        partial.replace(HOST_CHANGES)


def recorded() -> Changes:
    """What the set-up has changed so far."""
    return Changes(**json.loads(HOST_CHANGES.read_text())) if HOST_CHANGES.exists() else Changes()


def missing_users() -> list[str]:
    """The system users that are not there yet."""
    return [name for name in USERS if not _user_exists(name)]


def _user_exists(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def create_users() -> None:
    """Create the system users that are missing: no home, no shell, no password, a group of the same name."""
    for name in missing_users():
        changes = recorded()
        changes.users.append(name)
        changes.save()
        options = ["--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent"]
        run(["useradd", *options, "--shell", "/usr/sbin/nologin", name], timeout_s=60)


def update_package_lists() -> None:
    """Refresh apt's lists. A source that cannot be reached is not fatal: the packages may be in another."""
    try:
        run(["apt-get", "-q", "update"], environment=_APT, timeout_s=600, quiet=True)
    except SetupError as error:
        say(f"warning: {error}")


def install_packages(packages: Sequence[str]) -> None:
    """Install Debian packages without removing any.

    Raises:
        SetupError: apt refused, or would have to remove something for it.
    """
    arguments = ["--no-install-recommends", "--no-remove", *packages]
    update_package_lists()
    new = _actions("Inst", ["install", *arguments])
    changes = recorded()
    changes.packages = sorted({*changes.packages, *(name for name in new if not _is_installed(name))})
    changes.save()
    run(["apt-get", "-q", "-y", "install", *arguments], environment=_APT, timeout_s=1800)
    if shutil.which("systemctl") and Path("/run/systemd/system").is_dir():
        for package in set(new) & set(_QUIET_SERVICES):
            run(["systemctl", "disable", "--now", *_QUIET_SERVICES[package]], timeout_s=60, quiet=True)


def _is_installed(package: str) -> bool:
    status = output(["dpkg-query", "-W", "-f", "${Status}", package]) or ""
    return status.endswith(" installed")


def _actions(verb: str, arguments: Sequence[str]) -> list[str]:
    """The packages that an apt-get call would install ("Inst") or remove ("Remv", "Purg")."""
    printed = output(["apt-get", "--simulate", *arguments], environment=_APT, timeout_s=120)
    if printed is None:
        run(["apt-get", "--simulate", *arguments], environment=_APT, timeout_s=120)
        raise SetupError(f"apt-get refuses: {' '.join(arguments)}")
    return re.findall(rf"^(?:{verb}) (\S+)", printed, re.MULTILINE)


def undo() -> None:
    """Remove the recorded packages and users, and the record. What was there before stays.

    Raises:
        SetupError: A user still runs something, or apt refused.
    """
    changes = recorded()
    for name in changes.users:
        if _user_exists(name):
            run(["userdel", name], timeout_s=60)
    installed = [name for name in changes.packages if _is_installed(name)]
    if removable := _no_longer_needed(installed):
        run(["apt-get", "-q", "-y", "purge", *removable], environment=_APT, timeout_s=1800)
    if kept := sorted(set(installed) - set(removable)):
        say(f"stays, because other packages need it: {' '.join(kept)}")
    HOST_CHANGES.unlink(missing_ok=True)
    if HOST_CHANGES.parent.is_dir():
        HOST_CHANGES.parent.rmdir()


def _no_longer_needed(packages: Sequence[str]) -> list[str]:
    """Those that nothing else on the host has come to depend on since, as apt sees it.

    They count as brought by others from now on (apt-mark(8)), so that apt removes the rest once it is free.
    """
    if not packages:
        return []
    run(["apt-mark", "auto", *packages], environment=_APT, quiet=True, timeout_s=120)
    strict = ["-o", "APT::AutoRemove::RecommendsImportant=0", "-o", "APT::AutoRemove::SuggestsImportant=0"]
    free = set(_actions("Remv|Purg", [*strict, "autoremove"])) & set(packages)
    if foreign := set(_actions("Remv|Purg", ["purge", *sorted(free)])) - free:
        raise SetupError(f"apt would remove {' '.join(sorted(foreign))} too: see to it with `apt autoremove`")
    return sorted(free)
