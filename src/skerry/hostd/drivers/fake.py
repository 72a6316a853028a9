"""For tests: runs the real agent as an ordinary process of the host. No boundary at all, no limits, no root
of its own; needs no root.
"""

import asyncio
import contextlib
import os
import pwd
import shutil
import signal
import subprocess  # noqa: TID251 - hostd starts runtimes
from dataclasses import dataclass
from pathlib import Path

from skerry.errors import Conflict, NotFound, RuntimeFailed, TimedOut
from skerry.hostd.background import Background
from skerry.hostd.drivers.base import AgentEndpoint, Sink
from skerry.hostd.guest_agent import NAME, GuestAgent
from skerry.hostd.places import Places, SandboxPlace
from skerry.hostd.sys.processes import ProcessHandle, command_line
from skerry.protocol.host_verbs import SandboxExited
from skerry.spec.ids import SandboxId
from skerry.spec.sandbox import (
    Capability,
    DriverReport,
    Ended,
    Isolation,
    Observed,
    Phase,
    StartSpec,
    Usage,
)

START_S = 5.0
END_S = 5.0

_ROUNDS = 100
_ROUND_PAUSE_S = 0.01
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")

_PARENT = """
exits="$1"; pid="$2"; shift 2
"$@" &
echo $! >"$pid.new"; mv "$pid.new" "$pid"
wait $!
echo $? >"$exits.new"; mv "$exits.new" "$exits"
"""
"""A shell that outlives hostd and writes down how the agent ended, as conmon does."""


@dataclass(slots=True)
class _Sandbox:
    place: SandboxPlace
    process: ProcessHandle | None
    frozen: bool = False
    ended: Ended | None = None


