"""Measure the candidates for a sandbox root's writable upper, inside real gVisor sandboxes and from the host.

Each candidate is the upper of a host overlay over one read-only EROFS image, as hostd would give it to
`runsc run`:

* ``ext4-image``    an ext4 image file, reflink of an empty formatted one on XFS, mounted by loop;
* ``xfs-dir``       a directory on XFS; its limit would be a project quota (CONFIG_XFS_QUOTA), not set here;
* ``btrfs-subvol``  a btrfs subvolume with a qgroup limit, as a third opinion;
* ``runsc-overlay`` runsc's own overlay over the bare image: no candidate (the host cannot read it), only the
  yardstick.

Run as root: ``python -m bench.storage_candidates --runsc RUNSC --image ROOT.erofs --work DIR``. It prints one
JSON object; docs/adr/0001-root-upper.md holds the figures of one machine. All that it mounts is in a mount
namespace of its own and below ``--work``.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench.storage_snapshots import measure_snapshots
from skerry.hostd.sys import filesystems, loop
from skerry.hostd.sys.mounts import MountFlag, mount, unmount

GUEST = Path(__file__).with_name("storage_guest.py")
OVERLAY = "index=off,metacopy=off,redirect_dir=on,xino=auto,volatile"
EXT4 = "discard,barrier=0,noinit_itable"
MKFS = "-i 8192 -b 4096 -I 256 -m 0 -O ^resize_inode -J size=16 -E lazy_itable_init=1,nodiscard"
FLAGS = MountFlag.NO_ATIME | MountFlag.NO_DEVICES | MountFlag.NO_SETUID | MountFlag.SILENT
IMAGE_MIB = 10_240
CAPABILITIES = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_MKNOD",
]


def run(*argv: str | Path, check: bool = True) -> str:
    """Run a command; its output is in the error when it fails."""
    done = subprocess.run([str(a) for a in argv], capture_output=True, text=True, check=False, timeout=900)
    if check and done.returncode:
        raise SystemExit(f"{argv}: {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done.stdout


@dataclass
class Bench:
    """Where everything is."""

    work: Path
    runsc: Path
    image: Path
    overlay: str
    ext4: str
    mkfs: list[str]
    loop: list[str]

    @property
    def lower(self) -> Path:
        return self.work / "lower"

    def pool(self, kind: str) -> Path:
        return self.work / f"pool-{kind}"


@contextlib.contextmanager
def mounted(source: Path | str, target: Path, *options: str) -> Iterator[Path]:
    """A mount that is taken away again."""
    target.mkdir(parents=True, exist_ok=True)
    run("mount", *options, source, target)
    try:
        yield target
    finally:
        run("umount", target, check=False)


@contextlib.contextmanager
def pools(bench: Bench) -> Iterator[None]:
    """EROFS lower, one XFS and one btrfs pool, each in a sparse loop file."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(mounted(bench.image, bench.lower, "-t", "erofs", "-o", "ro,loop,nodev"))
        for kind, mkfs in (("xfs", ["mkfs.xfs", "-q", "-m", "reflink=1"]), ("btrfs", ["mkfs.btrfs", "-q"])):
            file = bench.work / f"{kind}.img"
            with file.open("wb") as f:
                f.truncate(48 << 30)
            run(*mkfs, file)
            device = run("losetup", "--find", "--show", "--direct-io=on", file).strip()
            options = "discard,noatime,nodev,nosuid"
            stack.enter_context(mounted(device, bench.pool(kind), "-o", options))
            run("losetup", "--detach", device)  # lazily: it goes with the mount
        run("btrfs", "quota", "enable", bench.pool("btrfs"))
        with (bench.pool("xfs") / "empty.ext4").open("wb") as f:
            f.truncate(IMAGE_MIB << 20)
        run("mkfs.ext4", "-q", *bench.mkfs, bench.pool("xfs") / "empty.ext4")
        yield
        for kind in ("xfs", "btrfs"):
            (bench.work / f"{kind}.img").unlink()


class Upper:
    """One prepared upper of a candidate; `prepare` and `release` are what hostd would do per sandbox."""

    def __init__(self, bench: Bench, name: str) -> None:
        self.bench, self.name = bench, name
        self.base = bench.work / "uppers" / name
        self.merged = self.base / "merged"
        self.upper = self.base / "fs" / "upper"

    def prepare(self) -> None:
        self.merged.mkdir(parents=True)
        self.attach()
        self.upper.mkdir(exist_ok=True)
        (self.base / "fs" / "work").mkdir(exist_ok=True)
        lower, fs = self.bench.lower, self.base / "fs"
        options = f"lowerdir={lower},upperdir={fs}/upper,workdir={fs}/work,{self.bench.overlay}"
        mount("overlay", self.merged, "overlay", FLAGS, options)

    def release(self) -> None:
        self.detach()
        shutil.rmtree(self.base)

    def attach(self) -> None:
        raise NotImplementedError

    def detach(self) -> None:
        raise NotImplementedError


