"""What is measured of the outbound gateway, and the rows that it makes."""

import secrets
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace

from bench.egress_ground import Ground
from bench.egress_load import Bulk, Load, Target, bulk, idle_kb, lateness_s, load, median_load, private_kib
from bench.egress_others import UNPOOLED
from bench.egress_worker import SECRETS, other_secret, rules, worker
from bench.idle_cost import pss_mib
from bench.report import Row
from bench.timing import Samples, sample
from skerry.egress.broker.zygote_client import ZygoteClient
from skerry.egress.scrub import Needles, Scrubber
from skerry.spec.ids import new_sandbox_id

MANY = 32
NEW = 16
"""Connections at once."""

_CHUNK_BYTES = 16_384
_CHUNKS = 512

_STREAM = "nginx stream"
_NGINX = "nginx, certificate made before"
_MITMPROXY = "mitmproxy"
_DIRECT = "without a proxy"


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured.

    Attributes:
        rounds: Of each load; all ways take their turns in each, and the median counts.
        seconds: Of each load.
        large_bytes: The large body.
        idle_connections, workers, events, starts: How many.
    """

    rounds: int
    seconds: float
    large_bytes: int
    idle_connections: int
    workers: int
    events: int
    starts: int


QUICK = Size(1, 1.0, 64 << 20, 50, 20, 50, 5)
FULL = Size(3, 2.0, 512 << 20, 500, 200, 250, 20)


@dataclass(frozen=True, slots=True)
class Ways:
    """All ways to the origin."""

    direct: Target
    splice: Target
    inspect: Target
    inspect_without_secret: Target
    nginx_splice: Target
    nginx_inspect: Target
    mitmproxy: Target


@dataclass(frozen=True, slots=True)
class Bench:
    """What the measurements need."""

    around: Ground
    zygote: ZygoteClient
    ways: Ways
    size: Size


async def of_ways(bench: Bench) -> list[Row]:
    """Everything that is seen from the clients of the ways."""
    rows: list[Row] = []
    # Memory first: what has served much keeps what it has got.
    for measurement in (idle_connections, many, one, new, large, events):
        print(f"gateway: {measurement.__name__}", file=sys.stderr, flush=True)
        rows += await measurement(bench)
    return rows


async def _in_turns(
    bench: Bench, targets: Sequence[Target], connections: int, *, close: bool = False
) -> list[Load]:
    """The same load on several ways, one after the other, again and again."""
    samples: list[list[Load]] = [[] for _ in targets]
    for _ in range(bench.size.rounds):
        for target, found in zip(targets, samples, strict=True):
            run = load(bench.around, target, connections=connections, seconds=bench.size.seconds, close=close)
            found.append(await run)
    return [median_load(found) for found in samples]


def _cpu(what: str, ours: Load, beside: Load, name: str, target: str = "") -> Row:
    spread = f"others had {ours.foreign:.0%} of the core"
    return Row(f"{what}, CPU", ours.cpu_us, "µs", beside.cpu_us, name, spread, target)


def _rate(what: str, ours: Load, beside: Load, name: str) -> Row:
    spread = f"p50 {ours.p50_ms:.2f} ms, p99 {ours.p99_ms:.2f} ms"
    return Row(what, ours.per_s, "/s", beside.per_s, name, spread)


async def many(bench: Bench) -> list[Row]:
    """Small answers over connections that stay, all busy; and what the broker does for each request."""
    ways = bench.ways
    splice, splice_nginx = await _in_turns(bench, (ways.splice, ways.nginx_splice), MANY)
    targets = (ways.inspect, ways.inspect_without_secret, ways.nginx_inspect, ways.mitmproxy)
    inspect, plain, nginx, mitmproxy = await _in_turns(bench, targets, MANY)
    what, secret = (
        f"splice, request, {MANY} connections",
        f"inspect, request with a secret, {MANY} connections",
    )
    without = f"inspect, request without a secret, {MANY} connections"
    return [
        _cpu(what, splice, splice_nginx, _STREAM, "≤ 22"),
        _rate(what, splice, splice_nginx, _STREAM),
        _cpu(secret, inspect, nginx, _NGINX, "≤ 80"),
        _cpu(secret, inspect, mitmproxy, _MITMPROXY),
        _rate(secret, inspect, nginx, _NGINX),
        _rate(secret, inspect, mitmproxy, _MITMPROXY),
        _cpu(without, plain, nginx, _NGINX),
        await _brokers_share(bench),
    ]


async def _brokers_share(bench: Bench) -> Row:
    """The broker's code runs in this process, which does nothing else meanwhile."""
    requests, used_s = await bench.around.origin_requests(), time.process_time()
    await load(bench.around, bench.ways.inspect, connections=MANY, seconds=bench.size.seconds)
    used_s = time.process_time() - used_s
    requests = await bench.around.origin_requests() - requests
    return Row("audit trail in the broker, request with a secret, CPU", used_s / requests * 1e6, "µs")


