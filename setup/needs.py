"""The Debian packages that Skerry needs from the host, and what for.

A need is met by what is on the machine, not by a package's name: who has the program from elsewhere keeps it.
"""

import importlib.util
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from setup.commands import find_program


@dataclass(frozen=True, slots=True)
class Need:
    """One Debian package and how to see that it is not needed any more.

    Attributes:
        package: What to install.
        met: Tells whether what the package brings is there.
    """

    package: str
    met: Callable[[], bool]


def _program(package: str, *names: str) -> Need:
    wanted = names or (package,)
    return Need(package, lambda: all(find_program(name) for name in wanted))


def _file(package: str, pattern: str) -> Need:
    return Need(package, lambda: any(Path("/").glob(pattern)))


RUNTIME = (
    _program("conmon"),
    _program("e2fsprogs", "mkfs.ext4"),
    _program("iproute2", "ip"),
    _program("mount", "mount", "losetup"),
    _program("nftables", "nft"),
    _program("passwd", "useradd"),
    _program("xfsprogs", "mkfs.xfs"),
)
"""What the daemons and the drivers start."""

PYTHON = (
    _file("ca-certificates", "etc/ssl/certs/ca-certificates.crt"),
    Need("python3-venv", lambda: importlib.util.find_spec("ensurepip") is not None),
)
"""What the virtual environment is made with."""

COMPILER = (
    _file("libc6-dev", "usr/lib/*/libc.a"),
    _program("gcc", "cc"),
)
"""What Rust links with."""

BUILD = (
    *COMPILER,
    _file("debian-archive-keyring", "usr/share/keyrings/debian-archive-keyring.*"),
    _program("erofs-utils", "mkfs.erofs"),
    _program("gpgv"),
    _program("mmdebstrap"),
)
"""What the agent and the base image are made with."""

BENCH = (
    _file("libnginx-mod-stream", "usr/lib/nginx/modules/ngx_stream_module.so"),
    _program("nginx"),
    _program("openssh-client", "ssh", "sftp"),
    _program("openssh-server", "sshd"),
    _program("runc"),
    _program("wrk"),
)
"""What Skerry is measured beside, and with."""


def missing(needs: Iterable[Need]) -> list[str]:
    """The packages to install, sorted."""
    return sorted(need.package for need in needs if not need.met())
