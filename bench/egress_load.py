"""Load on one proxy, and what it costs: wrk and `bench.egress_client` in a sandbox's network."""

import asyncio
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.egress_ground import EVENTS, LARGE, SMALL, Ground, Seat

REPOSITORY = Path(__file__).resolve().parent.parent

WARM_UP_S = 0.2
"""From when every connection has had an answer until the window that counts."""

QUIET = 0.12
"""Share of the proxies' core that others may use without the run being tried again."""

TRIES = 3

_FIRST_ANSWERS_S = 60.0
_LONGEST_S = 600
_CLIENT_S = 120.0
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Target:
    """A way to the origin.

    Attributes:
        name: Of the proxy.
        pid: Of its process, whose CPU counts; of the direct way the origin's.
        seat: Where its clients run.
        host: What clients ask for.
        address: Where they connect to.
        roots: What they trust.
        authorization: What they send.
        path_prefix: Before every path.
    """

    name: str
    pid: int
    seat: Seat
    host: str
    address: str
    roots: Path
    authorization: str
    path_prefix: str = ""


@dataclass(frozen=True, slots=True)
class Load:
    """What one run showed.

    Attributes:
        per_s: Requests.
        cpu_us: Of the proxy, for each.
        p50_ms, p99_ms: From request to answer.
        foreign: Share of the proxies' core that others used meanwhile.
    """

    per_s: float
    cpu_us: float
    p50_ms: float
    p99_ms: float
    foreign: float


def cpu_s(pid: int) -> float:
    """CPU seconds of a process so far, to the nanosecond, all threads (the kernel's sched-stats.rst)."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def private_kib(pid: int) -> int:
    """What only this process has written (proc(5), smaps_rollup)."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Private_Dirty:"))


def _busy_s(cores: frozenset[int]) -> float:
    """How long these cores have been busy so far (proc(5), stat)."""
    ticks = 0
    for line in Path("/proc/stat").read_text().splitlines():
        name, *values = line.split()
        if name.removeprefix("cpu").isdigit() and int(name.removeprefix("cpu")) in cores:
            user, nice, system, _, _, irq, softirq, steal = map(int, values[:8])
            ticks += user + nice + system + irq + softirq + steal
    return ticks * _TICK_S


@dataclass(frozen=True, slots=True)
class _Moment:
    at_s: float
    requests: int
    cpu_s: float
    busy_s: float


async def load(
    around: Ground, target: Target, *, connections: int, seconds: float, close: bool = False
) -> Load:
    """Ask for the small body again and again; as soon as the machine is quiet enough, or in the quietest of
    `TRIES`.

    Args:
        close: A new connection for each request.

    Raises:
        RuntimeError: A request failed.
    """
    best: Load | None = None
    for _ in range(TRIES):
        found = await _load(around, target, connections, seconds, close)
        if best is None or found.foreign < best.foreign:
            best = found
        if best.foreign <= QUIET:
            break
    if best is None:
        raise AssertionError("there is at least one try")
    return best


async def _load(around: Ground, target: Target, connections: int, seconds: float, close: bool) -> Load:
    """One run.

    What counts are the requests that the origin had within a window in which nothing begins or ends.

    Args:
        close: A new connection for each request.

    Raises:
        RuntimeError: A request failed.
    """
    command = [
        *("wrk", "-t1", f"-c{connections}", f"-d{_LONGEST_S}s", "--timeout", "10s"),
        *("-s", str(REPOSITORY / "bench" / "egress_wrk.lua")),
        f"https://{target.host}:{around.port}{target.path_prefix}{SMALL}",
    ]
    environment = {
        "ADDRESS": target.address,
        "PORT": str(around.port),
        "AUTHORIZATION": target.authorization,
        "CLOSE": "1" if close else "0",
    }
    asked = await around.origin_requests()
    async with _in_network(target.seat, command, environment) as wrk:
        async with asyncio.timeout(_FIRST_ANSWERS_S):
            while await around.origin_requests() < asked + 2 * connections:
                await asyncio.sleep(0.02)
                asked += 1  # the question itself
        await asyncio.sleep(WARM_UP_S)
        first = await _moment(around, target)
        await asyncio.sleep(seconds)
        last = await _moment(around, target)
        wrk.send_signal(signal.SIGINT)
        output, _ = await wrk.communicate()
    summary = json.loads(output.splitlines()[-1])
    if summary["failed"] or not summary["requests"]:
        raise RuntimeError(f"{target.name}: {summary['failed']} of {summary['requests']} requests failed")
    requests = max(1, last.requests - first.requests - 1)
    used_s, lasted_s = last.cpu_s - first.cpu_s, last.at_s - first.at_s
    return Load(
        per_s=requests / lasted_s,
        cpu_us=used_s / requests * 1e6,
        p50_ms=summary["p50_us"] / 1e3,
        p99_ms=summary["p99_us"] / 1e3,
        foreign=max(0.0, (last.busy_s - first.busy_s - used_s) / lasted_s),
    )


