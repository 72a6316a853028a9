"""What an operator can set, as values that are already checked. The table that reads them from file,
environment and flags is `skerry.cli.settings`."""

import msgspec


class SandboxLimits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Defaults and bounds of what a create may ask for.

    Attributes:
        default_memory_mib: Memory when the request names none.
        min_memory_mib: Smallest that is accepted.
        max_memory_mib: Largest that is accepted; 0 means the host's memory.
        cpus: CPU share of every sandbox, in cores.
        disk_mib: Writable part of the root.
        max_processes: Processes and threads of each user inside.
        max_running: Sandboxes of all owners at once.
        max_running_per_owner: Sandboxes of one owner at once.
        max_lifetime_s: Longest time from now that a create or an extension may ask for; 0 means no maximum.
        boot_timeout_s: Longest time from create to the agent's first word (the SDKs give up after 10 s).
    """

    default_memory_mib: int = 1280
    min_memory_mib: int = 768
    max_memory_mib: int = 0
    cpus: float = 2.0
    disk_mib: int = 10_240
    max_processes: int = 1024
    max_running: int = 1000
    max_running_per_owner: int = 1000
    max_lifetime_s: int = 0
    boot_timeout_s: float = 9.0


class PoolSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The warm pool of started, frozen sandboxes.

    Attributes:
        size: Members kept ready; 0 turns the pool off.
        max_age_s: A member older than this is replaced.
        refill_delay_s: Quiet time after the last create before members are made again.
    """

    size: int = 2
    max_age_s: int = 3600
    refill_delay_s: float = 0.3


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything, resolved. `skerry up` writes it to the instance's runtime directory, where the daemons read
    it. It holds no secret.

    Attributes:
        data_dir: Absolute path of the data directory.
        listen: ``host:port`` of the API; port 0 picks a free one.
        allow_remote: Listening on anything but loopback without TLS was asked for explicitly.
        host_names: Lower-case names by which clients reach the API, besides addresses and ``localhost``.
        region: Three letters that stand in every sandbox ID.
        isolation: ``auto`` or the name of a driver.
        image: Root image of a sandbox that names none.
        reattach_window_s: How long sandboxes whose client vanished with the api are kept.
        session_grace_s: How long after a broken primary connection a session sandbox is kept.
        agent_path: The guest agent's binary.
        runsc_path: gVisor's runsc; empty when there is none.
        images: Root images by name: absolute paths of their files.
        image_digests: The same names: ``sha256:…``.
        test_drivers: The `fake` driver may be used. For tests only.
    """

    data_dir: str
    listen: str = "127.0.0.1:8787"
    allow_remote: bool = False
    host_names: tuple[str, ...] = ()
    region: str = "ord"
    isolation: str = "auto"
    image: str = "builtin:debian-13"
    reattach_window_s: float = 60.0
    session_grace_s: float = 2.0
    agent_path: str = ""
    runsc_path: str = ""
    images: dict[str, str] = {}
    image_digests: dict[str, str] = {}
    test_drivers: bool = False
    sandbox: SandboxLimits = SandboxLimits()
    pool: PoolSettings = PoolSettings()
