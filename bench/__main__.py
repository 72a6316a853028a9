"""Measure and print the tables: ``python -m bench [--quick] [--write] [--only PART]``."""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
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
"""Rest between creates of the pool's figures, so that a member can be made ahead (design: at least 500
ms)."""

PARTS = ("sandboxes", "egress")

Measured = dict[str, list[float]]


def _python(environment: Mapping[str, str], what: str, times: int, pause_s: float = 0.0) -> Measured:
    command = [sys.executable, "-m", "bench.python_sdk", what, str(times), str(pause_s)]
    return _json_of(command, environment)


def _javascript(environment: Mapping[str, str], what: str, times: int, pause_s: float = 0.0) -> Measured:
    command = [
        "node",
        str(REPOSITORY / "bench" / "javascript_sdk.mjs"),
        what,
        str(times),
        str(int(pause_s * 1000)),
    ]
    return _json_of(command, environment)


def _json_of(command: list[str], environment: Mapping[str, str]) -> Measured:
    surroundings = {**os.environ, **environment}
    done = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY, env=surroundings
    )
    measured: Measured = json.loads(done.stdout.splitlines()[-1])
    return measured


def _row(what: str, ours: list[float], beside: float, beside_name: str, target: str = "") -> Row:
    samples = Samples([value / 1e3 for value in ours])
    spread = f"p99 {samples.p99_ms:.1f}"
    return Row(what, samples.p50_ms, "ms", beside, beside_name, spread, target)


@contextmanager
def instant_server() -> Iterator[Mapping[str, str]]:
    """Start `bench.instant_server`; yields the variables that point an SDK at it. It ends with its standard
    input."""
    command = [sys.executable, "-m", "bench.instant_server"]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY
    )
    if process.stdin is None or process.stdout is None:
        raise AssertionError("both are pipes")
    url = process.stdout.readline().strip()
    token = "ddo_instant"  # noqa: S105 - it takes anything of this form
    try:
        yield {"DENO_DEPLOY_TOKEN": token, "DENO_SANDBOX_ENDPOINT": url, "DENO_DEPLOY_ENDPOINT": url}
    finally:
        process.stdin.close()
        process.wait(timeout=10)
        process.stdout.close()


def creates(server: Server, instant: Mapping[str, str], bare: Bundles, times: int) -> list[Row]:
    """Create and first command, from the warm pool, with both SDKs."""
    ours = _python(server.environment, "create", times, POOL_PAUSE_S)
    theirs = _python(instant, "create", times)
    ours_js = _javascript(server.environment, "create", times, POOL_PAUSE_S)["create_and_run_ms"]
    theirs_js = statistics.median(_javascript(instant, "create", times)["create_and_run_ms"])
    burst = _python(server.environment, "create", 10)["create_and_run_ms"]
    run, run_instant = ours["create_and_run_ms"], statistics.median(theirs["create_and_run_ms"])
    runc = sample(lambda: bare.run("runc", "/bin/echo", "hello"), times=times).p50_ms
    runsc = sample(lambda: bare.run("runsc", "/bin/echo", "hello"), times=times).p50_ms
    create_instant = statistics.median(theirs["create_ms"])
    what = "create + first command, warm pool"
    return [
        _row(f"{what}, Python SDK", run, run_instant, "instant server", "p50 ≤ 5 + G, p99 ≤ 15 + G"),
        _row(f"{what}, Python SDK", run, runc, "runc run"),
        _row(f"{what}, Python SDK", run, runsc, "runsc run"),
        _row(f"{what}, JavaScript SDK", ours_js, theirs_js, "instant server", "p50 ≤ 5 + G"),
        _row("create, warm pool", ours["create_ms"], create_instant, "instant server", "p50 ≤ 2.5, p99 ≤ 8"),
        _row("create + first command, ten without a pause", burst, runsc, "runsc run"),
    ]


def cold(instant: Mapping[str, str], bare: Bundles, times: int) -> list[Row]:
    """Create without a pool."""
    with skerry_server(POOL_SIZE="0") as server:
        ours = _python(server.environment, "create", times)["create_ms"]
    agent = sample(bare.run_agent, times=times).p50_ms
    own = statistics.median(_python(instant, "create", times)["create_ms"])
    beside = "runsc run to the agent's first byte + instant server"
    return [_row("create, cold", ours, agent + own, beside, "ratio ≤ 1.2")]


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
    sandbox = server.cli("create", "--timeout", "5m").strip()
    ours = float(server.cli("exec", sandbox, "--", "python3", "-c", _SPAWN_LOOP))
    server.cli("kill", sandbox)
    output = bare.output("runsc", "/usr/bin/python3", "-c", _SPAWN_LOOP)
    return [
        Row(
            "G: spawn of `true` inside the guest",
            ours,
            "ms",
            float(output),
            "bare runsc",
            target="≤ 1.2 of bare runsc",
        )
    ]