async def one(bench: Bench) -> list[Row]:
    """One connection: what a request takes longer than without a proxy."""
    ways = bench.ways
    direct, splice, splice_nginx, inspect, nginx, mitmproxy = await _in_turns(
        bench,
        (ways.direct, ways.splice, ways.nginx_splice, ways.inspect, ways.nginx_inspect, ways.mitmproxy),
        1,
    )

    def row(what: str, ours: Load, beside: Load, name: str, target: str = "") -> Row:
        added, beside_added = ours.p50_ms - direct.p50_ms, beside.p50_ms - direct.p50_ms
        spread = f"in all p50 {ours.p50_ms:.2f}, p99 {ours.p99_ms:.2f} ms"
        return Row(f"{what}, 1 connection, added p50", added, "ms", beside_added, name, spread, target)

    return [
        row("splice", splice, splice_nginx, _STREAM),
        row("inspect with a secret", inspect, nginx, _NGINX, "≤ 0.35, p99 in all ≤ 1.5"),
        row("inspect with a secret", inspect, mitmproxy, _MITMPROXY),
    ]


async def new(bench: Bench) -> list[Row]:
    """A new connection for each request, to the origin too."""
    ways = bench.ways
    nginx_pair = replace(ways.nginx_inspect, path_prefix=UNPOOLED)
    targets = (ways.splice, ways.nginx_splice, ways.inspect, nginx_pair, ways.mitmproxy)
    splice, splice_nginx, inspect, nginx, mitmproxy = await _in_turns(bench, targets, NEW, close=True)

    def row(ours: Load, beside: Load, name: str, target: str = "") -> Row:
        spread = f"{ours.per_s:.0f}/s"
        what = "inspect, new connection: both handshakes and a request, CPU"
        return Row(what, ours.cpu_us / 1e3, "ms", beside.cpu_us / 1e3, name, spread, target)

    return [
        _cpu("splice, new connection and a request", splice, splice_nginx, _STREAM),
        row(inspect, nginx, _NGINX, "≤ 2.2"),
        row(inspect, mitmproxy, _MITMPROXY),
    ]


async def large(bench: Bench) -> list[Row]:
    """A large body."""
    ways, size = bench.ways, bench.size.large_bytes
    targets = (
        ways.direct,
        ways.splice,
        ways.nginx_splice,
        ways.inspect_without_secret,
        ways.inspect,
        ways.nginx_inspect,
        ways.mitmproxy,
    )
    samples: list[list[Bulk]] = [[] for _ in targets]
    for _ in range(bench.size.rounds):
        for target, found in zip(targets, samples, strict=True):
            found.append(await bulk(bench.around, target, size))

    rates = [statistics.median(run.mb_per_s for run in found) for found in samples]
    costs = [statistics.median(run.cpu_s_per_gb for run in found) for found in samples]
    what = f"{size >> 20} MiB body"

    def row(how: str, ours: int, beside: int, name: str, target: str = "") -> Row:
        spread = f"CPU {costs[ours]:.2f} s/GB, beside it {costs[beside]:.2f}"
        return Row(f"{what}, {how}", rates[ours], "MB/s", rates[beside], name, spread, target)

    return [
        row("splice", 1, 0, _DIRECT, "≥ 450"),
        row("splice", 1, 2, _STREAM),
        row("inspect", 3, 5, _NGINX),
        row("inspect", 3, 6, _MITMPROXY),
        row(f"inspect, searched for {SECRETS} secrets", 4, 5, _NGINX),
    ]


