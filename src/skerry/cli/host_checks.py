"""What this machine must have, how to see whether it has it, and the command that mends it. Needs no root."""

import gzip
import os
import platform
import pwd
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from skerry.spec.settings import Settings

State = Literal["ok", "warning", "missing"]

_GIB = 1 << 30
_MIN_KERNEL = (5, 10)
_PROGRAMS = {
    "conmon": "conmon",
    "ip": "iproute2",
    "losetup": "mount",
    "mkfs.ext4": "e2fsprogs",
    "mkfs.xfs": "xfsprogs",
    "nft": "nftables",
}
_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_CONTROLLERS_V1 = frozenset({"memory", "cpu", "cpuacct", "pids", "freezer"})
_CONTROLLERS_V2 = frozenset({"memory", "cpu", "pids"})
_SETUP = "make setup"
_NETWORK_FEATURES = {
    "veth": ("CONFIG_VETH", "veth"),
    "nftables": ("CONFIG_NF_TABLES", "nf_tables"),
    "nftables redirect": ("CONFIG_NFT_REDIR", "nft_redir"),
    "nftables nat": ("CONFIG_NFT_NAT", "nft_chain_nat"),
    "nftables ct": ("CONFIG_NFT_CT", "nft_ct"),
    "nftables connlimit": ("CONFIG_NFT_CONNLIMIT", "nft_connlimit"),
    "nftables reject": ("CONFIG_NFT_REJECT_INET", "nft_reject_inet"),
    "nftables fib": ("CONFIG_NFT_FIB_INET", "nft_fib_inet"),
    "nftables limit": ("CONFIG_NFT_LIMIT", "nft_limit"),
    "connection tracking": ("CONFIG_NF_CONNTRACK", "nf_conntrack"),
}
"""Symbol of the kernel's configuration, and module, for each."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at.

    Attributes:
        fix: The command, or what to do, when it is not ok.
    """

    name: str
    state: State
    detail: str
    fix: str = ""


def host_checks(settings: Settings) -> list[Check]:
    """Look at everything."""
    checks: tuple[Callable[[Settings], Iterator[Check]], ...] = (
        _machine,
        _users,
        _programs,
        _built_parts,
        _kernel_features,
        _network_features,
        _control_groups,
        _space,
    )
    return [check for find in checks for check in find(settings)]


def _machine(_: Settings) -> Iterator[Check]:
    release = platform.release()
    numbers = tuple(int(part) for part in re.findall(r"\d+", release)[:2])
    new_enough = numbers >= _MIN_KERNEL
    fix = "" if new_enough else "upgrade to a distribution with Linux 5.10 or newer"
    yield Check("kernel", "ok" if new_enough else "missing", f"Linux {release}", fix)
    machine = platform.machine()
    known = machine in ("x86_64", "aarch64")
    yield Check("processor", "ok" if known else "missing", machine, "" if known else "use an x86_64 machine")
    if os.geteuid() == 0:
        yield Check("root", "ok", "this process is root")
    elif shutil.which("sudo"):
        yield Check("root", "ok", "`skerry up` will ask by sudo")
    else:
        yield Check("root", "missing", "not root, and there is no sudo", "su -c 'skerry up'")


def _users(_: Settings) -> Iterator[Check]:
    for name in ("skerry", "skerry-egress"):
        fix = f"sudo useradd --system --no-create-home --shell /usr/sbin/nologin {name}"
        try:
            uid = pwd.getpwnam(name).pw_uid
        except KeyError:
            yield Check(f"user {name}", "missing", "does not exist", fix)
            continue
        is_root = uid == 0
        yield Check(f"user {name}", "missing" if is_root else "ok", f"uid {uid}", fix if is_root else "")


def _programs(_: Settings) -> Iterator[Check]:
    path = os.pathsep.join([os.environ.get("PATH", ""), _SYSTEM_PATH])
    for program, package in _PROGRAMS.items():
        found = shutil.which(program, path=path)
        fix = "" if found else f"sudo apt-get install {package}"
        yield Check(program, "ok" if found else "missing", found or "not found", fix)


def _built_parts(settings: Settings) -> Iterator[Check]:
    parts = {"agent": settings.agent_path, "runsc": settings.runsc_path}
    parts |= {f"image {name}": path for name, path in settings.images.items()}
    if settings.image not in settings.images:
        yield Check(f"image {settings.image}", "missing", "no such image", _SETUP)
    for name, path in parts.items():
        if path and Path(path).is_file():
            yield Check(name, "ok", path)
        else:
            yield Check(name, "missing", f"{path} does not exist" if path else "not built", _SETUP)


