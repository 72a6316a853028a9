"""Runs `tests.harness.hostd_child` and counts what an instance has on the machine."""

import asyncio
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from skerry.control.clock import SystemClock
from skerry.control.host_client import HostdClient
from skerry.control.tasks import Tasks
from skerry.hostd.sys import loop, mount_namespace, nftables
from skerry.hostd.sys.mounts import mounts_below
from skerry.spec.ids import InstanceId, new_instance_id
from skerry.spec.settings import Settings
from tests.conftest import REPOSITORY, Built
from tests.harness.hostd_child import READY

RUNTIME_ROOT = Path("/run/skerry")
IMAGE = "builtin:debian-13"
START_S = 30.0
STOP_S = 40.0
EGRESS_UID = 64_321
"""Stands for egressd's user; no account of the machine."""


class HostdProcess:
    """One instance's hostd, which can be stopped, killed and started again over the same sandboxes.

    Args:
        allowed_uid: Who may call it.
    """

    def __init__(self, settings: Settings, instance: InstanceId, *, allowed_uid: int) -> None:
        self.settings = settings
        self.instance = instance
        self.runtime_dir = RUNTIME_ROOT / instance
        self._allowed_uid = allowed_uid
        self._process: asyncio.subprocess.Process | None = None

    @property
    def socket(self) -> Path:
        """Where it takes verbs."""
        return self.runtime_dir / "hostd.sock"

    async def start(self) -> None:
        """Start it and wait until it takes verbs."""
        self.runtime_dir.mkdir(mode=0o755, parents=True, exist_ok=True)
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.harness.hostd_child"),
            *(str(self.runtime_dir), self.instance, str(self._allowed_uid), str(EGRESS_UID)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=REPOSITORY,
            start_new_session=True,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(msgspec.json.encode(self.settings) + b"\n")
        async with asyncio.timeout(START_S):
            # Its log goes to the same pipe, one line each.
            while (line := await self._process.stdout.readline()) != f"{READY}\n".encode():
                assert line, "hostd ended"

    async def stop(self, *, keep: bool) -> None:
        """Ask it to end and wait."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(b"keep\n" if keep else b"destroy\n")
        async with asyncio.timeout(STOP_S):
            output, _ = await self._process.communicate()
        assert self._process.returncode == 0, output.decode()

    async def kill(self) -> None:
        """End it without warning."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        async with asyncio.timeout(STOP_S):
            await self._process.communicate()

    def remove(self) -> None:
        """What `skerry down` does after hostd has ended."""
        mount_namespace.remove(self.runtime_dir / "mntns")
        shutil.rmtree(self.runtime_dir)

    def left(self) -> list[str]:
        """Everything that the machine has of this instance: processes, control groups, mounts, loop devices,
        packet filter rules, files.
        """
        return [
            *_processes(f"skerry-{self.instance}-"),
            *(str(path) for path in Path("/sys/fs/cgroup").glob(f"*/skerry-{self.instance}")),
            *(str(path) for path in Path("/sys/fs/cgroup").glob(f"skerry-{self.instance}")),
            *(str(point.path) for point in mounts_below(self.runtime_dir)),
            *(name for name in nftables.tables() if self.instance in name),
            *(one.backing_file for one in loop.devices() if self.settings.data_dir in one.backing_file),
            *(str(path) for path in self.runtime_dir.rglob("*")),
            *(str(path) for path in Path(self.settings.data_dir, "host").rglob("*.ext4")),
        ]


def _processes(part: str) -> list[str]:
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if part in line:
            found.append(f"{entry.name}: {line}")
    return found


def settings_for(built: Built, data_dir: Path, **changes: Any) -> Settings:
    """Settings with what was built."""
    settings = Settings(
        data_dir=str(data_dir),
        agent_path=str(built.agent),
        runsc_path=str(built.runsc),
        images={IMAGE: str(built.image)},
        image_digests={IMAGE: built.image_digest},
    )
    return msgspec.structs.replace(settings, **changes)


@asynccontextmanager
async def instance(
    built: Built, *, allowed_uid: int | None = None, **changes: Any
) -> AsyncIterator[HostdProcess]:
    """An instance with a running hostd; at the end everything is destroyed, and nothing may be left."""
    data_dir = Path(tempfile.mkdtemp(prefix="skerry-test-"))
    name = new_instance_id(secrets.randbelow)
    uid = os.getuid() if allowed_uid is None else allowed_uid
    hostd = HostdProcess(settings_for(built, data_dir, **changes), name, allowed_uid=uid)
    try:
        await hostd.start()
        yield hostd
    finally:
        await hostd.stop(keep=False)
        hostd.remove()
        shutil.rmtree(data_dir)
    assert hostd.left() == []


@asynccontextmanager
async def client_of(hostd: HostdProcess) -> AsyncIterator[HostdClient]:
    """The client that api uses."""
    async with Tasks() as tasks:
        yield HostdClient(hostd.socket, tasks=tasks, clock=SystemClock())
