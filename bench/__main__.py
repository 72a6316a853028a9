"""Measure everything and print the table: ``python -m bench [--quick] [--write]``."""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from bench.bare_runtimes import Bundles, bundles
from bench.idle_cost import available_mib, cpu_s, processes_of, pss_mib
from bench.report import Row, as_markdown, as_text
from bench.skerry_server import Server, skerry_server
from bench.ssh_server import SshServer, ssh_server
from bench.timing import Samples, sample

REPOSITORY = Path(__file__).resolve().parent.parent
DOCUMENT = REPOSITORY / "docs" / "benchmarks.md"
POOL_PAUSE_S = 0.9
"""Rest between creates of the pool's figures, so that a member can be made ahead (design: at least 500 ms)."""

Measured = dict[str, list[float]]


def _python(environment: Mapping[str, str], what: str, times: int, pause_s: float = 0.0) -> Measured:
    command = [sys.executable, "-m", "bench.python_sdk", what, str(times), str(pause_s)]
    return _json_of(command, environment)


def _javascript(environment: Mapping[str, str], what: str, times: int, pause_s: float = 0.0) -> Measured:
    command = ["node", str(REPOSITORY / "bench" / "javascript_sdk.mjs"), what, str(times), str(int(pause_s * 1000))]
    return _json_of(command, environment)


def _json_of(command: list[str], environment: Mapping[str, str]) -> Measured:
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, cwd=REPOSITORY, env={**os.environ, **environment}
    )
    measured: Measured = json.loads(done.stdout.splitlines()[-1])
    return measured


def _row(what: str, ours: list[float], beside: float, beside_name: str, target: str = "") -> Row:
    samples = Samples([value / 1e3 for value in ours])
    spread = f"p99 {samples.p99_ms:.1f}"
    return Row(what, samples.p50_ms, "ms", beside, beside_name, spread, target)


def creates(server: Server, instant: Mapping[str, str], bare: Bundles, times: int) -> list[Row]:
    """Create and first command, from the warm pool, with both SDKs."""
    ours = _python(server.environment, "create", times, POOL_PAUSE_S)
    theirs = _python(instant, "create", times)
    ours_js = _javascript(server.environment, "create", times, POOL_PAUSE_S)
    theirs_js = _javascript(instant, "create", times)
    burst = _python(server.environment, "create", 10)
    runc = sample(lambda: bare.run("runc", "/bin/echo", "hello"), times=times).p50_ms
    runsc = sample(lambda: bare.run("runsc", "/bin/echo", "hello"), times=times).p50_ms
    instant_python = statistics.median(theirs["create_and_run_ms"])
    create_python = statistics.median(theirs["create_ms"])
    run = "create + first command, warm pool"
    return [
        _row(f"{run}, Python SDK", ours["create_and_run_ms"], instant_python, "instant server", "p50 ≤ 5 + G, p99 ≤ 15 + G"),
        _row(f"{run}, Python SDK", ours["create_and_run_ms"], runc, "runc run"),
        _row(f"{run}, Python SDK", ours["create_and_run_ms"], runsc, "runsc run"),
        _row(f"{run}, JavaScript SDK", ours_js["create_and_run_ms"], statistics.median(theirs_js["create_and_run_ms"]),
             "instant server", "p50 ≤ 5 + G"),
        _row("create, warm pool, request to 101", ours["create_ms"], create_python, "instant server", "p50 ≤ 2.5, p99 ≤ 8"),
        _row("create + first command, ten without a pause", burst["create_and_run_ms"], runsc, "runsc run"),
    ]  # fmt: skip


def cold(instant: Mapping[str, str], bare: Bundles, times: int) -> list[Row]:
    """Create without a pool."""
    with skerry_server(POOL_SIZE="0") as server:
        ours = _python(server.environment, "create", times)
    agent = sample(bare.run_agent, times=times).p50_ms
    own = statistics.median(_python(instant, "create", times)["create_ms"])
    return [
        _row("create, cold, request to 101", ours["create_ms"], agent + own, "runsc run to the agent's first byte + instant server",
             "≤ 1.2 × runsc run")
    ]  # fmt: skip


