"""What `skerry up` does once everything is prepared: run the daemons, and start again what died."""

import asyncio
import os
import re
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from skerry import __version__
from skerry.cli.processes import Recorded, identify
from skerry.daemon import lifeline, runtime_dir
from skerry.daemon.files import tail, write_file, write_json
from skerry.daemon.health import probe_health, url_of
from skerry.daemon.journal import Journal, readable
from skerry.daemon.kept_files import KeptFiles
from skerry.daemon.launch import PROGRAM, DaemonFailed, Running, describe_exit, launch
from skerry.daemon.restarts import RestartPolicy
from skerry.daemon.site import Site

_READY_S = 60.0
_HEALTH_S = 20.0
_REVIVE_S = 20.0
_STOP_S = {"api": 40.0, "egressd": 10.0, "hostd": 90.0}
_LOG_TAIL_LINES = 15
_TOKEN = re.compile(r"[A-Za-z0-9_-]{16,256}", re.ASCII)


@dataclass(slots=True)
class _Slot:
    """One daemon over its lives."""

    name: str
    policy: RestartPolicy
    running: Running | None = None
    version: str = ""


class Supervisor:
    """Runs the daemons until it is told to stop."""

    def __init__(self, site: Site, journal: Journal, *, program: Sequence[str] = PROGRAM) -> None:
        self._program = program
        self._site = site
        self._journal = journal
        self._hostd = _Slot("hostd", RestartPolicy())
        self._egressd = _Slot("egressd", RestartPolicy())
        self._api = _Slot("api", RestartPolicy())
        self._slots = (self._hostd, self._egressd, self._api)
        self._kept = KeptFiles(lambda problem: journal.event("warning", problem))
        self._stop: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._served = False

    def request_stop(self, *, keep: bool) -> None:
        """Make `run` return after an orderly stop; the first request counts."""
        if not self._stop.done():
            self._stop.set_result(keep)

    async def run(self, on_ready: Callable[[str], None]) -> bool:
        """Start them, call back with the API's URL, keep them running, stop them when asked.

        Returns:
            What was asked: whether sandboxes were kept.
        Raises:
            DaemonFailed: One cannot start or keeps dying, or did not clean up. All have been stopped, and
                sandboxes kept.
        """
        try:
            async with asyncio.TaskGroup() as group:
                work = group.create_task(self._work(on_ready))
                keep = await asyncio.shield(self._stop)
                work.cancel()
        except* DaemonFailed as failures:
            # Of a first start that failed nothing is worth keeping.
            unused = self._site.fresh and not self._served and self._hostd.version != ""
            await self.stop(keep=not unused)
            raise _first(failures) from None
        if not keep:
            await self._revive()
        await self.stop(keep=keep)
        return keep

    async def _revive(self) -> None:
        """Have all run once more if they do not, so that sandboxes are ended and recorded in order."""
        for slot in self._slots:
            if slot.running is None or slot.running.exited.done():
                try:
                    await self._start(slot, timeout_s=_REVIVE_S)
                except DaemonFailed as problem:
                    self._journal.event("warning", problem.message)

    async def _work(self, on_ready: Callable[[str], None]) -> None:
        async with asyncio.TaskGroup() as group:
            # At the same time: api loads its modules while hostd prepares storage, and connects when it can.
            for slot in self._slots:
                group.create_task(self._start(slot))
        self._served = True
        on_ready(url_of(self._site.listener))
        async with asyncio.TaskGroup() as group:
            for slot in self._slots:
                group.create_task(self._keep_running(slot))

    async def _keep_running(self, slot: _Slot) -> None:
        while True:
            assert slot.running is not None  # noqa: S101 - _start has set it
            code = await asyncio.shield(slot.running.exited)
            await self._wait_before_restart(slot, f"ended ({describe_exit(code)})")
            while True:
                try:
                    await self._start(slot)
                    break
                except DaemonFailed as problem:
                    await self._wait_before_restart(slot, problem.message)

    async def _wait_before_restart(self, slot: _Slot, reason: str) -> None:
        delay_s = slot.policy.died(time.monotonic())
        self._journal.event("warning", f"{slot.name} {reason}", restart_in_s=delay_s)
        if delay_s is None:
            raise DaemonFailed(self._with_log(slot.name, f"{slot.name} keeps dying, giving up: {reason}"))
        await asyncio.sleep(delay_s)

    async def _start(self, slot: _Slot, *, timeout_s: float = _READY_S) -> None:
        """Start a daemon and wait until it serves.

        Raises:
            DaemonFailed: It does not.
        """
        site = self._site
        is_api = slot is self._api
        slot.version = ""
        slot.running = launch(
            slot.name,
            site.runtime,
            self._journal.relay,
            program=self._program,
            listener=site.listener if is_api else None,
        )
        self._record()
        kept = self._kept.descriptors() if slot is self._egressd else []
        hello = lifeline.Hello(self._present_token() if is_api else None, handed_back=len(kept))
        try:
            ready = await slot.running.ready(hello, timeout_s=timeout_s, hand_back=kept)
            if slot is self._egressd:
                slot.running.on_kept(self._kept.take)
            if is_api:
                await probe_health(site.listener, timeout_s=_HEALTH_S)
        except DaemonFailed as problem:
            await slot.running.kill()
            raise DaemonFailed(self._with_log(slot.name, f"{slot.name}: {problem.message}")) from problem
        except BaseException:
            await slot.running.kill()
            raise
        slot.version = ready.version[:64]
        self._record()
        if is_api:
            self._api_serves(ready)
        self._journal.event("info", f"{slot.name} serves", pid=slot.running.identity.pid)

    def _api_serves(self, ready: lifeline.Ready) -> None:
        site = self._site
        token = ready.new_client_token
        if token is not None and _TOKEN.fullmatch(token):
            who = site.who
            write_file(site.data.client_token, token.encode() + b"\n", mode=0o600, uid=who.uid, gid=who.gid)
        write_json(site.data.endpoint, {"url": url_of(site.listener), "pid": os.getpid()})

    def _present_token(self) -> str | None:
        try:
            text = self._site.data.client_token.read_text().strip()
        except (OSError, UnicodeDecodeError):
            return None
        return text if _TOKEN.fullmatch(text) else None

    def _record(self) -> None:
        rows: list[Recorded] = []
        me = identify(os.getpid())
        if me is not None:
            rows.append(Recorded("up", me, __version__))
        for slot in self._slots:
            if slot.running is not None and not slot.running.exited.done():
                rows.append(Recorded(slot.name, slot.running.identity, slot.version))
        runtime_dir.record(self._site.runtime, rows)

    def _with_log(self, name: str, message: str) -> str:
        path = self._site.data.logs / f"{name}.log"
        lines = [
            readable(name, line.encode(), max_characters=300) for line in tail(path, lines=_LOG_TAIL_LINES)
        ]
        return "\n  ".join([message, f"the last lines of {path}:", *lines]) if lines else message

    async def stop(self, *, keep: bool) -> None:
        """Stop the daemons in order; unless `keep`, end all sandboxes and leave nothing on the host.

        Raises:
            DaemonFailed: hostd could not free everything; another `skerry down` goes on from there.
        """
        self._site.data.endpoint.unlink(missing_ok=True)
        for slot in (self._api, self._egressd):
            if slot.running is not None:
                await slot.running.stop(keep=keep, timeout_s=_STOP_S[slot.name])
        self._kept.close()
        if not keep and (self._hostd.running is None or self._hostd.running.exited.done()):
            await self._start(self._hostd)
        clean = True
        if self._hostd.running is not None:
            clean = await self._hostd.running.stop(keep=keep, timeout_s=_STOP_S["hostd"])
        self._site.runtime.processes.unlink(missing_ok=True)
        if not keep and not clean:
            message = "hostd could not free everything: `skerry down` again, then `skerry doctor --orphans`"
            raise DaemonFailed(self._with_log("hostd", message))


def _first(failures: BaseExceptionGroup[DaemonFailed]) -> DaemonFailed:
    failure: DaemonFailed | BaseExceptionGroup[DaemonFailed] = failures
    while isinstance(failure, BaseExceptionGroup):
        failure = failure.exceptions[0]
    return failure


def stop_on_signals(supervisor: Supervisor) -> None:
    """SIGTERM, SIGINT and SIGHUP stop everything as `skerry down` does, SIGUSR1 as `down --keep`."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, lambda: supervisor.request_stop(keep=False))
    loop.add_signal_handler(signal.SIGUSR1, lambda: supervisor.request_stop(keep=True))
