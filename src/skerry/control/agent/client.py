"""What can be asked of the agent in a sandbox: typed methods over an `AgentLink`."""

import asyncio
import contextlib
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Literal

from skerry.control.agent.files import REQUEST_TIMEOUT_S, FileCalls, guest_text
from skerry.control.agent.input import InputStream
from skerry.control.agent.link import AgentLink
from skerry.control.agent.output import OutputStream
from skerry.control.agent.processes import MAX_RUNNING, Exit, Process, ProcessTable
from skerry.control.agent.requests import Answer
from skerry.control.agent.streams import MakeError
from skerry.errors import GuestUnreachable, ResourceExhausted, SandboxEnded
from skerry.protocol import messages
from skerry.protocol.messages import GuestText, ProcessInfo, ProcessList, ProtocolError, Spawned, SpawnParams

_NOTHING = messages.Nothing()


class AgentClient(FileCalls):
    """The processes, files and environment of one sandbox. One client per link."""

    def __init__(self, link: AgentLink) -> None:
        super().__init__(link)
        self._processes = ProcessTable()
        link.listen(self)

    # Processes.

    async def spawn(
        self,
        *,
        command: GuestText,
        args: Iterable[GuestText] = (),
        env: Mapping[GuestText, GuestText] | None = None,
        clear_env: bool = False,
        cwd: GuestText | None = None,
        stdin: bool = False,
        stdout: bool = True,
        stderr: bool = True,
        user: Literal["app", "root"] = "app",
    ) -> Process:
        """Start a process; its output is attached, and held back once 256 KiB of it are unread.

        A process whose start is cancelled, or answered too late, is killed.

        Raises:
            AgentError: It cannot be started; ``code`` is an errno name (``ENOENT``…).
            ResourceExhausted: Too many of this sandbox's processes run.
        """
        if len(self._processes) >= MAX_RUNNING:
            raise ResourceExhausted(f"The sandbox runs {MAX_RUNNING} processes, which is the limit.")
        outputs = stdout + stderr
        credit = self.link.streams.credit_for_new(outputs, self.link.unanswered) if outputs else 0
        params = SpawnParams(
            command=guest_text(command),
            args=[guest_text(arg) for arg in args],
            env={guest_text(name): guest_text(value) for name, value in (env or {}).items()},
            clear_env=clear_env,
            cwd=None if cwd is None else guest_text(cwd),
            stdin=stdin,
            stdout="piped" if stdout else "null",
            stderr="piped" if stderr else "null",
            credit=credit,
            user=user,
        )
        return await self.link.calls.call(
            "process.spawn",
            params,
            Spawned,
            timeout_s=REQUEST_TIMEOUT_S,
            accept=partial(self._started, params),
            abandon=self._abandon,
        )

    def process(self, pid: int) -> Process | None:
        """A process that this client knows: it runs, or is among the last 1,000 that ended."""
        return self._processes.get(pid)

    async def processes(self) -> list[ProcessInfo]:
        """What the agent says about all its processes."""
        listed = await self.link.request("process.list", _NOTHING, ProcessList, timeout_s=REQUEST_TIMEOUT_S)
        return listed.processes

    async def adopt(self) -> None:
        """After a restart of this side: learn of the processes that go on. Their output waits."""
        adopted = await self.link.calls.call(
            "process.list",
            _NOTHING,
            ProcessList,
            timeout_s=REQUEST_TIMEOUT_S,
            accept=self._adopt_all,
            abandon=_keep,
        )
        found = await self.link.request(
            "stream.list", _NOTHING, messages.StreamList, timeout_s=REQUEST_TIMEOUT_S
        )
        outputs = {info.stream for info in found.streams if info.kind == "output"}
        for process in adopted:
            process.forget_outputs_except(outputs)

    # The environment, memory.

    async def env_update(
        self, set: Mapping[GuestText, GuestText] | None = None, unset: Iterable[GuestText] = ()
    ) -> None:
        """Change the environment of processes that are started later."""
        params = messages.EnvUpdateParams(
            {guest_text(name): guest_text(value) for name, value in (set or {}).items()},
            [guest_text(name) for name in unset],
        )
        await self.link.request("env.update", params, type(None), timeout_s=REQUEST_TIMEOUT_S)

    async def env_all(self) -> dict[GuestText, GuestText]:
        """The sandbox's environment."""
        found = await self.link.request("env.all", _NOTHING, messages.EnvAll, timeout_s=REQUEST_TIMEOUT_S)
        return found.env

    async def install_trust(
        self, certificate_pem: str, extra_roots_pem: str = "", *, env: Mapping[str, str] | None = None
    ) -> messages.TrustInstalled:
        """Have the guest's system trust authorities, instead of those that an earlier call gave.

        Args:
            certificate_pem: The sandbox's own authority; empty: none.
            extra_roots_pem: Further ones.
            env: For shells and `sudo` in the guest; processes of `spawn` get theirs by `env_update`.

        Raises:
            AgentError: Nothing could be written; `EPERM`: the agent is not in a sandbox of its own.
        """
        params = messages.TrustInstallParams(
            certificate_pem,
            extra_roots_pem,
            {guest_text(name): guest_text(value) for name, value in (env or {}).items()},
        )
        return await self.link.request(
            "trust.install", params, messages.TrustInstalled, timeout_s=REQUEST_TIMEOUT_S
        )

    async def reclaim(self, *, timeout_s: float = 5.0) -> messages.Reclaimed:
        """Memory runs out: kill the process group that holds most of it."""
        return await self.link.request("system.reclaim", _NOTHING, messages.Reclaimed, timeout_s=timeout_s)

    # What the link calls.

    def process_exited(self, exit_: messages.Exit) -> None:
        """EXIT."""
        known = self._processes.ended(exit_.pid, _exit(exit_), _forgotten)
        if not known:
            self.link.charge()

    def reconnected(self) -> None:
        """EXITs may have been lost, and streams may have been given up: ask."""
        if len(self._processes) or self.link.streams.has_inputs:
            self._ask_for_exits()

    def agent_replaced(self, make_error: MakeError) -> None:
        """No process of before is there any more."""
        for process in self._processes:
            self._processes.lost(process, make_error)

    # Parts.

    def _started(self, params: SpawnParams, answer: Answer[Spawned]) -> Process:
        spawned = answer.value
        wanted = (params.stdin, params.stdout == "piped", params.stderr == "piped")
        if wanted != tuple(id_ is not None for id_ in (spawned.stdin, spawned.stdout, spawned.stderr)):
            raise ProtocolError("payload", "other streams than were asked for")
        process = Process(spawned.pid, link=self.link)
        if spawned.stdin is not None:
            process.stdin = InputStream(spawned.stdin, owner=self.link.streams)
            self.link.streams.new_input(process.stdin)
        process.stdout = self._new_output(spawned.stdout, params.credit, answer.again)
        process.stderr = self._new_output(spawned.stderr, params.credit, answer.again)
        self._processes.add(process, _forgotten)
        if answer.again:
            self._ask_for_exits()
        return process

    def _new_output(self, id_: int | None, credit: int, again: bool) -> OutputStream | None:
        return None if id_ is None else self.link.streams.new_output(id_, credit=credit, again=again)

    def _abandon(self, process: Process) -> None:
        """Nobody waits for this process any more."""
        for output in (process.stdout, process.stderr):
            if output is not None:
                output.detach()
        if process.stdin is not None:
            process.stdin.reset("RESET", "nobody writes")
        kill = messages.KillParams(process.pid, "SIGKILL", group=True)
        with contextlib.suppress(SandboxEnded):
            pending = self.link.calls.post("process.kill", kill, type(None), timeout_s=REQUEST_TIMEOUT_S)
            pending.future.add_done_callback(_seen)

    def _adopt_all(self, answer: Answer[ProcessList]) -> list[Process]:
        """Enter what is not known, before the EXITs that may follow the answer."""
        adopted: list[Process] = []
        for info in answer.value.processes:
            if self._processes.get(info.pid) is None:
                process = Process(
                    info.pid,
                    link=self.link,
                    stdout=self._known_output(info.stdout),
                    stderr=self._known_output(info.stderr),
                )
                self._processes.add(process, _forgotten)
                adopted.append(process)
            if info.exit is not None:
                self._processes.ended(info.pid, _exit(info.exit), _forgotten)
        return adopted

    def _known_output(self, id_: int | None) -> OutputStream | None:
        return None if id_ is None else self.link.streams.known_output(id_)

    def _ask_for_exits(self) -> None:
        asked = list(self._processes)
        pending = self.link.calls.post("process.list", _NOTHING, ProcessList, timeout_s=REQUEST_TIMEOUT_S)
        pending.future.add_done_callback(partial(self._exits_listed, asked))

    def _exits_listed(self, asked: list[Process], future: "asyncio.Future[ProcessList]") -> None:
        if future.cancelled() or future.exception() is not None:
            # Nobody can say how they ended, if they did; the agent's state is unknown.
            listed: dict[int, ProcessInfo] = {}
        else:
            listed = {info.pid: info for info in future.result().processes}
        for process in asked:
            info = listed.get(process.pid)
            if process.exit is not None or self._processes.get(process.pid) is not process:
                continue
            if info is None:
                self._processes.lost(process, _forgotten)
            elif info.exit is not None:
                self._processes.ended(process.pid, _exit(info.exit), _forgotten)


def _exit(status: messages.Exit | messages.ExitStatus) -> Exit:
    return Exit(status.code, status.signal, bool(status.oom))


def _forgotten() -> GuestUnreachable:
    return GuestUnreachable(
        "The sandbox's agent does not know the process any more.", code="PROCESS_FORGOTTEN"
    )


def _keep(adopted: list[Process]) -> None:
    """Processes go on, whether somebody waits for their list or not."""


def _seen(future: "asyncio.Future[object]") -> None:
    """Take note of an error that nobody acts on."""
    if not future.cancelled():
        future.exception()
