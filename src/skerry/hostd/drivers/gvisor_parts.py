"""What belongs to one gVisor sandbox on the host: found by name, made, ended and freed, whole or in part."""

import asyncio
import contextlib
import errno
import os
import shutil
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from skerry.errors import RuntimeFailed, SkerryError, TimedOut
from skerry.hostd.cgroups.group import Group
from skerry.hostd.cgroups.layout import Limits
from skerry.hostd.drivers import conmon, oci_spec
from skerry.hostd.drivers.base import AgentEndpoint, Networks
from skerry.hostd.drivers.runsc import Runsc
from skerry.hostd.places import Places
from skerry.hostd.sys.processes import ProcessHandle, command_line
from skerry.spec.ids import SandboxId
from skerry.spec.sandbox import Ended, StartSpec

MIB = 1 << 20

OVERHEAD_MIB = 256
"""Host memory of a sandbox beyond the guest's own, at most: gVisor's kernel and file server, page tables, and
the room in which the agent acts between the first sign of pressure and the hard limit. An idle sandbox uses
about 25 MiB of it.
"""

PRESSURE_ABOVE_MIB = 48
"""Holding the guest's memory and this much more is pressure."""

HOST_TASKS_PER_GUEST_TASK = 4
HOST_TASKS_BASE = 1024
"""Guard of the host. A sandbox that reaches it dies as a whole, so it is far above what the limit inside
allows.
"""

PARENT_S = 2.0
RUNTIMES_S = 5.0


@dataclass(frozen=True, slots=True)
class Processes:
    """The two processes that are watched.

    Attributes:
        sandbox: gVisor's kernel; its end is the sandbox's.
        parent: Writes the exit status and ends after that; None when it is gone already.
    """

    sandbox: ProcessHandle
    parent: ProcessHandle | None

    def close(self) -> None:
        """Let go of them."""
        self.sandbox.close()
        if self.parent is not None:
            self.parent.close()