def roundtrips(server: Server, instant: Mapping[str, str], ssh: SshServer, times: int) -> list[Row]:
    """``true`` on an open connection."""
    ours = _python(server.environment, "roundtrip", times)["true_ms"]
    theirs = statistics.median(_python(instant, "roundtrip", times)["true_ms"])
    openssh = sample(lambda: ssh.run("true"), times=min(times, 50)).p50_ms
    return [
        _row("spawn + wait of `true`", ours, theirs, "instant server", "p50 ≤ G + 0.8"),
        _row("spawn + wait of `true`", ours, openssh, "OpenSSH, multiplexed"),
    ]


_SPAWN_LOOP = """
import os, time
def spawn():
    pid = os.posix_spawn("/usr/bin/true", ["true"], os.environ)
    os.waitpid(pid, 0)
for _ in range(10): spawn()
times = []
for _ in range(100):
    started = time.perf_counter()
    spawn()
    times.append(time.perf_counter() - started)
print(sorted(times)[50] * 1000)
"""


def guest_spawn(server: Server, bare: Bundles) -> list[Row]:
    """G: what spawning ``true`` costs inside the guest by itself, in Skerry and under bare runsc."""
    sandbox = json.loads(server.cli("create", "--timeout", "5m", "--json"))["id"]
    ours = float(server.cli("exec", sandbox, "--", "python3", "-c", _SPAWN_LOOP))
    server.cli("kill", sandbox)
    output = bare.output("runsc", "/usr/bin/python3", "-c", _SPAWN_LOOP)
    return [Row("G: spawn of `true` inside the guest", ours, "ms", float(output), "bare runsc", target="≤ 1.2 × bare runsc")]


def transfers(server: Server, instant: Mapping[str, str], ssh: SshServer, times: int) -> list[Row]:
    """64 MiB each way that moves a whole file."""
    rows = []
    for sdk, run in (("Python", _python), ("JavaScript", _javascript)):
        ours, theirs = run(server.environment, "transfer", times), run(instant, "transfer", times)
        rows += [
            Row(f"64 MiB, {sdk} SDK, {name}", statistics.median(rates), "MiB/s", statistics.median(theirs[name]),
                "instant server", target="≥ 0.8")
            for name, rates in ours.items()
        ]  # fmt: skip
    local = ssh.directory / "payload"
    local.write_bytes(bytes(64 * 1024 * 1024))
    copy = sample(lambda: ssh.sftp(f"put {local} {local}.copy\n"), times=times)
    rows.append(Row("64 MiB, sftp put, for comparison", 64e3 / copy.p50_ms, "MiB/s"))
    return rows


def kills(server: Server, times: int) -> list[Row]:
    """End a running sandbox."""
    return [_row("kill, to the answer", _python(server.environment, "kill", times, POOL_PAUSE_S)["kill_ms"], float("nan"), "")]


def idle(count: int, watch_s: float) -> list[Row]:
    """Memory and CPU of ``count`` idle sandboxes, their parents included."""
    with skerry_server(POOL_SIZE="0") as server:
        before = available_mib()
        for _ in range(count):
            server.cli("create", "--timeout", "30m")
        pids = processes_of(f"skerry-{server.instance}-")
        cpu_before, started = cpu_s(pids), time.monotonic()
        time.sleep(watch_s)
        share = (cpu_s(pids) - cpu_before) / (time.monotonic() - started) / count * 100
        each = pss_mib(pids) / count
        taken = (before - available_mib()) / count
    return [
        Row(f"idle sandbox, PSS of all its processes, at {count}", each, "MiB", 12.9, "runsc run, measured earlier", target="≤ 15"),
        Row(f"idle sandbox, MemAvailable taken, at {count}", taken, "MiB"),
        Row(f"idle sandbox, CPU, at {count}", share, "% of a core", target="≤ 0.2"),
    ]  # fmt: skip


def measure(*, quick: bool) -> list[Row]:
    """All groups in one run."""
    manifest = json.loads((REPOSITORY / "build" / "setup.json").read_text())
    image = Path(manifest["images"]["builtin:debian-13"]["path"])
    times = 5 if quick else 30
    rows: list[Row] = []
    with ssh_server() as ssh, instant_server() as instant, bundles(image, manifest["runsc"], Path(manifest["agent"])) as bare:
        with skerry_server() as server:
            rows += creates(server, instant, bare, times)
            rows += roundtrips(server, instant, ssh, 20 if quick else 300)
            rows += guest_spawn(server, bare)
            rows += transfers(server, instant, ssh, 1 if quick else 5)
            rows += kills(server, times)
        rows += cold(instant, bare, times)
    for count in (1,) if quick else (1, 100):
        rows += idle(count, 2 if quick else 20)
    return rows