class Ext4Image(Upper):
    @property
    def file(self) -> Path:
        return self.bench.pool("xfs") / f"{self.name}.ext4"

    def attach(self) -> None:
        filesystems.clone_file(self.bench.pool("xfs") / "empty.ext4", self.file)
        (self.base / "fs").mkdir()
        if not self.bench.loop:
            with loop.attached(self.file) as device:
                mount(device, self.base / "fs", "ext4", FLAGS, self.bench.ext4)
            return
        device = Path(run("losetup", "--find", "--show", *self.bench.loop, self.file).strip())
        mount(device, self.base / "fs", "ext4", FLAGS, self.bench.ext4)
        run("losetup", "--detach", device)  # lazily: it goes with the mount

    def detach(self) -> None:
        filesystems.shut_down(self.base / "fs")
        unmount(self.merged)
        unmount(self.base / "fs")
        self.file.unlink()


class XfsDir(Upper):
    def attach(self) -> None:
        (self.bench.pool("xfs") / self.name).mkdir()
        (self.base / "fs").symlink_to(self.bench.pool("xfs") / self.name)

    def detach(self) -> None:
        unmount(self.merged)
        shutil.rmtree(self.bench.pool("xfs") / self.name)


class BtrfsSubvolume(Upper):
    def attach(self) -> None:
        subvolume = self.bench.pool("btrfs") / self.name
        run("btrfs", "subvolume", "create", subvolume)
        run("btrfs", "qgroup", "limit", f"{IMAGE_MIB}M", subvolume)
        (self.base / "fs").symlink_to(subvolume)

    def detach(self) -> None:
        unmount(self.merged)
        run("btrfs", "subvolume", "delete", self.bench.pool("btrfs") / self.name)


class RunscOverlay(Upper):
    def prepare(self) -> None:
        self.merged = self.bench.lower
        self.base.mkdir(parents=True)

    def release(self) -> None:
        shutil.rmtree(self.base)


CANDIDATES: dict[str, type[Upper]] = {
    "ext4-image": Ext4Image,
    "xfs-dir": XfsDir,
    "btrfs-subvol": BtrfsSubvolume,
    "runsc-overlay": RunscOverlay,
}


def make_inputs(work: Path) -> None:
    """What the guest unpacks: 25,000 files like node_modules as a tar, a git repository of 5,000 files."""
    inputs = work / "inputs"
    if (inputs / "tree.tar").exists():
        return
    rng = random.Random(1)  # noqa: S311 - sizes of test files
    tree, repo = inputs / "node_modules", inputs / "repo"
    for n in range(25_000):
        path = tree / f"package-{n // 60}" / ("lib" if n % 3 else "dist/esm") / f"file-{n}.js"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(rng.randbytes(min(int(rng.lognormvariate(7.3, 1.3)), 1 << 20)))
    with tarfile.open(inputs / "tree.tar", "w") as tar:
        tar.add(tree, arcname="node_modules")
    for n in range(5_000):
        path = repo / f"d{n % 100}" / f"f{n}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(rng.randbytes(min(int(rng.lognormvariate(7.5, 1.2)), 1 << 20)))
    shutil.rmtree(tree)
    git: list[str | Path] = ["git", "-C", repo, "-c", "user.name=bench", "-c", "user.email=bench@localhost"]
    run("git", "init", "-q", repo)
    run(*git, "add", ".")
    run(*git, "commit", "-q", "-m", "tree")


def sandbox(bench: Bench, upper: Upper, *argv: str) -> list[dict[str, object]]:
    """Run the guest script in a gVisor sandbox on this root; one JSON object per line of its output."""
    bundle = upper.base / "bundle"
    bundle.mkdir(exist_ok=True)
    bind = ["rbind", "ro"]
    config = {
        "ociVersion": "1.0.2",
        "root": {"path": str(upper.merged), "readonly": False},
        "hostname": "bench",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": ["python3", "/data/guest.py", *argv],
            "env": ["PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "HOME=/root"],
            "cwd": "/",
            "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), CAPABILITIES),
        },
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/data", "type": "bind", "source": str(bench.work / "inputs"), "options": bind},
        ],
        "linux": {"namespaces": [{"type": t} for t in ("pid", "mount", "ipc", "uts", "network")]},
    }
    shutil.copy(GUEST, bench.work / "inputs" / "guest.py")
    (bundle / "config.json").write_text(json.dumps(config))
    own = (
        f"--overlay2=root:dir={upper.base},size=16g" if isinstance(upper, RunscOverlay) else "--overlay2=none"
    )
    flags = ["--network=none", "--ignore-cgroups", own]
    out = run(bench.runsc, "--root", bench.work / "runsc", *flags, "run", "--bundle", bundle, upper.name)
    return [json.loads(line) for line in out.splitlines() if line.startswith("{")]


