"""The one table of what can be set.

`skerry.cli.settings` reads by it, and ``docs/settings.md`` is made from it.
"""

from dataclasses import dataclass
from typing import Any

import msgspec

from skerry.cli import settings_parsers as parse
from skerry.cli.settings_parsers import DAY_S, MAX_MIB
from skerry.spec.settings import EgressLimits, EgressSettings, PoolSettings, SandboxLimits, Settings


@dataclass(frozen=True, slots=True)
class Row:
    """One setting.

    Attributes:
        key: Path in the TOML file, a dot between tables; also the path in `Settings`.
        parser: Checks and converts.
        form: What a value looks like, for people.
        help: What it does.
        flag: Flag of `skerry up`; empty when there is none.
        file_only: A table, which has no environment variable.
    """

    key: str
    parser: parse.Parser
    form: str
    help: str
    flag: str = ""
    file_only: bool = False

    @property
    def env(self) -> str:
        """Name of the environment variable; empty when there is none."""
        return "" if self.file_only else "SKERRY_" + self.key.upper().replace(".", "_")

    @property
    def default(self) -> Any:
        """What the structs of `skerry.spec.settings` declare; `msgspec.NODEFAULT` when there is none."""
        table, _, name = self.key.rpartition(".")
        structs: dict[str, type[msgspec.Struct]] = {
            "": Settings,
            "sandbox": SandboxLimits,
            "pool": PoolSettings,
            "egress": EgressSettings,
            "egress.limits": EgressLimits,
        }
        (field,) = [f for f in msgspec.structs.fields(structs[table]) if f.name == name]
        return field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()