def transfers(server: Server, instant: Mapping[str, str], ssh: SshServer, times: int) -> list[Row]:
    """64 MiB each way that moves a whole file."""
    rows = []
    for sdk, run in (("Python", _python), ("JavaScript", _javascript)):
        ours, theirs = run(server.environment, "transfer", times), run(instant, "transfer", times)
        for name, rates in ours.items():
            what, beside = f"64 MiB, {sdk} SDK, {name}", statistics.median(theirs[name])
            rate = statistics.median(rates)
            rows.append(Row(what, rate, "MiB/s", beside, "instant server", target="ratio ≥ 0.8"))
    local = ssh.directory / "payload"
    local.write_bytes(bytes(64 * 1024 * 1024))
    for verb in ("put", "get"):
        copy = sample(lambda verb=verb: ssh.sftp(f"{verb} {local} {local}.copy\n"), times=times)  # type: ignore[misc]
        rows.append(Row(f"64 MiB, sftp {verb}, for comparison", 64e3 / copy.p50_ms, "MiB/s"))
    return rows


def kills(server: Server, bare: Bundles, times: int) -> list[Row]:
    """End a running sandbox."""
    ours = _python(server.environment, "kill", times, POOL_PAUSE_S)["kill_ms"]
    deletes = Samples()
    for _ in range(times):
        name = bare.start_idle()
        started = time.perf_counter()
        bare.delete(name)
        deletes.add(time.perf_counter() - started)
    return [_row("kill, to the answer", ours, deletes.p50_ms, "runsc delete --force")]


def neighbours(server: Server, times: int) -> list[Row]:
    """What a guest that floods its agent socket as root costs the sandbox beside it.

    It also takes CPU, as any busy guest does; a guest that floods a pipe of its own takes as much.
    """
    quiet = _p99_of_true(server, times)
    busy = _p99_beside(server, _FLOOD_OF_A_PIPE, times)
    hostile = _p99_beside(server, _FLOOD_OF_THE_SOCKET, times)
    what = "p99 of `true` beside a guest that floods its agent socket"
    return [
        Row(what, hostile, "ms", busy, "beside one that floods a pipe of its own", target="ratio ≤ 2"),
        Row(what, hostile, "ms", quiet, "beside none"),
    ]


def _p99_of_true(server: Server, times: int) -> float:
    true_ms = _python(server.environment, "roundtrip", times)["true_ms"]
    return Samples([value / 1e3 for value in true_ms]).p99_ms


def _p99_beside(server: Server, program: str, times: int) -> float:
    other = server.cli("create", "--timeout", "10m").strip()
    running = server.begin("exec", other, "--", "sudo", "timeout", "600", "python3", "-c", program)
    try:
        return _p99_of_true(server, times)
    finally:
        server.cli("kill", other)
        running.wait(timeout=30)


_FLOOD_OF_THE_SOCKET = """
import os, socket
while True:
    try:
        peer = socket.socket(socket.AF_UNIX)
        peer.connect("/run/skerry/agent.sock")
        while True:
            peer.sendall(os.urandom(65536))
    except OSError:
        pass
"""

_FLOOD_OF_A_PIPE = """
import os, threading
reading, writing = os.pipe()
def drain():
    while True:
        os.read(reading, 65536)
threading.Thread(target=drain, daemon=True).start()
while True:
    os.write(writing, os.urandom(65536))
"""


def idle(bare: Bundles, count: int, watch_s: float) -> list[Row]:
    """Memory and CPU of ``count`` idle sandboxes, their parents included, beside as many of bare runsc."""
    with skerry_server(POOL_SIZE="0") as server:
        before = available_mib()
        for _ in range(count):
            server.cli("create", "--timeout", "30m")
        ours = _idle_cost(f"skerry-{server.instance}-", before, count, watch_s)
    before = available_mib()
    names = [bare.start_idle() for _ in range(count)]
    theirs = _idle_cost("bench-idle-", before, count, watch_s)
    for name in names:
        bare.delete(name)
    pss, taken, share = zip(ours, theirs, strict=True)
    return [
        Row(f"idle sandbox, PSS, at {count}", pss[0], "MiB", pss[1], "runsc run", target="≤ 15"),
        Row(f"idle sandbox, MemAvailable taken, at {count}", taken[0], "MiB", taken[1], "runsc run"),
        Row(f"idle sandbox, CPU, at {count}", share[0], "% of a core", share[1], "runsc run", target="≤ 0.2"),
    ]  # fmt: skip


