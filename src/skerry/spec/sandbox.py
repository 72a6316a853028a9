"""Descriptions of a sandbox as the host side needs and sees it."""

from enum import StrEnum

import msgspec

from skerry.spec.ids import SandboxId


class Isolation(StrEnum):
    """What separates a sandbox from the host; ``fake`` is for tests and is no boundary at all."""

    GVISOR = "gvisor"
    MICROVM = "microvm"
    NAMESPACE = "namespace"
    FAKE = "fake"


class Capability(StrEnum):
    """Optional abilities of a driver. Asking for one that is missing is an error, never a downgrade."""

    PAUSE = "pause"
    SNAPSHOT = "snapshot"
    MEMORY_LIMIT = "memory_limit"
    CPU_LIMIT = "cpu_limit"
    PROCESS_LIMIT = "process_limit"
    DISK_LIMIT = "disk_limit"
    OWN_NETWORK = "own_network"
    OWN_ROOT = "own_root"


class StartSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All that the host side needs to start a sandbox: names, enums and numbers; never a path, an argv or an
    OCI fragment.

    Attributes:
        image: Name of a root image the host knows, such as ``builtin:debian-13``.
        memory_mib: Memory for the guest, 128 to 1,048,576.
        cpus: CPU share in cores, 0.1 to 1,024.
        disk_mib: Size of the root's writable part, 64 to 1,048,576.
        max_processes: Processes and threads of each user inside the guest, 16 to 1,000,000.
    """

    sandbox_id: SandboxId
    isolation: Isolation
    image: str
    memory_mib: int
    cpus: float
    disk_mib: int
    max_processes: int


class EndReason(StrEnum):
    """Why a sandbox is no more; the listing and every answer say it."""

    CLOSED = "closed"
    KILLED = "killed"
    EXPIRED = "expired"
    DISCONNECTED = "disconnected"
    OUT_OF_MEMORY = "out_of_memory"
    EXITED = "exited"
    CRASHED = "crashed"
    HOST_RESTARTED = "host_restarted"
    SERVER_STOPPED = "server_stopped"
    START_FAILED = "start_failed"
    DISCARDED = "discarded"


class Phase(StrEnum):
    """What the kernel says of a sandbox. ``UNKNOWN`` (could not find out) is never taken for ``GONE``."""

    RUNNING = "running"
    FROZEN = "frozen"
    ENDED = "ended"
    GONE = "gone"
    UNKNOWN = "unknown"


class Ended(msgspec.Struct, frozen=True):
    """How a sandbox ended, from its own parent's record and its cgroup.

    Attributes:
        exit_code: Status of its first process; None when nobody could record it.
        oom: The kernel killed in its cgroup for lack of memory.
    """

    exit_code: int | None
    oom: bool


class Observed(msgspec.Struct, frozen=True):
    """One sandbox as found on the host."""

    sandbox_id: SandboxId
    isolation: Isolation
    phase: Phase
    ended: Ended | None = None


class Usage(msgspec.Struct, frozen=True):
    """What a sandbox uses now, all of its host processes counted."""

    memory_bytes: int
    cpu_us: int
    processes: int
    disk_bytes: int


class DriverReport(msgspec.Struct, frozen=True):
    """Whether a driver can be used here, and if not, why and what to do.

    Attributes:
        missing: One sentence per problem, each with the command or setting that mends it.
        warnings: What works but should be looked at.
    """

    isolation: Isolation
    usable: bool
    version: str
    capabilities: frozenset[Capability]
    missing: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
