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


class InternalNetwork(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A network that is not on the public internet, which rules may nevertheless reach.

    Attributes:
        names: Exact names or ``*.name`` that may resolve into it.
        cidr: Prefixes that they may resolve to; rules may also name addresses in them.
    """

    names: tuple[str, ...]
    cidr: tuple[str, ...]


class EgressLimits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Bounds of what one sandbox can cost the outbound gateway.

    Attributes:
        connections: At once.
        tls_per_s, tls_burst: New connections with inspected TLS.
        hello_s, handshake_s, head_s: Longest waits for a client's first TLS message, a handshake, a message
            head.
        body_grace_s, body_min_bytes_per_s: After the grace, a body must make this progress.
        idle_s: A connection between requests.
        websocket_idle_s: A WebSocket or raw connection without any byte.
        head_bytes, fields, field_bytes: Of one message head.
        names: Distinct names that a sandbox may look up.
        queries_per_s: DNS.
        wildcard_names_per_min: Distinct names under one wildcard.
        leaf_certificates: Kept ready per sandbox.
        buffer_bytes: Held of one direction of one connection before its sender is made to wait.
        scrub_ratio, scrub_window_bytes: A compressed answer may not grow more than this.
        dial_s: Longest wait for an origin to accept.
        response_s: Longest wait for an origin's head.
        worker_memory_mib: Of one worker.
        audit_lines: Waiting to be written.
        audit_file_mib: Of one sandbox, before the oldest half is dropped.
    """

    connections: int = 64
    tls_per_s: int = 20
    tls_burst: int = 40
    hello_s: float = 5.0
    handshake_s: float = 10.0
    head_s: float = 10.0
    body_grace_s: float = 30.0
    body_min_bytes_per_s: int = 1024
    idle_s: float = 75.0
    websocket_idle_s: float = 600.0
    head_bytes: int = 65_536
    fields: int = 100
    field_bytes: int = 8_192
    names: int = 2_000
    queries_per_s: int = 50
    wildcard_names_per_min: int = 60
    leaf_certificates: int = 256
    buffer_bytes: int = 262_144
    scrub_ratio: int = 200
    scrub_window_bytes: int = 33_554_432
    dial_s: float = 10.0
    response_s: float = 300.0
    worker_memory_mib: int = 256
    audit_lines: int = 1_000
    audit_file_mib: int = 16


class EgressSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The outbound gateway, as the operator sets it.

    Attributes:
        resolvers: ``address:port`` each; empty: the host's own.
        extra_roots: Absolute paths of PEM files with further certificate authorities that origins may have.
        internal: Networks besides the public internet that rules may reach.
        upstream_proxy: ``host:port`` of a proxy that takes CONNECT; empty: none.
        trust_host_roots: Give the host's own extra certificate authorities to guests too.
        policy: Absolute path of the operator's own policy, which no other can widen; empty: the public
            internet.
        default_policy: Name of the policy of sandboxes whose label and token name none; empty: none.
        limits: Bounds of what one sandbox can cost.
    """

    resolvers: tuple[str, ...] = ()
    extra_roots: tuple[str, ...] = ()
    internal: tuple[InternalNetwork, ...] = ()
    upstream_proxy: str = ""
    trust_host_roots: bool = False
    policy: str = ""
    default_policy: str = ""
    limits: EgressLimits = EgressLimits()


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
    egress: EgressSettings = EgressSettings()
