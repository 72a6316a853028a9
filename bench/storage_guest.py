"""What agents do to a file system.

Runs inside the sandbox for `storage_candidates.py` and prints one JSON object per step (seconds).
"""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

HOME = Path("/home/app/bench")


def step(name: str, action: Callable[[], object]) -> None:
    """Time one step."""
    start = time.perf_counter()
    action()
    print(json.dumps({name: time.perf_counter() - start}), flush=True)


def small_create() -> None:
    """5,000 files of 100 bytes in one directory."""
    (HOME / "small").mkdir()
    for n in range(5_000):
        with open(HOME / "small" / str(n), "wb") as f:
            f.write(b"x" * 100)


def small_read() -> None:
    """Read them again."""
    for n in range(5_000):
        (HOME / "small" / str(n)).read_bytes()


def sh(command: str) -> Callable[[], object]:
    """A step that is a shell command."""
    return lambda: subprocess.run(["sh", "-c", command], check=True, cwd=HOME)


def sqlite_commits() -> None:
    """300 single-row transactions with SQLite's defaults: several fsync each."""
    db = sqlite3.connect(HOME / "a.db")
    db.execute("create table t (n integer, s text)")
    for n in range(300):
        with db:
            db.execute("insert into t values (?, ?)", (n, "x" * 100))
    db.close()


def sqlite_bulk() -> None:
    """200,000 rows in WAL mode, 20 transactions."""
    db = sqlite3.connect(HOME / "b.db")
    db.execute("pragma journal_mode=wal")
    db.execute("create table t (n integer primary key, s text)")
    for batch in range(20):
        with db:
            db.executemany(
                "insert into t values (?, ?)", ((batch * 10_000 + n, "y" * 80) for n in range(10_000))
            )
    db.close()


def write_1g(*, sync: bool) -> Callable[[], None]:
    """1 GiB in 1 MiB writes."""

    def action() -> None:
        block = os.urandom(1 << 20)
        fd = os.open(HOME / "big", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for _ in range(1024):
            os.write(fd, block)
        if sync:
            os.fsync(fd)
        os.close(fd)

    return action


def read_1g() -> None:
    """Read it again."""
    fd = os.open(HOME / "big", os.O_RDONLY)
    while os.read(fd, 1 << 20):
        pass
    os.close(fd)


def copy_up() -> None:
    """Append a byte to 300 files of the image."""
    done = 0
    for root, _, files in os.walk("/usr/lib/python3"):
        for name in files:
            path = os.path.join(root, name)
            if done == 300 or os.path.islink(path):
                continue
            with open(path, "ab") as f:
                f.write(b"\n")
            done += 1
    if done < 300:
        for root, _, files in os.walk("/usr/share"):
            for name in files[: max(0, 300 - done)]:
                path = os.path.join(root, name)
                if not os.path.islink(path):
                    with open(path, "ab") as f:
                        f.write(b"\n")
                    done += 1


def work() -> None:
    """Everything that is timed."""
    HOME.mkdir(parents=True)
    step("create 5,000 small", small_create)
    step("read 5,000 small", small_read)
    step("remove 5,000 small", lambda: shutil.rmtree(HOME / "small"))
    step("untar 25,000 files", sh("tar -xf /data/tree.tar"))
    step("walk 25,000 (find -size)", sh("find node_modules -size +1M | wc -l > /dev/null"))
    step("copy 25,000 (cp -a)", sh("cp -a node_modules copy"))
    step("remove 25,000", sh("rm -rf copy"))
    step("venv with pip", sh("python3 -m venv v"))
    step("git clone 5,000 files", sh("git -c safe.directory='*' clone -q file:///data/repo clone"))
    step("git status", sh("git -C clone status --short > /dev/null"))
    step("sqlite 300 commits", sqlite_commits)
    step("sqlite 200,000 rows WAL", sqlite_bulk)
    step("write 1 GiB + fsync", write_1g(sync=True))
    step("rewrite 1 GiB", write_1g(sync=False))
    step("read 1 GiB", read_1g)
    step("copy up 300", copy_up)
    step("rename image dir", lambda: os.rename("/usr/share/perl5", "/usr/share/perl5-moved"))
    step("sync", os.sync)


def fill(size: int) -> None:
    """Write a file of this size, or up to the limit; say what the limit looks like."""
    written, error = 0, 0
    block = os.urandom(1 << 20)
    with open("/home/app/fill", "wb", buffering=0) as f:
        try:
            while written < size:
                written += f.write(block)
            os.fsync(f.fileno())
        except OSError as e:
            error = e.errno or -1
    print(json.dumps({"written": written, "errno": error}))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["work"]:
            work()
        case ["fill", size]:
            fill(int(size))
        case ["unfill"]:
            os.unlink("/home/app/fill")
            os.sync()
