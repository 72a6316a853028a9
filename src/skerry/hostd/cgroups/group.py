"""The control group of one sandbox: made, limited, frozen, emptied, removed."""

import asyncio
import contextlib
import errno
import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from skerry.errors import RuntimeFailed, TimedOut
from skerry.hostd.cgroups.layout import (
    OPTIONAL_FILES,
    REQUIRED_V2,
    Hierarchies,
    Limits,
    held_v1,
    held_v2,
    parse_counters,
    v1_settings,
    v2_settings,
)
from skerry.hostd.sys.processes import ProcessHandle

FREEZE_S = 3.0
EMPTY_S = 6.0
REMOVE_S = 3.0

_FIRST_PAUSE_S = 0.0003
_LONGEST_PAUSE_S = 0.02


@dataclass(frozen=True, slots=True)
class GroupUsage:
    """What a group uses.

    Attributes:
        held_bytes: Memory that only its processes can give back; see `held_v1`.
        out_of_memory_kills: Times the kernel killed a process of it for lack of memory.
    """

    held_bytes: int
    cpu_us: int
    processes: int
    out_of_memory_kills: int


class Group(ABC):
    """One sandbox's group, in one or several hierarchies. Holds no state but its name, so it can be made
    again after a restart.
    """

    def __init__(self, hierarchies: Hierarchies, path: str) -> None:
        self._hierarchies = hierarchies
        self.path = path

    def directory(self, controller: str) -> Path:
        """Where the group is in the hierarchy of a controller."""
        return self._hierarchies.required[controller] / self.path

    def exists(self) -> bool:
        """Whether any of it is there."""
        return any((root / self.path).exists() for root in self._hierarchies.all_roots)

    def processes(self) -> list[int]:
        """Process numbers in the group; zombies are not among them."""
        try:
            return [int(line) for line in self._members_file().read_text().split()]
        except OSError:
            return []

    def has(self, pid: int) -> bool:
        """Whether a process is in the group."""
        try:
            text = Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return False
        return any(line.split(":", 2)[-1] == f"/{self.path}" for line in text.splitlines())

    @abstractmethod
    def create(self, limits: Limits) -> None:
        """Make the group with its limits. The directories may exist already."""

    @abstractmethod
    def set_memory_limit(self, limit_bytes: int) -> None:
        """Change the hard limit."""

    @abstractmethod
    def memory_limit_bytes(self) -> int:
        """The hard limit in force."""

    @abstractmethod
    def usage(self) -> GroupUsage:
        """What it uses now; zeros for a group that is gone."""

    @abstractmethod
    def is_frozen(self) -> bool:
        """Whether it is frozen, or being frozen."""

    @abstractmethod
    def _members_file(self) -> Path: ...

    @abstractmethod
    def _ask_freeze(self, frozen: bool) -> None: ...

    @abstractmethod
    def _reports_frozen(self) -> bool: ...

    async def freeze(self) -> None:
        """Stop every task. Idempotent; takes 0.3 ms.

        Raises:
            TimedOut: Some task still runs; the group has been thawed.
        Cancellation thaws before propagating.
        """
        done = False
        try:
            self._ask_freeze(True)
            done = await _becomes(self._reports_frozen, FREEZE_S)
        finally:
            if not done:
                with contextlib.suppress(RuntimeFailed):
                    self._ask_freeze(False)
        if not done:
            raise TimedOut("freezing a sandbox", FREEZE_S)

    def thaw(self) -> None:
        """Let every task go on. Idempotent."""
        self._ask_freeze(False)

    async def kill(self) -> None:
        """End every process of the group, frozen or not, and wait until none is left. Idempotent.

        Raises:
            TimedOut: Some process is still there (in the kernel, in an uninterruptible wait).
        """
        signalled: set[int] = set()
        if not await _becomes(lambda: self._kill_new(signalled), EMPTY_S):
            raise TimedOut("ending the processes of a sandbox", EMPTY_S)

    def _kill_new(self, signalled: set[int]) -> bool:
        """Signal all that are in it now and were not yet; True when none is in it.

        A group may fork between two looks, hence the repetition; with thousands of processes, signalling all
        again and again would hold up hostd.
        """
        members = self.processes()
        new = [pid for pid in members if pid not in signalled]
        for pid in new:
            self._kill_member(pid)
        signalled.update(new)
        if new:
            with contextlib.suppress(RuntimeFailed):
                self._ask_freeze(False)  # in v1 a frozen task does not die
        return not members

    def _kill_member(self, pid: int) -> None:
        handle = ProcessHandle.open(pid)
        if handle is None:
            return
        # The number may have been given to a stranger since it was read; what is in the group now is what the
        # handle holds.
        if self.has(pid):
            handle.kill()
        handle.close()

    async def remove(self) -> None:
        """Remove the group from every hierarchy. Idempotent.

        Raises:
            TimedOut: It is still busy.
        """
        if not await _becomes(self._remove_once, REMOVE_S):
            raise TimedOut("removing the control group of a sandbox", REMOVE_S)

    def _remove_once(self) -> bool:
        gone = [try_rmdir(root / self.path) for root in self._hierarchies.all_roots]
        return all(gone)