class Parts:
    """One sandbox, running or not. Keeps nothing that the kernel and the files do not say."""

    def __init__(
        self, sandbox_id: SandboxId, *, places: Places, networks: Networks, group: Group, runsc: Runsc
    ) -> None:
        self.place = places.sandbox(sandbox_id)
        self.group = group
        self._sandbox_id = sandbox_id
        self._network_file = places.network(sandbox_id)
        self._networks = networks
        self._runsc = runsc

    async def create(
        self, spec: StartSpec, endpoint: AgentEndpoint, root: Path, agent_dir: Path
    ) -> Processes:
        """Make everything and start the first process. On failure parts are left, for `end` and `free`.

        Raises:
            RuntimeFailed, TimedOut: As the message says.
        """
        layout = oci_spec.GuestLayout(
            root=root,
            agent_dir=agent_dir,
            channel_dir=endpoint.directory,
            network=self._network_file,
            group=self.group.path,
            memory_mib=spec.memory_mib,
            max_processes=spec.max_processes,
        )
        tasks = HOST_TASKS_BASE + HOST_TASKS_PER_GUEST_TASK * spec.max_processes
        try:
            self._make_files(layout)
        except OSError as error:
            raise RuntimeFailed("the sandbox could not be set up", detail=str(error)) from error
        await self._networks.make(self._sandbox_id)
        # While it is created the limit is the guest's memory, because gVisor shows the limit that it finds to
        # the guest.
        self.group.create(Limits(spec.memory_mib * MIB, spec.cpus, tasks))
        await conmon.create(self._runsc, self.place)
        self.group.set_memory_limit((spec.memory_mib + OVERHEAD_MIB) * MIB)
        processes = self.processes()
        if processes is None:
            raise RuntimeFailed(
                "the sandbox ended at once", detail=conmon.read_log(self.place.log, max_bytes=2048)
            )
        self.place.started.touch()
        return processes

    def _make_files(self, layout: oci_spec.GuestLayout) -> None:
        for path in (self.place.path, self.place.exits, self.place.attach):
            path.mkdir(mode=0o700, exist_ok=True)
        self.place.config.write_bytes(msgspec.json.encode(oci_spec.build(layout)))
        keep_tmp_on_disk(layout.root)

    def processes(self) -> Processes | None:
        """Take hold of the running sandbox; None when it does not run."""
        handle = _open_recorded(self.place.pid_file)
        if handle is None:
            return None
        # Only after the handle is held does a look at the number say whether it is ours.
        if not self.group.has(handle.pid):
            handle.close()
            return None
        return Processes(handle, self.parent())

    def parent(self) -> ProcessHandle | None:
        """Take hold of the sandbox's parent; None when it is gone."""
        handle = _open_recorded(self.place.parent_pid_file)
        if handle is None:
            return None
        if self.place.name.encode() not in command_line(handle.pid):
            handle.close()
            return None
        return handle

    def outcome(self) -> Ended:
        """How it ended, as far as that is known."""
        return Ended(conmon.read_exit_status(self.place), oom=self.group.usage().out_of_memory_kills > 0)

    def memory_threshold_bytes(self) -> int:
        """Above this, its memory is almost used up; derived from the limit in force."""
        return self.group.memory_limit_bytes() - (OVERHEAD_MIB - PRESSURE_ABOVE_MIB) * MIB

    async def end(self) -> None:
        """Kill all its processes and let the parent record that. Idempotent; works on frozen ones and on
        half-made ones.

        Raises:
            TimedOut: Some process is still there.
        """
        await self.group.kill()
        if not await self._parent_is_done():
            # A start was interrupted: conmon or a runsc that is not in the group yet goes on by itself.
            await self._end_runtimes()
            await self.group.kill()

    async def _parent_is_done(self) -> bool:
        """Wait until the parent of a started sandbox has ended; False when it does not. Of an interrupted
        start nobody knows which processes there are."""
        if not self.place.started.exists():
            return not self.place.config.exists()
        parent = self.parent()
        if parent is None:
            return True
        try:
            async with asyncio.timeout(PARENT_S):
                await parent.wait()
        except TimeoutError:
            return False
        finally:
            parent.close()
        return True

    async def _end_runtimes(self) -> None:
        """Kill them until none is found: one that is killed may have started another after the look."""
        try:
            async with asyncio.timeout(RUNTIMES_S):
                while found := list(self._runtime_processes()):
                    with contextlib.ExitStack() as held:
                        for handle in found:
                            held.callback(handle.close)
                            handle.kill()
                        for handle in found:
                            await handle.wait()
        except TimeoutError:
            raise TimedOut("ending an interrupted start", RUNTIMES_S) from None

    def _runtime_processes(self) -> Iterator[ProcessHandle]:
        """Root's processes that have the sandbox's name as an argument: conmon, and a runsc that is not in
        the group yet.
        """
        name = self.place.name.encode()
        for entry in os.listdir("/proc"):
            if not entry.isdecimal():
                continue
            handle = ProcessHandle.open(int(entry))
            if handle is None:
                continue
            if name in command_line(handle.pid) and _is_roots(handle.pid):
                yield handle
            else:
                handle.close()

    async def free(self, release_root: Callable[[], Awaitable[None]]) -> None:
        """Remove everything but the processes, which have ended. Idempotent; does as much as it can.

        Raises:
            SkerryError: The first thing that could not be removed; the call can be repeated.
        """
        problems: list[SkerryError] = []

        async def attempt(step: Callable[[], Awaitable[None]]) -> None:
            try:
                await step()
            except SkerryError as error:
                problems.append(error)
            except OSError as error:
                problems.append(RuntimeFailed("a sandbox could not be removed completely", detail=str(error)))

        await attempt(self.group.remove)
        await attempt(self._remove_network)
        await attempt(release_root)
        if not problems:
            await attempt(self._remove_files)  # last: this directory is what a later recovery finds
        if problems:
            for other in problems[1:]:
                problems[0].add_note(f"also: {other.message} {other.detail}")
            raise problems[0]

    async def _remove_network(self) -> None:
        await self._networks.remove(self._sandbox_id)

    async def _remove_files(self) -> None:
        self._runsc.forget(self.place.name)
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self.place.path)


def keep_tmp_on_disk(root: Path) -> None:
    """Make sure that the guest's /tmp is not empty, as on a booted Debian: over an empty one gVisor mounts a
    tmpfs, which would use up memory.

    The tree is not trusted: no link is followed.
    """
    with contextlib.ExitStack() as stack:

        def opened(name: str | Path, directory: int | None = None) -> int:
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(name, flags, dir_fd=directory)
            stack.callback(os.close, descriptor)
            return descriptor

        try:
            tmp = opened("tmp", opened(root))
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                return
            raise
        if not os.listdir(tmp):
            os.mkdir(".X11-unix", dir_fd=tmp)
            os.fchmod(opened(".X11-unix", tmp), 0o1777)


def _open_recorded(pid_file: Path) -> ProcessHandle | None:
    try:
        text = pid_file.read_text().strip()
    except OSError:
        return None
    return ProcessHandle.open(int(text)) if text.isdecimal() else None


def _is_roots(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}").stat().st_uid == 0
    except OSError:
        return False
