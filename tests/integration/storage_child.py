"""A process in hostd's place for the storage tests: enters the pinned mount namespace and carries out steps.

Started as ``python -m tests.integration.storage_child RUNTIME_DIR DATA_DIR``; reads a JSON list of steps
``[name, argument…]`` from stdin, prints a JSON list with one answer per step. An error of Skerry is the
answer ``{"error": class, "message": …}``.
"""

import asyncio
import inspect
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from skerry.errors import SkerryError
from skerry.hostd.storage import disk_pool, root_store
from skerry.hostd.storage.root_store import RootStore
from skerry.hostd.sys import filesystems, loop, mount_namespace
from skerry.hostd.sys.mounts import mounts_below
from skerry.spec.ids import SandboxId

DEADLINE_S = 50.0

FILL = """
import os, sys
written, error = 0, 0
with open(sys.argv[1], "wb", buffering=0) as file:
    try:
        while written < int(sys.argv[2]) << 20:
            written += file.write(b"x" * (1 << 20))
        os.fsync(file.fileno())
    except OSError as e:
        error = e.errno
print(written >> 20, error, flush=True)
"""
"""Write so many MiB or up to the limit; print MiB and errno."""


class Steps:
    """Each public method is a step."""

    def __init__(self, runtime: Path, data: Path) -> None:
        self._runtime = runtime
        self._store = RootStore(data, runtime / "mounts")
        self._running: dict[str, subprocess.Popen[str]] = {}

    async def open(self) -> None:
        await self._store.open()

    async def prepare(self, sandbox_id: str, image: str, disk_mib: int) -> str:
        return str(await self._store.prepare(SandboxId(sandbox_id), Path(image), disk_mib))

    async def prepare_many_and_cancel_some(self, image: str, count: int) -> list[str]:
        """Prepare roots all at once, cancel every second preparation → the IDs that were not cancelled."""
        ids = [SandboxId(f"sbx_ord_{number:0>20}") for number in range(count)]
        async with asyncio.TaskGroup() as tasks:
            begun = [tasks.create_task(self._store.prepare(each, Path(image), 256)) for each in ids]
            await begun[0]
            for task in begun[1::2]:
                task.cancel()
        return [str(each) for each, task in zip(ids, begun, strict=True) if not task.cancelled()]

    async def release(self, sandbox_id: str) -> None:
        await self._store.release(SandboxId(sandbox_id))

    async def present(self) -> list[str]:
        return [str(sandbox_id) for sandbox_id in await self._store.present()]

    async def usage(self, sandbox_id: str) -> int:
        return await self._store.usage(SandboxId(sandbox_id))

    async def held_by_others(self) -> list[str]:
        return [str(path) for path in await self._store.held_by_others()]

    async def look(self) -> None:
        """One round of the guard."""
        await asyncio.to_thread(self._store._look)

    async def close(self, keep: bool) -> None:
        await self._store.close(keep=keep)

    async def mounted(self) -> list[str]:
        """What is mounted below the runtime directory, except the directory's own bind."""
        below = [
            str(point.path.relative_to(self._runtime)) for point in mounts_below(self._runtime / "mounts")
        ]
        return [path for path in below if path != "mounts"]

    async def shell(self, script: str) -> list[Any]:
        """Run a shell script in the namespace → [status, output]."""
        done = await asyncio.to_thread(
            subprocess.run, ["sh", "-c", script], capture_output=True, text=True, check=False
        )
        return [done.returncode, done.stdout + done.stderr]

    async def fill(self, path: str, mib: int) -> list[int]:
        """Write through the merged root, without a sandbox → [MiB, errno]."""
        done = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-c", FILL, path, str(mib)],
            capture_output=True,
            text=True,
            check=True,
        )
        return [int(number) for number in done.stdout.split()]

    async def shut_down(self, path: str) -> str | None:
        """Try to end a file system → why not."""
        try:
            filesystems.shut_down(Path(path))
        except (filesystems.NotMounted, OSError) as error:
            return type(error).__name__
        return None

    def hold(self, directory: str) -> int:
        """Start a process that lives in a directory → its pid."""
        process = subprocess.Popen(
            ["sleep", "60"],
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._running[str(process.pid)] = process
        return process.pid

    async def let_go(self, name: str) -> None:
        process = self._running.pop(name)
        process.kill()
        process.wait(DEADLINE_S)

    def sandbox(self, runsc: str, name: str, root: str, *argv: str) -> str:
        """Start a gVisor sandbox on a root and wait for its first line of output."""
        bundle = self._runtime / f"bundle-{name}"
        bundle.mkdir()
        caps = ["CAP_DAC_OVERRIDE", "CAP_CHOWN", "CAP_FOWNER", "CAP_KILL"]
        config = {
            "ociVersion": "1.0.2",
            "root": {"path": root, "readonly": False},
            "process": {
                "user": {"uid": 0, "gid": 0},
                "args": list(argv),
                "env": ["PATH=/usr/bin:/bin"],
                "cwd": "/",
                "capabilities": {"bounding": caps, "effective": caps, "permitted": caps},
            },
            "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
            "linux": {"namespaces": [{"type": kind} for kind in ("pid", "mount", "ipc", "uts", "network")]},
        }
        (bundle / "config.json").write_text(json.dumps(config))
        flags = [
            "--root",
            str(self._runtime / "runsc"),
            "--network=none",
            "--ignore-cgroups",
            "--overlay2=none",
        ]
        process = subprocess.Popen(
            [runsc, *flags, "run", "--bundle", str(bundle), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._running[name] = process
        assert process.stdout is not None
        return process.stdout.readline()

    async def finish(self, name: str) -> str:
        """Close a sandbox's stdin, wait for its end → the rest of its output."""
        rest, _ = await asyncio.to_thread(self._running.pop(name).communicate, timeout=DEADLINE_S)
        return rest

    async def die_around(self, where: str, call: int, after: bool) -> None:
        """From now on the n-th call of one function is this process's end, before or after it is done."""
        module, name = {
            "clone": (filesystems, "clone_file"),
            "configure": (loop, "_configure"),
            "mount": (root_store, "mount"),
            "mount_disk": (disk_pool, "mount"),
            "shut_down": (filesystems, "shut_down"),
            "unmount": (root_store, "unmount"),
        }[where]
        setattr(module, name, _deadly(getattr(module, name), call, after))


def _deadly(original: Callable[..., object], call: int, after: bool) -> Callable[..., object]:
    calls = 0

    def wrapper(*args: object, **kwargs: object) -> object:
        nonlocal calls
        calls += 1
        if calls == call and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*args, **kwargs)
        if calls == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return wrapper


async def main() -> None:
    """Carry out the steps."""
    steps = Steps(Path(sys.argv[1]), Path(sys.argv[2]))
    answers = []
    for name, *arguments in json.loads(sys.stdin.read()):
        try:
            async with asyncio.timeout(DEADLINE_S):
                answer = getattr(steps, name)(*arguments)
                answers.append(await answer if inspect.isawaitable(answer) else answer)
        except SkerryError as error:
            answers.append({"error": type(error).__name__, "message": error.message})
    print(json.dumps(answers))


if __name__ == "__main__":
    mount_namespace.enter(Path(sys.argv[1]) / "mntns")
    asyncio.run(main())
