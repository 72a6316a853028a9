"""The OCI configuration of a gVisor sandbox, as data. Pure.

Source: https://github.com/opencontainers/runtime-spec/blob/v1.2.1/config.md; what runsc does with it:
runsc/boot/vfs.go of gVisor.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

GUEST_AGENT_DIR = "/.skerry"
GUEST_AGENT = f"{GUEST_AGENT_DIR}/skerry-agent"
GUEST_CHANNEL_DIR = "/run/skerry"

HOSTNAME = "sandbox"

GUEST_CAPABILITIES = (
    # What Docker gives by default,
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
    # and debuggers under sudo. Without CAP_SYS_RESOURCE and CAP_SYS_ADMIN not even root can raise the process
    # limit.
    "CAP_SYS_PTRACE",
)
"""Capabilities inside. They are gVisor's own, none is one of the host's: root in the guest can do to the
guest what it likes.
"""

_SHARED_MEMORY = "/dev/shm"  # noqa: S108 - the guest's
_OPEN_FILES = 65_536
_RUN_MIB = 64
_OOM_SCORE = 300


@dataclass(frozen=True, slots=True)
class GuestLayout:
    """What differs between sandboxes.

    Attributes:
        root: Writable root on the host.
        agent_dir: Holds only the agent's binary.
        channel_dir: Holds only the channel's socket.
        network: File that holds the network namespace.
        group: Control group, relative to the root of the hierarchies.
        memory_mib: The guest's memory.
        max_processes: Processes and threads per user in the guest.
    """

    root: Path
    agent_dir: Path
    channel_dir: Path
    network: Path
    group: str
    memory_mib: int
    max_processes: int


def build(layout: GuestLayout) -> dict[str, Any]:
    """Make the configuration."""
    return {
        "ociVersion": "1.0.2",
        "hostname": HOSTNAME,
        "root": {"path": str(layout.root), "readonly": False},
        "process": _process(layout),
        "mounts": _mounts(layout),
        "linux": {
            "cgroupsPath": f"/{layout.group}",
            "namespaces": [
                *({"type": kind} for kind in ("pid", "ipc", "uts", "mount")),
                {"type": "network", "path": str(layout.network)},
            ],
        },
    }


def _process(layout: GuestLayout) -> dict[str, Any]:
    capabilities = list(GUEST_CAPABILITIES)
    return {
        "terminal": False,
        "user": {"uid": 0, "gid": 0},
        "args": [GUEST_AGENT],
        "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"],
        "cwd": "/",
        "capabilities": {kind: capabilities for kind in ("bounding", "effective", "permitted")},
        "rlimits": [
            {"type": "RLIMIT_NOFILE", "soft": _OPEN_FILES, "hard": _OPEN_FILES},
            {"type": "RLIMIT_NPROC", "soft": layout.max_processes, "hard": layout.max_processes},
            {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
        ],
        # sudo must work inside. That no program on the host gains rights is runsc's business, not this
        # flag's.
        "noNewPrivileges": False,
        "oomScoreAdj": _OOM_SCORE,  # when the whole host is short of memory, a sandbox goes before a daemon
    }


def _mounts(layout: GuestLayout) -> list[dict[str, Any]]:
    """Every tmpfs has a size, because what is in it counts as the guest's memory; only ``/dev``, which gVisor
    makes by itself, has none but that memory."""
    shared_mib = max(16, layout.memory_mib // 2)
    run_mib = min(_RUN_MIB, layout.memory_mib // 8)
    return [
        _mount("/proc", "proc", "proc", ["nosuid", "noexec", "nodev"]),
        _mount("/sys", "sysfs", "sysfs", ["nosuid", "noexec", "nodev", "ro"]),
        _mount(_SHARED_MEMORY, "tmpfs", "shm", ["nosuid", "nodev", "mode=1777", f"size={shared_mib}m"]),
        _mount("/run", "tmpfs", "run", ["nosuid", "nodev", "mode=0755", f"size={run_mib}m"]),
        _mount(GUEST_AGENT_DIR, "bind", str(layout.agent_dir), ["bind", "ro", "nosuid", "nodev"]),
        _mount(
            GUEST_CHANNEL_DIR, "bind", str(layout.channel_dir), ["bind", "ro", "nosuid", "nodev", "noexec"]
        ),
    ]


def _mount(destination: str, kind: str, source: str, options: list[str]) -> dict[str, Any]:
    return {"destination": destination, "type": kind, "source": source, "options": options}