class FakeDriver:
    """Implements `Driver` and `Pausing`. A sandbox is the agent and all its descendants, which it adopts (it
    is a subreaper).
    """

    def __init__(
        self, *, places: Places, guest_agent: GuestAgent, sink: Sink, background: Background
    ) -> None:
        self._places = places
        self._guest_agent = guest_agent
        self._sink = sink
        self._background = background
        self._sandboxes: dict[SandboxId, _Sandbox] = {}
        self._loop = asyncio.get_running_loop()

    @property
    def isolation(self) -> Isolation:
        """See `Driver.isolation`."""
        return Isolation.FAKE

    async def probe(self) -> DriverReport:
        """See `Driver.probe`."""
        missing = () if self._guest_agent.source.is_file() else ("the agent is not built",)
        return DriverReport(
            Isolation.FAKE, not missing, "", frozenset({Capability.PAUSE}), missing, ("no boundary at all",)
        )

    async def recover(self) -> list[Observed]:
        """See `Driver.recover`."""
        for name in sorted(os.listdir(self._places.sandboxes)):
            sandbox_id = self._places.sandbox_of_directory(name)
            if sandbox_id is None or not _marker(self._places.sandbox(sandbox_id)).exists():
                continue
            place = self._places.sandbox(sandbox_id)
            process = _open_agent(place)
            if process is not None:
                self._adopt(sandbox_id, place, process)
            elif place.pid_file.exists():
                self._sandboxes[sandbox_id] = _Sandbox(place, None, ended=await _recorded(place))
            else:
                shutil.rmtree(place.path)
        return await self.observe()

    async def start(self, spec: StartSpec, endpoint: AgentEndpoint) -> None:
        """See `Driver.start`."""
        place = self._places.sandbox(spec.sandbox_id)
        binary = self._guest_agent.installed() / NAME
        try:
            place.path.mkdir(mode=0o700)
        except FileExistsError:
            raise Conflict(f"sandbox {spec.sandbox_id} exists already") from None
        try:
            for directory in (place.exits, _home(place)):
                directory.mkdir(mode=0o700)
            _marker(place).touch()
            process = await self._launch(place, binary, endpoint)
        except BaseException as error:
            if (launched := _open_agent(place)) is not None:
                launched.kill()
                launched.close()
            shutil.rmtree(place.path)
            if isinstance(error, OSError):
                raise RuntimeFailed("the agent could not be started", detail=str(error)) from error
            raise
        self._adopt(spec.sandbox_id, place, process)

    async def pause(self, sandbox_id: SandboxId) -> None:
        """See `Pausing.pause`."""
        sandbox = self._existing(sandbox_id)
        await _signal_tree(sandbox, signal.SIGSTOP)
        sandbox.frozen = True

    async def resume(self, sandbox_id: SandboxId) -> None:
        """See `Pausing.resume`."""
        sandbox = self._existing(sandbox_id)
        for pid in _tree(sandbox):
            _send(pid, signal.SIGCONT)
        sandbox.frozen = False

    async def observe(self) -> list[Observed]:
        """See `Driver.observe`."""
        return [
            Observed(sandbox_id, Isolation.FAKE, _phase(one), one.ended)
            for sandbox_id, one in self._sandboxes.items()
        ]

    async def stats(self, sandbox_id: SandboxId) -> Usage:
        """See `Driver.stats`."""
        sandbox = self._existing(sandbox_id)
        tree = _tree(sandbox)
        memory = sum(_resident_bytes(pid) for pid in tree)
        written = sum(path.lstat().st_size for path in _home(sandbox.place).rglob("*"))
        return Usage(memory, sum(_cpu_us(pid) for pid in tree), len(tree), written)

    async def destroy(self, sandbox_id: SandboxId) -> Ended:
        """See `Driver.destroy`."""
        sandbox = self._sandboxes.get(sandbox_id)
        if sandbox is None:
            return Ended(None, oom=False)
        self._unwatch(sandbox)
        await _signal_tree(sandbox, signal.SIGKILL)
        if sandbox.ended is None:
            sandbox.ended = await _recorded(sandbox.place)
        if sandbox.process is not None:
            sandbox.process.close()
        shutil.rmtree(sandbox.place.path)
        del self._sandboxes[sandbox_id]
        return sandbox.ended

    async def close(self) -> None:
        """See `Driver.close`."""
        for sandbox in self._sandboxes.values():
            self._unwatch(sandbox)
            if sandbox.process is not None:
                sandbox.process.close()
        self._sandboxes.clear()

    async def _launch(self, place: SandboxPlace, binary: Path, endpoint: AgentEndpoint) -> ProcessHandle:
        user = pwd.getpwuid(os.getuid()).pw_name
        agent = [str(binary), "--socket", str(endpoint.socket), "--user", user]
        await asyncio.create_subprocess_exec(  # noqa: TID251 - hostd starts runtimes
            *("/bin/sh", "-c", _PARENT, "sh", str(place.exit_file), str(place.pid_file), *agent),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={"PATH": os.defpath, "HOME": str(_home(place))},
            cwd=_home(place),
            start_new_session=True,
        )
        async with asyncio.timeout(START_S):
            while (process := _open_agent(place)) is None:
                if place.exit_file.exists():
                    raise RuntimeFailed("the agent ended at once")
                await asyncio.sleep(_ROUND_PAUSE_S)
        return process

    def _adopt(self, sandbox_id: SandboxId, place: SandboxPlace, process: ProcessHandle) -> None:
        sandbox = _Sandbox(place, process, frozen=_is_stopped(process.pid))
        self._sandboxes[sandbox_id] = sandbox
        self._loop.add_reader(process, self._exited, sandbox_id, sandbox)

    def _exited(self, sandbox_id: SandboxId, sandbox: _Sandbox) -> None:
        self._unwatch(sandbox)
        self._background.start(self._collect(sandbox_id, sandbox), name="collect-exit")

    async def _collect(self, sandbox_id: SandboxId, sandbox: _Sandbox) -> None:
        ended = await _recorded(sandbox.place)
        if self._sandboxes.get(sandbox_id) is sandbox:
            sandbox.ended = ended
            self._sink(SandboxExited(sandbox_id, ended))

    def _unwatch(self, sandbox: _Sandbox) -> None:
        if sandbox.process is not None:
            self._loop.remove_reader(sandbox.process)

    def _existing(self, sandbox_id: SandboxId) -> _Sandbox:
        sandbox = self._sandboxes.get(sandbox_id)
        if sandbox is None:
            raise NotFound(f"there is no sandbox {sandbox_id} on this host")
        return sandbox