async def idle_connections(bench: Bench) -> list[Row]:
    """What connections cost that do nothing."""
    ways, count = bench.ways, bench.size.idle_connections
    ours, nginx, mitmproxy = [
        await idle_kb(bench.around, target, count)
        for target in (ways.inspect, ways.nginx_inspect, ways.mitmproxy)
    ]
    what = f"inspect, idle connection, of {count}, memory"
    return [
        Row(what, ours, "kB", nginx, _NGINX, target="≤ 100"),
        Row(what, ours, "kB", mitmproxy, _MITMPROXY),
    ]


async def events(bench: Bench) -> list[Row]:
    """Server-sent events, from the origin's clock to the client's."""
    ways, rounds = bench.ways, bench.size.rounds
    targets = (ways.direct, ways.splice, ways.inspect, ways.mitmproxy)
    samples = [Samples() for _ in targets]
    for _ in range(rounds):
        for target, found in zip(targets, samples, strict=True):
            found.values_s += await lateness_s(bench.around, target, bench.size.events // rounds)
    direct, splice, inspect, mitmproxy = samples

    def row(how: str, ours: Samples, beside: Samples, name: str, target: str = "") -> Row:
        what = f"server-sent event, {how}, p50"
        return Row(what, ours.p50_ms, "ms", beside.p50_ms, name, f"p99 {ours.p99_ms:.1f}", target)

    return [
        row("splice", splice, direct, _DIRECT),
        row("inspect and search for secrets", inspect, direct, _DIRECT, "≤ 1"),
        row("inspect and search for secrets", inspect, mitmproxy, _MITMPROXY),
    ]


async def of_workers(around: Ground, zygote: ZygoteClient, size: Size) -> list[Row]:
    """Everything about workers that serve nobody, and the search for secrets by itself."""
    print("gateway: workers", file=sys.stderr, flush=True)
    started, private_mb = Samples(), []
    for _ in range(size.starts):
        async with AsyncExitStack() as stack:
            pid = await _idle_worker(stack, around, zygote, started)
            private_mb.append(private_kib(pid) * 1.024 / 1e3)
    cold = sample(_import_all, times=3)
    async with AsyncExitStack() as stack:
        pids = [await _idle_worker(stack, around, zygote, Samples()) for _ in range(size.workers)]
        together_mib = pss_mib(pids)
    spread = f"p99 {started.p99_ms:.1f}"
    imports = "a new Python with the same imports"
    return [
        Row("worker, fork to serving", started.p50_ms, "ms", cold.p50_ms, imports, spread, "≤ 20"),
        Row("worker, idle, private memory", statistics.median(private_mb), "MB", target="≤ 10"),
        Row(f"{size.workers} idle workers, PSS together", together_mib, "MiB"),
        scrubbing(),
    ]


async def _idle_worker(stack: AsyncExitStack, around: Ground, zygote: ZygoteClient, started: Samples) -> int:
    tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    udp = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    for sock in (tcp, udp):
        sock.setblocking(False)
    sandbox_id = new_sandbox_id("ord", secrets.randbelow)
    told = rules(sandbox_id, roots=around.roots, resolver=around.resolver)
    running = await stack.enter_async_context(worker(zygote, (tcp, udp), told, around.directory))
    started.add(running.started_s)
    return running.pid


def _import_all() -> None:
    program = "from skerry.daemon.preload import EGRESSD, preload; preload(EGRESSD)"
    subprocess.run([sys.executable, "-c", program], check=True)


def scrubbing() -> Row:
    """Search text that holds no secret."""
    needles = Needles([other_secret(number) for number in range(SECRETS)])
    text = secrets.token_hex(_CHUNK_BYTES // 2).encode()
    scrubber = Scrubber(needles)

    def feed() -> None:
        for _ in range(_CHUNKS):
            scrubber.feed(text)

    found = sample(feed, times=5)
    rate = _CHUNKS * _CHUNK_BYTES / found.p50_ms / 1e3
    what = f"search for {SECRETS} secrets, pieces of {_CHUNK_BYTES >> 10} KiB"
    return Row(what, rate, "MB/s", target="≥ 200")