def in_guest(bench: Bench, names: list[str], rounds: int) -> dict[str, dict[str, float]]:
    """Median seconds per step and candidate; rounds alternate between candidates, so that drift hits all."""
    seen: dict[str, dict[str, list[float]]] = {name: {} for name in names}
    for round_ in range(rounds):
        for name in names:
            upper = CANDIDATES[name](bench, f"{name}-{round_}")
            upper.prepare()
            for line in sandbox(bench, upper, "work"):
                for step, seconds in line.items():
                    seen[name].setdefault(step, []).append(float(str(seconds)))
            upper.release()
            print(f"# {name} round {round_} done", file=sys.stderr, flush=True)
    return {n: {s: round(statistics.median(v), 3) for s, v in steps.items()} for n, steps in seen.items()}


def timed_ms(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return round((time.perf_counter() - start) * 1000, 2)


def host_side(bench: Bench, names: list[str]) -> dict[str, dict[str, float]]:
    """Prepare and release times, and kernel memory per prepared root."""
    result: dict[str, dict[str, float]] = {}
    for name in names:
        uppers = [CANDIDATES[name](bench, f"{name}-h{n}") for n in range(200)]
        before = memory_kib()
        prepare = [timed_ms(u.prepare) for u in uppers]
        per_mount = (memory_kib() - before) / len(uppers)
        write_bytes(uppers[0].merged, files=1, size=1 << 30)
        write_bytes(uppers[1].merged, files=50_000, size=2_000)
        big, many = timed_ms(uppers[0].release), timed_ms(uppers[1].release)
        release = [timed_ms(u.release) for u in uppers[2:]]
        result[name] = {
            "prepare_ms": statistics.median(prepare),
            "release_empty_ms": statistics.median(release),
            "release_1_gib_just_written_ms": big,
            "release_50000_files_just_written_ms": many,
            "memory_kib_per_mount": round(per_mount),
        }
    return result


def write_bytes(merged: Path, *, files: int, size: int) -> None:
    """Files of one size below a root's /home."""
    block = os.urandom(min(size, 1 << 20))
    for number in range(files):
        path = merged / "home" / f"d{number // 200}" / str(number)
        path.parent.mkdir(exist_ok=True)
        with path.open("wb") as file:
            for _ in range(max(1, size >> 20)):
                file.write(block)


def memory_kib() -> int:
    """Memory of kernel and processes, without caches of files."""
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("2")
    fields = {}
    for line in Path("/proc/meminfo").read_text().splitlines():
        key, _, rest = line.partition(":")
        fields[key] = int(rest.split()[0])
    return fields["MemTotal"] - fields["MemFree"] - fields["Cached"] - fields["Buffers"]


def space_back(bench: Bench, names: list[str]) -> dict[str, dict[str, float]]:
    """5 GB written, deleted, released: MiB that the pool's backing file takes at each point."""
    result: dict[str, dict[str, float]] = {}
    for name in names:
        upper = CANDIDATES[name](bench, f"{name}-s")
        kind = "btrfs" if name.startswith("btrfs") else "xfs"
        pool = bench.pool(kind)

        def taken(pool: Path = pool, kind: str = kind) -> int:
            run("fstrim", pool, check=False)
            os.sync()
            return (bench.work / f"{kind}.img").stat().st_blocks // 2048

        upper.prepare()
        steps: dict[str, float] = {"empty_mib": taken()}
        sandbox(bench, upper, "fill", str(5 << 30))
        steps["full_mib"] = taken()
        sandbox(bench, upper, "unfill")
        os.sync()
        steps["deleted_mib"] = taken()
        upper.release()
        steps["released_mib"] = taken()
        result[name] = steps
    return result


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runsc", type=Path, required=True)
    parser.add_argument("--image", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--only", default="guest,host,space,snapshot")
    parser.add_argument("--candidates", default=",".join(CANDIDATES))
    parser.add_argument("--overlay", default=OVERLAY)
    parser.add_argument("--ext4", default=EXT4)
    parser.add_argument("--mkfs", default=MKFS)
    parser.add_argument("--loop", default="", help="arguments for losetup(8), to try other loop options")
    a = parser.parse_args()
    if os.environ.get("SKERRY_BENCH_NS") is None:  # everything that is mounted goes with this namespace
        again = ["unshare", "--mount", sys.executable, "-m", "bench.storage_candidates", *sys.argv[1:]]
        os.execvpe("unshare", again, {**os.environ, "SKERRY_BENCH_NS": "1"})  # noqa: S606
    a.work.mkdir(parents=True, exist_ok=True)
    bench = Bench(a.work.resolve(), a.runsc, a.image, a.overlay, a.ext4, a.mkfs.split(), a.loop.split())
    names = a.candidates.split(",")
    readable = [n for n in names if n != "runsc-overlay"]
    shutil.rmtree(bench.work / "uppers", ignore_errors=True)
    make_inputs(bench.work)
    result: dict[str, object] = {}
    with pools(bench):
        if "guest" in a.only:
            result["guest_s"] = in_guest(bench, names, a.rounds)
        if "host" in a.only:
            result["host"] = host_side(bench, readable)
        if "space" in a.only:
            result["space"] = space_back(bench, readable)
        if "snapshot" in a.only:
            uppers = {name: partial(CANDIDATES[name], bench, f"{name}-snap") for name in readable}
            result["snapshot_pause_ms"] = measure_snapshots(uppers, bench.work)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