def _home(place: SandboxPlace) -> Path:
    return place.path / "home"


def _marker(place: SandboxPlace) -> Path:
    """Says that the directory is this driver's."""
    return place.path / "fake"


def _open_agent(place: SandboxPlace) -> ProcessHandle | None:
    """Take hold of the agent; None when it does not run."""
    with contextlib.suppress(OSError, ValueError):
        process = ProcessHandle.open(int(place.pid_file.read_text()))
        if process is None:
            return None
        sandbox_id = place.path.name.encode()
        if not process.has_ended() and any(sandbox_id in part for part in command_line(process.pid)[1:]):
            return process
        process.close()
    return None


def _outcome(place: SandboxPlace) -> Ended:
    try:
        return Ended(int(place.exit_file.read_text()), oom=False)
    except (OSError, ValueError):
        return Ended(None, oom=False)


async def _recorded(place: SandboxPlace) -> Ended:
    """Wait until the shell has written the exit status."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(END_S):
            while not place.exit_file.exists():  # noqa: ASYNC110 - a file, and only tests wait for it
                await asyncio.sleep(_ROUND_PAUSE_S)
    return _outcome(place)


def _phase(sandbox: _Sandbox) -> Phase:
    if sandbox.ended is not None:
        return Phase.ENDED
    return Phase.FROZEN if sandbox.frozen else Phase.RUNNING


def _tree(sandbox: _Sandbox) -> list[int]:
    """The agent and its descendants; empty when it has ended."""
    if sandbox.process is None or sandbox.process.has_ended():
        return []
    found, unseen = [], [sandbox.process.pid]
    while unseen:
        pid = unseen.pop()
        found.append(pid)
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{pid}/task").iterdir():
                unseen += map(int, (task / "children").read_text().split())
    return found


async def _signal_tree(sandbox: _Sandbox, number: signal.Signals) -> None:
    """Send a signal to all of them, repeated until no new ones appear: first they stop, so that they start no
    others.
    """
    seen: set[int] = set()
    for _ in range(_ROUNDS):
        new = set(_tree(sandbox)) - seen
        if not new:
            break
        for pid in new:
            _send(pid, signal.SIGSTOP)
        seen |= new
    for _ in range(_ROUNDS):
        if all(_cannot_run(pid) for pid in seen):
            break
        await asyncio.sleep(_ROUND_PAUSE_S)
    else:
        raise TimedOut("stopping the processes of a fake sandbox", _ROUNDS * _ROUND_PAUSE_S)
    if number is not signal.SIGSTOP:
        for pid in seen:
            _send(pid, number)


def _send(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat after the name; empty when it is gone. Source: proc_pid_stat(5)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _is_stopped(pid: int) -> bool:
    return _stat(pid)[:1] == ["T"]


def _cannot_run(pid: int) -> bool:
    """Stopped, gone, or waiting for a stopped child to execute another program (vfork(2))."""
    return _stat(pid)[:1] in (["T"], ["Z"], ["D"], [])


def _cpu_us(pid: int) -> int:
    fields = _stat(pid)
    ticks = sum(map(int, fields[11:15]))  # its own, and those of children that it has reaped
    return ticks * 1_000_000 // _TICKS_PER_S


def _resident_bytes(pid: int) -> int:
    fields = _stat(pid)
    return int(fields[21]) * _PAGE_BYTES if fields else 0
