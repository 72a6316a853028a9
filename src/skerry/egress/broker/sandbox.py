"""One granted sandbox: what it may do, its two sockets, and its worker, which starts at the first packet."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import structlog
from msgspec import structs

from skerry.egress.broker import control_channel
from skerry.egress.broker.audit_files import Trails
from skerry.egress.broker.background import Background
from skerry.egress.broker.crash_limit import CrashLimit
from skerry.egress.broker.gateway import Gateway
from skerry.egress.broker.held import Held
from skerry.egress.broker.policies import Policies
from skerry.egress.broker.vault import Vault
from skerry.egress.broker.worker import Worker
from skerry.egress.broker.zygote_client import ZygoteClient
from skerry.errors import NotFound, ResourceExhausted, RuntimeFailed, SkerryError
from skerry.policy.compiled import Policy
from skerry.protocol.egress_verbs import Explanation, SandboxEgress
from skerry.spec.ids import SandboxId

ADOPT_S = 0.8
"""A worker that does not go by changed rules after this time is killed, so that a change always takes effect
within a second."""

ASKED_S = 1.0
STOP_S = 1.0
KILL_S = 2.0
SAVE_S = 5.0
COUNT_S = 0.25
"""How long counters may be ahead of what is put away."""

FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 0.5
MAX_COUNT = 1 << 20

_log = structlog.get_logger("skerry.egress.sandbox")


@dataclass(frozen=True, slots=True)
class Ground:
    """What every sandbox stands on.

    Attributes:
        open_gateway: Asks hostd for a sandbox's sockets.
        max_rules_bytes: The largest message to a worker.
    """

    policies: Policies
    zygote: ZygoteClient
    trails: Trails
    vault: Vault
    background: Background
    open_gateway: Callable[[SandboxId], Awaitable[Gateway]]
    max_rules_bytes: int


class Sandbox:
    """Serves one sandbox from `open` to `release` or `close`.

    Its methods that change something are carried out one after another.
    """

    def __init__(self, held: Held, ground: Ground) -> None:
        self.held = held
        self._ground = ground
        self._loop = asyncio.get_running_loop()
        self._changing = asyncio.Lock()
        self._gateway: Gateway | None = None
        self._finding: asyncio.Task[None] | None = None
        self._asked = asyncio.Event()
        self._worker: Worker | None = None
        self._doomed = False
        self._gone = asyncio.Event()
        self._gone.set()
        self._watching = False
        self._crashes = CrashLimit()
        self._paused: asyncio.TimerHandle | None = None
        self._saving: asyncio.TimerHandle | None = None
        self._problem = ""
        self._closed = False
        self._compiled: tuple[int, Policy] | None = None

    @property
    def sandbox_id(self) -> SandboxId:
        """Whose it is."""
        return self.held.sandbox_id

    def open(self) -> None:
        """Begin to serve: get the sockets as soon as hostd has them."""
        self._finding = self._ground.background.start(self._find_gateway(), name="gateway")

    async def asked(self) -> None:
        """Wait until hostd has been asked for the sockets once: before that, the sandbox's packets are
        refused if it runs already."""
        with suppress(TimeoutError):
            async with asyncio.timeout(ASKED_S):
                await self._asked.wait()

    def view(self) -> SandboxEgress:
        """How it is."""
        worker = self._worker
        return SandboxEgress(
            sandbox_id=self.sandbox_id,
            version=self.held.version,
            worker_pid=(worker.pid or None) if worker else None,
            lost=self.held.lost,
            cut=self.held.cut,
            problem=self._problem,
        )

    def explain(self, target: str, method: str) -> Explanation:
        """See `skerry.protocol.egress_verbs.Explain`."""
        return self._ground.policies.explain(self.held, self._policy(self.held), target, method)

    async def change(self, make: Callable[[Held], Held]) -> Held:
        """Change what the sandbox may do. When this returns, its worker goes by it or has ended, and it is
        put away.

        Args:
            make: Gives the new state, or the same for no change; its version and authority are taken care of.
        Returns:
            The state.
        Raises:
            NotFound: The sandbox has been released meanwhile.
            InvalidRequest: The new state makes no sense; nothing was changed.
            ResourceExhausted: It is too large; nothing was changed.
            RuntimeFailed: It could not be put away; it is in force all the same.
        """
        async with self._changing:
            if self._closed:
                raise NotFound(f"sandbox {self.sandbox_id} is not served")
            changed = make(self.held)
            if changed is not self.held:
                self.held = self._completed(changed)
                await self._push()
                await self._save()
            return self.held

    async def put_away(self) -> None:
        """Put a new grant away before anything goes by it.

        Raises:
            RuntimeFailed: It could not be.
        """
        async with self._changing:
            await self._save()

    def completed(self) -> None:
        """Check a new grant and have its authority made.

        Raises:
            InvalidRequest, ResourceExhausted: As `change` says.
        """
        self.held = self._completed(self.held)

    async def release(self) -> None:
        """Stop serving, and forget everything but the audit trail.

        Raises:
            RuntimeFailed: Whoever keeps the state could not be told.
        """
        async with self._changing:
            await self._end()
            self._ground.trails.end(self.sandbox_id)
            await self._telling(self._ground.vault.remove(self.sandbox_id))

    async def close(self) -> None:
        """Stop serving; what was put away stays."""
        async with self._changing:
            await self._end()

    # What its worker reports: see `skerry.egress.broker.worker.Owner`.

    def used(self, counts: dict[str, int]) -> None:
        """Requests carried secrets."""
        self.held = self.held.used({name: min(count, MAX_COUNT) for name, count in counts.items()})
        if self._saving is None and not self._closed:
            self._saving = self._loop.call_later(COUNT_S, self._save_later)

    def cut(self, secret: str) -> None:
        """A placeholder strayed whose rule says that the sandbox's network ends."""
        if any(one.rule.name == secret for one in self.held.secrets):
            _log.warning("network_cut", sandbox=self.sandbox_id, secret=secret)
            self.held = structs.replace(self.held, cut=True)
            self._kill()
            self._save_later()
        else:
            self.misbehaved("an unknown secret")

    def misbehaved(self, problem: str) -> None:
        """The worker broke the rules between broker and worker."""
        _log.error("worker_misbehaved", sandbox=self.sandbox_id, problem=problem)
        self._kill()

    # Rules.

    def _completed(self, held: Held) -> Held:
        policies = self._ground.policies
        policy = policies.of(held)
        certified = policies.certified(held, policy)
        held = structs.replace(held, certified=certified, version=self.held.version + 1)
        rules = control_channel.encode(policies.rules(held, next_seq=1 << 53))
        if len(rules) > self._ground.max_rules_bytes:
            raise ResourceExhausted(
                f"policy and secrets take {len(rules)} bytes, of at most {self._ground.max_rules_bytes}"
            )
        self._compiled = (held.version, policy)
        return held

    def _policy(self, held: Held) -> Policy:
        if self._compiled is None or self._compiled[0] != held.version:
            self._compiled = (held.version, self._ground.policies.of(held))
        return self._compiled[1]

    async def _push(self) -> None:
        """Have the worker go by the rules as they are now, or end it."""
        if self.held.cut:
            self._kill()
        elif self._worker is None:
            self._watch()
        else:
            worker, version = self._worker, self.held.version
            self._tell(worker, next_seq=1)
            try:
                async with asyncio.timeout(ADOPT_S):
                    await worker.adopted(version)
            except TimeoutError:
                _log.warning("worker_too_slow", sandbox=self.sandbox_id, pid=worker.pid)
                self._kill()
                await self._wait_gone(KILL_S)

    def _tell(self, worker: Worker, *, next_seq: int) -> None:
        worker.tell(self._ground.policies.rules(self.held, next_seq=next_seq))

    # Putting away.

    async def _save(self) -> None:
        await self._telling(self._ground.vault.save(self.held))

    async def _telling(self, work: Awaitable[None]) -> None:
        try:
            async with asyncio.timeout(SAVE_S):
                await work
        except OSError as error:  # TimeoutError is one
            raise RuntimeFailed(
                "the sandbox's secrets could not be put away", detail=type(error).__name__
            ) from error

    def _save_later(self) -> None:
        self._saving = None
        if not self._closed:
            self._ground.background.start(self._save_unasked(), name="save")

    async def _save_unasked(self) -> None:
        async with self._changing:
            if not self._closed:
                await self._save()

    # Sockets.

    async def _find_gateway(self) -> None:
        """Ask until there is one: the grant may come before the sandbox, and hostd may be away."""
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                self._gateway = await self._ground.open_gateway(self.sandbox_id)
                break
            except SkerryError as error:
                known, self._problem = self._problem, error.message
                if not isinstance(error, NotFound) and error.message != known:
                    _log.warning(
                        "no_gateway", sandbox=self.sandbox_id, error=error.message, detail=error.detail
                    )
            self._asked.set()
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 1.5, LONGEST_PAUSE_S)
        self._problem = ""
        self._asked.set()
        self._watch()

    def _watch(self) -> None:
        """Wait for a packet, if a worker may be started."""
        possible = not self._closed and not self.held.cut and self._worker is None and self._paused is None
        if possible and self._gateway is not None and not self._watching:
            self._watching = True
            for sock in (self._gateway.tcp, self._gateway.udp):
                self._loop.add_reader(sock.fileno(), self._first_packet)

    def _unwatch(self) -> None:
        if self._watching and self._gateway is not None:
            self._watching = False
            for sock in (self._gateway.tcp, self._gateway.udp):
                self._loop.remove_reader(sock.fileno())

    # Worker.

    def _first_packet(self) -> None:
        self._unwatch()
        self._ground.background.start(self._start_worker(), name="worker")

    async def _start_worker(self) -> None:
        async with self._changing:
            gateway = self._gateway
            if self._closed or self.held.cut or self._worker is not None or gateway is None:
                return
            ours, theirs = control_channel.pair()
            with theirs:
                try:
                    trail = self._ground.trails.live(self.sandbox_id)
                except OSError as error:
                    ours.close()
                    return self._failed(f"its audit trail cannot be opened: {error.strerror}")
                worker = Worker(ours, trail, self)
                self._tell(worker, next_seq=trail.next_seq)
                self._worker = worker
                self._doomed = False
                self._gone.clear()
                descriptors = [theirs.fileno(), gateway.tcp.fileno(), gateway.udp.fileno()]
                try:
                    worker.pid = await self._ground.zygote.fork(descriptors, partial(self._ended, worker))
                except SkerryError as error:
                    worker.close()
                    self._worker = None
                    self._gone.set()
                    self._failed(error.message)
                if self._doomed:
                    self._kill()

    def _failed(self, problem: str) -> None:
        """No worker could be started: try again at a later packet."""
        _log.error("worker_not_started", sandbox=self.sandbox_id, problem=problem)
        self._problem = problem
        self._pause(max(self._crashes.crashed(self._loop.time()), FIRST_PAUSE_S))

    def _ended(self, worker: Worker, status: int) -> None:
        worker.ended()
        if self._worker is not worker:
            return
        self._worker = None
        self._gone.set()
        pause_s = 0.0
        if status != 0 and not self._closed:
            _log.warning("worker_crashed", sandbox=self.sandbox_id, pid=worker.pid, status=status)
            pause_s = self._crashes.crashed(self._loop.time())
        if pause_s:
            self._problem = "its worker keeps crashing"
            self._pause(pause_s)
        else:
            self._watch()

    def _pause(self, pause_s: float) -> None:
        if self._closed:
            return

        def go_on() -> None:
            self._paused = None
            self._problem = ""
            self._watch()

        self._paused = self._loop.call_later(pause_s, go_on)

    def _kill(self) -> None:
        self._unwatch()
        self._doomed = True
        if self._worker is not None and self._worker.pid:
            self._ground.zygote.kill(self._worker.pid)

    async def _wait_gone(self, timeout_s: float) -> bool:
        try:
            async with asyncio.timeout(timeout_s):
                await self._gone.wait()
        except TimeoutError:
            return False
        return True

    async def _end(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._unwatch()
        for timer in (self._paused, self._saving):
            if timer is not None:
                timer.cancel()
        if self._finding is not None:
            self._finding.cancel()
        if self._worker is not None:
            self._worker.stop()
            if not await self._wait_gone(STOP_S):
                self._kill()
                await self._wait_gone(KILL_S)
        if self._gateway is not None:
            self._gateway.close()