class GroupV1(Group):
    """In one hierarchy per controller."""

    def create(self, limits: Limits) -> None:
        """See `Group.create`."""
        for controller in self._hierarchies.required:
            self.directory(controller).mkdir(parents=True, exist_ok=True)
        for controller, name, value in v1_settings(limits):
            _write(self.directory(controller) / name, value)

    def set_memory_limit(self, limit_bytes: int) -> None:
        """See `Group.set_memory_limit`. The limit with swap must never be below the one without, so it goes
        up first.
        """
        memory = self.directory("memory")
        names = ["memory.memsw.limit_in_bytes", "memory.limit_in_bytes"]
        if limit_bytes < self.memory_limit_bytes():
            names.reverse()
        for name in names:
            _write(memory / name, str(limit_bytes))

    def memory_limit_bytes(self) -> int:
        """See `Group.memory_limit_bytes`."""
        return int((self.directory("memory") / "memory.limit_in_bytes").read_text())

    def usage(self) -> GroupUsage:
        """See `Group.usage`."""
        memory = self.directory("memory")
        return GroupUsage(
            held_bytes=held_v1(_counters(memory / "memory.stat")),
            cpu_us=int(_read(self.directory("cpuacct") / "cpuacct.usage") or 0) // 1000,
            processes=len(self.processes()),
            out_of_memory_kills=_counters(memory / "memory.oom_control").get("oom_kill", 0),
        )

    def is_frozen(self) -> bool:
        """See `Group.is_frozen`."""
        return _read(self.directory("freezer") / "freezer.state") in ("FROZEN", "FREEZING")

    def _members_file(self) -> Path:
        return self.directory("pids") / "cgroup.procs"

    def _ask_freeze(self, frozen: bool) -> None:
        _write(self.directory("freezer") / "freezer.state", "FROZEN" if frozen else "THAWED")

    def _reports_frozen(self) -> bool:
        return _read(self.directory("freezer") / "freezer.state") == "FROZEN"


class GroupV2(Group):
    """In the unified hierarchy."""

    def create(self, limits: Limits) -> None:
        """See `Group.create`."""
        root, wanted = self._hierarchies.required[""], " ".join(f"+{name}" for name in REQUIRED_V2)
        current = root
        for part in Path(self.path).parts:
            _write(current / "cgroup.subtree_control", wanted)
            current /= part
            current.mkdir(exist_ok=True)
        for name, value in v2_settings(limits):
            _write(current / name, value)

    def set_memory_limit(self, limit_bytes: int) -> None:
        """See `Group.set_memory_limit`."""
        _write(self.directory("") / "memory.max", str(limit_bytes))

    def set_memory_high(self, limit_bytes: int) -> None:
        """Above this the kernel slows the group down and counts it in ``memory.events``."""
        _write(self.directory("") / "memory.high", str(limit_bytes))

    def memory_limit_bytes(self) -> int:
        """See `Group.memory_limit_bytes`."""
        return int((self.directory("") / "memory.max").read_text())

    def usage(self) -> GroupUsage:
        """See `Group.usage`."""
        directory = self.directory("")
        return GroupUsage(
            held_bytes=held_v2(_counters(directory / "memory.stat")),
            cpu_us=_counters(directory / "cpu.stat").get("usage_usec", 0),
            processes=len(self.processes()),
            out_of_memory_kills=_counters(directory / "memory.events").get("oom_kill", 0),
        )

    def is_frozen(self) -> bool:
        """See `Group.is_frozen`."""
        return _read(self.directory("") / "cgroup.freeze") == "1"

    def _members_file(self) -> Path:
        return self.directory("") / "cgroup.procs"

    def _ask_freeze(self, frozen: bool) -> None:
        _write(self.directory("") / "cgroup.freeze", "1" if frozen else "0")

    def _reports_frozen(self) -> bool:
        return _counters(self.directory("") / "cgroup.events").get("frozen") == 1


def try_rmdir(directory: Path) -> bool:
    """Remove an empty group; True when it is gone."""
    try:
        directory.rmdir()
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno in (errno.EBUSY, errno.ENOTEMPTY):
            return False
        raise
    return True


async def _becomes(condition: Callable[[], bool], timeout_s: float) -> bool:
    """Look until something is so. For what takes well under a millisecond but has no event: 0.3 ms between
    the first looks, then growing.
    """
    pause_s = _FIRST_PAUSE_S
    loop = asyncio.get_running_loop()
    until_s = loop.time() + timeout_s
    while not condition():
        if loop.time() >= until_s:
            return False
        await asyncio.sleep(pause_s)
        pause_s = min(pause_s * 1.5, _LONGEST_PAUSE_S)
    return True


def _write(file: Path, value: str) -> None:
    try:
        # Not write_text, which would create a file where the kernel has none.
        descriptor = os.open(file, os.O_WRONLY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        if file.name in OPTIONAL_FILES:
            return
        raise RuntimeFailed("a control group could not be set up", detail=f"{file}: {error}") from error
    try:
        os.write(descriptor, value.encode())
    except OSError as error:
        raise RuntimeFailed(
            "a control group could not be set up", detail=f"{file}: {value!r}: {error}"
        ) from error
    finally:
        os.close(descriptor)


def _read(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:
        return ""


def _counters(file: Path) -> dict[str, int]:
    return parse_counters(_read(file))