def _kernel_features(_: Settings) -> Iterator[Check]:
    present = {line.split()[-1] for line in _lines("/proc/filesystems")}
    listed = _modules()
    for kind in ("erofs", "overlay", "ext4", "xfs"):
        if kind in present:
            yield Check(f"file system {kind}", "ok", "in the kernel")
        elif f"/{kind}.ko" in listed:
            yield Check(f"file system {kind}", "ok", "as a module")
        elif kind == "xfs":
            yield Check("file system xfs", "warning", "missing", "keep the data directory on XFS or btrfs")
        else:
            fix = f"sudo modprobe {kind}, or a kernel that has it"
            yield Check(f"file system {kind}", "missing", "missing", fix)
    loop = Path("/dev/loop-control").exists()
    yield Check(
        "loop devices", *(("ok", "present") if loop else ("missing", "missing", "sudo modprobe loop"))
    )


def _network_features(_: Settings) -> Iterator[Check]:
    """What the gateway's interfaces and rules are made of."""
    config = _kernel_config()
    listed = _modules()
    lacking: list[str] = []
    unknown: list[str] = []
    for what, (symbol, module) in _NETWORK_FEATURES.items():
        if config.get(symbol) in ("y", "m") or f"/{module}.ko" in listed:
            continue
        (lacking if config or listed else unknown).append(what)
    if lacking:
        modules = " ".join(_NETWORK_FEATURES[what][1] for what in lacking)
        fix = f"a kernel that has them, or their modules: sudo modprobe -a {modules}"
        yield Check("network", "missing", f"the kernel lacks {', '.join(lacking)}", fix)
    elif unknown:
        fix = "skerry up says more: it makes the gateway's rules"
        yield Check("network", "warning", "the kernel does not tell what it has for nftables and veth", fix)
    else:
        yield Check("network", "ok", "veth, nftables")


def _kernel_config() -> dict[str, str]:
    """What the kernel was built with; empty when it does not say."""
    text = ""
    try:
        text = gzip.decompress(Path("/proc/config.gz").read_bytes()).decode(errors="replace")
    except OSError:
        text = "\n".join(_lines(f"/boot/config-{platform.release()}"))
    pairs = (line.partition("=") for line in text.splitlines() if line.startswith("CONFIG_"))
    return {name: value for name, _, value in pairs}


def _modules() -> str:
    """Paths of all modules that the kernel has or could load."""
    directory = Path("/lib/modules") / platform.release()
    return "\n".join([*_lines(directory / "modules.dep"), *_lines(directory / "modules.builtin")])


def _control_groups(_: Settings) -> Iterator[Check]:
    v1: set[str] = set()
    v2: set[str] = set()
    for line in _lines("/proc/mounts"):
        point, kind, options = line.split(" ")[1:4]
        if kind == "cgroup":
            v1.update(options.split(","))
        elif kind == "cgroup2":
            v2.update(" ".join(_lines(Path(point) / "cgroup.controllers")).split())
    if v2 >= _CONTROLLERS_V2:
        yield Check("control groups", "ok", "version 2")
    elif v1 >= _CONTROLLERS_V1:
        yield Check("control groups", "ok", "version 1 (hybrid)")
    else:
        lacking = ", ".join(sorted(_CONTROLLERS_V1 - v1 if v1 else _CONTROLLERS_V2 - v2))
        fix = "boot with systemd.unified_cgroup_hierarchy=1 and without cgroup_disable="
        yield Check("control groups", "missing", f"no controller {lacking}", fix)


def _space(settings: Settings) -> Iterator[Check]:
    place = Path(settings.data_dir)
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    text = f"{free / _GIB:.1f} GiB free in {place}"
    if free < 2 * _GIB:
        yield Check("disk space", "missing", text, "free some space, or choose another --data-dir")
    elif free < 10 * _GIB:
        yield Check("disk space", "warning", text, "10 GiB are comfortable")
    else:
        yield Check("disk space", "ok", text)
    available = next((line for line in _lines("/proc/meminfo") if line.startswith("MemAvailable:")), "")
    kib = int(available.split()[1]) if available else 0
    enough = kib >= 2 << 20
    fix = "" if enough else "a sandbox has 1280 MiB unless it asks for less"
    yield Check("memory", "ok" if enough else "warning", f"{kib / (1 << 20):.1f} GiB available", fix)


def _lines(path: str | Path) -> list[str]:
    try:
        return Path(path).read_text(errors="replace").splitlines()
    except OSError:
        return []