def _idle_cost(needle: str, before_mib: float, count: int, watch_s: float) -> tuple[float, float, float]:
    """PSS in MiB, MemAvailable taken in MiB, and % of a core, of each of ``count``."""
    pids = processes_of(needle)
    cpu_before, started = cpu_s(pids), time.monotonic()
    time.sleep(watch_s)
    share = (cpu_s(pids) - cpu_before) / (time.monotonic() - started) / count * 100
    return pss_mib(pids) / count, (before_mib - available_mib()) / count, share


def creates_with_secret(server: Server, times: int) -> list[Row]:
    """Create with a name to reach and a secret, beside one without; both may reach the public internet or
    less."""
    plain = _python(server.environment, "create", times, POOL_PAUSE_S)
    secret = _python(server.environment, "create_with_secret", times, POOL_PAUSE_S)
    return [
        _row(f"{what}, warm pool, with a secret", secret[name], statistics.median(plain[name]), "without")
        for what, name in (("create", "create_ms"), ("create + first command", "create_and_run_ms"))
    ]


def sandboxes(*, quick: bool) -> list[Row]:
    """Creating, using and ending sandboxes."""
    manifest = json.loads((REPOSITORY / "build" / "setup.json").read_text())
    image = Path(manifest["images"]["builtin:debian-13"]["path"])
    times = 5 if quick else 30
    rows: list[Row] = []
    with (
        ssh_server() as ssh,
        instant_server() as instant,
        bundles(image, manifest["runsc"], Path(manifest["agent"])) as bare,
    ):
        with skerry_server() as server:
            rows += creates(server, instant, bare, times)
            rows += roundtrips(server, instant, ssh, 20 if quick else 300)
            rows += guest_spawn(server, bare)
            rows += transfers(server, instant, ssh, 1 if quick else 5)
            rows += kills(server, bare, times)
            rows += neighbours(server, 50 if quick else 300)
        rows += cold(instant, bare, times)
        for count in (1,) if quick else (1, 100):
            rows += idle(bare, count, 2 if quick else 20)
    return rows


def egress(*, quick: bool) -> list[Row]:
    """The outbound gateway, in a process of its own, and what it adds to a create."""
    command = [sys.executable, "-m", "bench.egress", *(["--quick"] if quick else [])]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, cwd=REPOSITORY)
    rows = [Row(**cells) for cells in json.loads(done.stdout)]
    with skerry_server() as server:
        return rows + creates_with_secret(server, 5 if quick else 30)


def main() -> None:
    """Measure, print the tables, and with ``--write`` put them into the document."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="few repetitions, for trying the benchmark itself"
    )
    parser.add_argument("--write", action="store_true", help="replace the tables in docs/benchmarks.md")
    parser.add_argument("--only", choices=PARTS, help="measure and replace only this part")
    options = parser.parse_args()
    for part in [options.only] if options.only else PARTS:
        before = os.getloadavg()[0]
        rows = sandboxes(quick=options.quick) if part == "sandboxes" else egress(quick=options.quick)
        loads = f"load average {before:.1f} before, {os.getloadavg()[0]:.1f} after"
        print(f"{part} ({loads})\n{as_text(rows)}\n", flush=True)
        if options.write:
            write_table(part, rows, loads)


def write_table(part: str, rows: list[Row], loads: str) -> None:
    """Replace what is between the two marks of a part in docs/benchmarks.md."""
    begin, end = f"<!-- table: {part} -->", f"<!-- end of table: {part} -->"
    head, _, rest = DOCUMENT.read_text().partition(begin)
    _, _, tail = rest.partition(end)
    model = next(
        line.split(":")[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if "model name" in line
    )
    cores = f"{os.cpu_count()} cores ({model})"
    measured = f"{cores}, Linux {os.uname().release}, {datetime.now(UTC):%Y-%m-%d}, {loads}"
    DOCUMENT.write_text(f"{head}{begin}\n\nMeasured on {measured}.\n\n{as_markdown(rows)}\n{end}{tail}")


if __name__ == "__main__":
    main()