async def _moment(around: Ground, target: Target) -> _Moment:
    requests = await around.origin_requests()
    return _Moment(time.monotonic(), requests, cpu_s(target.pid), _busy_s(around.cores.proxy))


def median_load(samples: Sequence[Load]) -> Load:
    """The median of each figure."""

    def of(name: str) -> float:
        return statistics.median([float(getattr(one, name)) for one in samples])

    return Load(of("per_s"), of("cpu_us"), of("p50_ms"), of("p99_ms"), of("foreign"))


@asynccontextmanager
async def _in_network(
    seat: Seat, command: list[str], environment: dict[str, str]
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process in a sandbox's network; killed at the end if it is still there."""
    process = await asyncio.create_subprocess_exec(
        "nsenter", f"--net={seat.pin}", "--", *command,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=REPOSITORY, env={**os.environ, **environment},
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@asynccontextmanager
async def client(seat: Seat, asked: dict[str, Any]) -> AsyncIterator[Any]:
    """Have a client do something; yields what it says. It ends with the block.

    Args:
        asked: See `bench.egress_client`.

    Raises:
        RuntimeError: It failed.
    """
    command = [sys.executable, "-m", "bench.egress_client"]
    async with _in_network(seat, command, {}) as process:
        if process.stdin is None or process.stdout is None:
            raise AssertionError("both are pipes")
        process.stdin.write(json.dumps(asked).encode() + b"\n")
        async with asyncio.timeout(_CLIENT_S):
            line = await process.stdout.readline()
        if not line:
            raise RuntimeError(f"the client failed to {asked['what']} {asked['host']}")
        yield json.loads(line)
        process.stdin.close()


async def ask(around: Ground, target: Target, what: str, *, path: str = SMALL, count: int = 0) -> Any:
    """The same, to its end; see `bench.egress_client`."""
    async with client(target.seat, asked_of(around, target, what, path, count)) as found:
        return found


def asked_of(around: Ground, target: Target, what: str, path: str, count: int) -> dict[str, Any]:
    """What the client is to do."""
    return {
        "what": what,
        "count": count,
        "host": target.host,
        "address": target.address,
        "port": around.port,
        "roots": str(target.roots),
        "path": target.path_prefix + path,
        "authorization": target.authorization,
    }


@dataclass(frozen=True, slots=True)
class Bulk:
    """A large body: how fast, and CPU seconds of the proxy for each GB."""

    mb_per_s: float
    cpu_s_per_gb: float


async def bulk(around: Ground, target: Target, size: int) -> Bulk:
    """Read the large body once."""
    before = cpu_s(target.pid)
    rate = await ask(around, target, "bulk", path=LARGE, count=size)
    return Bulk(rate, (cpu_s(target.pid) - before) / size * 1e9)


async def idle_kb(around: Ground, target: Target, count: int) -> float:
    """What each of so many connections costs the proxy in memory, in kB, after one request on it."""
    await ask(around, target, "check")
    before = private_kib(target.pid)
    async with client(target.seat, asked_of(around, target, "idle", SMALL, count)):
        return (private_kib(target.pid) - before) * 1.024 / count


async def lateness_s(around: Ground, target: Target, count: int) -> list[float]:
    """How late events arrive that the origin sends one at a time."""
    late_ms = await ask(around, target, "events", path=EVENTS, count=count)
    return [one / 1e3 for one in late_ms]