TABLE: tuple[Row, ...] = (
    Row(
        "data_dir",
        parse.absolute_path,
        "absolute path",
        "Everything Skerry keeps. Two directories are two independent instances.",
        flag="--data-dir",
    ),
    Row(
        "listen",
        parse.listen,
        "host:port",
        "Where the API listens. Port 0 picks a free one.",
        flag="--listen",
    ),
    Row(
        "allow_remote",
        parse.flag,
        "true or false",
        "Allow an address other than loopback without TLS: tokens and data then cross the network in clear.",
        flag="--allow-remote",
    ),
    Row(
        "host_names",
        parse.host_names,
        "names, separated by commas (or a list)",
        "Names by which clients reach the API, besides addresses and `localhost`. Other names are refused.",
    ),
    Row("region", parse.region, "three letters", "Stands in every sandbox ID."),
    Row(
        "isolation",
        parse.isolation,
        "auto or a driver",
        "What separates sandboxes from the host. `auto` takes the strongest that works on this machine.",
    ),
    Row("image", parse.image_name, "image name", "Root image of a sandbox that names none."),
    Row(
        "reattach_window_s",
        parse.seconds(0, DAY_S),
        "duration",
        "How long session sandboxes wait for their clients to connect again when the API went away.",
    ),
    Row(
        "session_grace_s",
        parse.seconds(0, 5),
        "duration",
        "How long a session sandbox is kept after its client's connection broke.",
    ),
    Row(
        "agent_path",
        parse.absolute_path,
        "absolute path",
        "The guest agent's binary. Default: the one that set-up built.",
    ),
    Row(
        "runsc_path",
        parse.absolute_path,
        "absolute path",
        "gVisor's runsc. Default: the one that set-up built, else the one on PATH.",
    ),
    Row(
        "images",
        parse.paths_by_name,
        "table: name = absolute path",
        "Root images, besides those that set-up built.",
        file_only=True,
    ),
    Row(
        "image_digests",
        parse.digests_by_name,
        "table: name = sha256:…",
        "Digests of the images above.",
        file_only=True,
    ),
    Row(
        "test_drivers",
        parse.flag,
        "true or false",
        "Allow isolation `fake`, which isolates nothing. For Skerry's own tests only.",
    ),
    Row(
        "sandbox.default_memory_mib",
        parse.mib(128, MAX_MIB),
        "size",
        "Memory of a sandbox that names none.",
    ),
    Row("sandbox.min_memory_mib", parse.mib(128, MAX_MIB), "size", "Smallest memory that is accepted."),
    Row(
        "sandbox.max_memory_mib",
        parse.mib(0, MAX_MIB),
        "size",
        "Largest memory that is accepted; 0 means the host's.",
    ),
    Row("sandbox.cpus", parse.number(0.1, 1024), "number of cores", "CPU share of every sandbox."),
    Row("sandbox.disk_mib", parse.mib(64, MAX_MIB), "size", "Writable part of a sandbox's root."),
    Row(
        "sandbox.max_processes",
        parse.whole(16, 1_000_000),
        "number",
        "Processes and threads of each user inside a sandbox.",
    ),
    Row("sandbox.max_running", parse.whole(1, 100_000), "number", "Sandboxes of all owners at once."),
    Row(
        "sandbox.max_running_per_owner",
        parse.whole(1, 100_000),
        "number",
        "Sandboxes of one owner at once.",
    ),
    Row(
        "sandbox.max_lifetime_s",
        parse.whole_seconds(0, 3650 * DAY_S),
        "duration",
        "Longest time from now that a create or an extension may ask for; 0 means no maximum.",
    ),
    Row(
        "sandbox.boot_timeout_s",
        parse.seconds(1, 60),
        "duration",
        "Longest time from create to the agent's first word. The Python SDK gives up after 10 s.",
    ),
    Row("pool.size", parse.whole(0, 1000), "number", "Started sandboxes kept ready, frozen; 0 turns it off."),
    Row(
        "pool.max_age_s",
        parse.whole_seconds(1, 30 * DAY_S),
        "duration",
        "A ready sandbox older than this is replaced.",
    ),
    Row(
        "pool.refill_delay_s",
        parse.seconds(0, 60),
        "duration",
        "Quiet time after the last create before ready sandboxes are made again.",
    ),
    Row(
        "egress.resolvers",
        parse.listed(parse.address_and_port, "addresses and ports, such as 192.0.2.53:53"),
        "address:port, separated by commas (or a list)",
        "Name servers that the outbound gateway asks. Default: those of /etc/resolv.conf when `up` starts.",
    ),
    Row(
        "egress.extra_roots",
        parse.listed(parse.absolute_path, "absolute paths of PEM files"),
        "absolute paths, separated by commas (or a list)",
        "PEM files with further certificate authorities that origins may have.",
    ),
    Row(
        "egress.internal",
        parse.internal_networks,
        "tables with `names` and `cidr`: `[[egress.internal]]`",
        "Networks besides the public internet that rules may reach: these names, when they resolve into "
        "these prefixes; addresses in them, when a rule names them.",
        file_only=True,
    ),
    Row(
        "egress.upstream_proxy",
        parse.host_and_port_or_none,
        "host:port",
        "Proxy that takes CONNECT, through which origins are reached.",
    ),
    Row(
        "egress.trust_host_roots",
        parse.flag,
        "true or false",
        "Give guests this host's own certificate authorities too, and those of `egress.extra_roots`. Needed "
        "where the host itself is behind an intercepting proxy.",
    ),
    Row(
        "egress.policy",
        parse.absolute_path_or_none,
        "absolute path",
        "The operator's own policy (TOML, or JSON when it ends in .json), which no other can widen. "
        "Default: the public internet.",
    ),
    Row(
        "egress.default_policy",
        parse.policy_name,
        "name of a policy",
        "Policy of sandboxes whose label and token name none.",
    ),
    *(
        Row(f"egress.limits.{name}", parser, form, help)
        for name, parser, form, help in (
            ("connections", parse.whole(1, 10_000), "number", "Connections of one sandbox at once."),
            (
                "tls_per_s",
                parse.whole(1, 10_000),
                "number",
                "New connections with inspected TLS, in a second.",
            ),
            ("tls_burst", parse.whole(1, 10_000), "number", "The same, at once."),
            (
                "hello_s",
                parse.seconds(0.1, 600),
                "duration",
                "Longest wait for a client's first TLS message.",
            ),
            ("handshake_s", parse.seconds(0.1, 600), "duration", "Longest TLS handshake."),
            ("head_s", parse.seconds(0.1, 600), "duration", "Longest wait for the rest of a message's head."),
            (
                "body_grace_s",
                parse.seconds(0.1, 3600),
                "duration",
                "After this time a body must make progress.",
            ),
            ("body_min_bytes_per_s", parse.whole(1, 1 << 30), "bytes", "That progress, in a second."),
            ("idle_s", parse.seconds(1, 86_400), "duration", "Longest pause between requests."),
            (
                "websocket_idle_s",
                parse.seconds(1, 7 * DAY_S),
                "duration",
                "Longest silence of a WebSocket or of another protocol.",
            ),
            ("head_bytes", parse.whole(1024, 1 << 20), "bytes", "Of one message's head."),
            ("fields", parse.whole(8, 10_000), "number", "Header fields of one message."),
            ("field_bytes", parse.whole(256, 1 << 20), "bytes", "Of one header field."),
            ("names", parse.whole(1, 100_000), "number", "Different names that one sandbox may look up."),
            ("queries_per_s", parse.whole(1, 100_000), "number", "DNS queries of one sandbox in a second."),
            (
                "wildcard_names_per_min",
                parse.whole(1, 100_000),
                "number",
                "Different names below one wildcard, in a minute.",
            ),
            ("leaf_certificates", parse.whole(1, 10_000), "number", "Kept ready for one sandbox."),
            (
                "buffer_bytes",
                parse.whole(16_384, 1 << 26),
                "bytes",
                "Held of one direction of one connection before its sender must wait.",
            ),
            ("scrub_ratio", parse.whole(2, 10_000), "number", "Longest growth of a compressed answer."),
            (
                "scrub_window_bytes",
                parse.whole(1 << 20, 1 << 30),
                "bytes",
                "Longest growth of a compressed answer in one piece.",
            ),
            ("dial_s", parse.seconds(0.1, 600), "duration", "Longest wait for an origin to accept."),
            ("response_s", parse.seconds(1, 86_400), "duration", "Longest wait for an origin's answer."),
            ("worker_memory_mib", parse.mib(64, 65_536), "size", "Memory of one sandbox's worker."),
            ("audit_lines", parse.whole(16, 100_000), "number", "Audit lines that wait to be written."),
            (
                "audit_file_mib",
                parse.mib(1, 65_536),
                "size",
                "Audit trail of one sandbox, before its oldest half is dropped.",
            ),
        )
    ),
)
