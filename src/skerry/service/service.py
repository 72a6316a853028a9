"""What can be asked of Skerry, free of any wire protocol: owners, quotas, limits, and every answer in
words.
"""

import builtins
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager
from pathlib import Path

from skerry import __version__
from skerry.control.agent import AgentClient
from skerry.control.clock import Clock
from skerry.control.control import Control
from skerry.control.egress import Egress
from skerry.control.ground import Ground
from skerry.control.host import Host
from skerry.control.steps import Order, Shape
from skerry.control.store.database import Database
from skerry.control.store.policies import PolicyStore
from skerry.control.store.records import Quotas, SandboxRecord
from skerry.control.store.sandboxes import SandboxStore
from skerry.control.store.tokens import TokenStore
from skerry.control.tasks import Tasks
from skerry.errors import HostUnusable, SkerryError
from skerry.lifecycle.events import Stage
from skerry.policy.deno_fields import SandboxFields
from skerry.protocol.egress_verbs import EgressDescription
from skerry.protocol.host_verbs import HostDescription
from skerry.service.attachment import Attachment
from skerry.service.egress_wish import egress_wish
from skerry.service.isolation import capabilities_of, default_shape
from skerry.service.lookup import Lookup
from skerry.service.outbound import Outbound
from skerry.service.policies import LABEL, Policies
from skerry.service.requests import CreateRequest, Principal, SandboxView, Status, TokenView
from skerry.service.tokens import ADMIN, SANDBOX, Tokens, require
from skerry.service.validation import Bounds, check_create, check_end
from skerry.spec.ids import OwnerId, TokenId
from skerry.spec.sandbox import EndReason
from skerry.spec.settings import Settings

CONNECT_TIMEOUT_S = 8.0
"""How long a connect waits for an agent that is dialling again; the official Python SDK gives up after 10
s.
"""


class Service:
    """Every request of every adapter ends here. Make it with `open_service`.

    Every look-up is by owner: a sandbox of another owner looks exactly like one that never was.

    Attributes:
        policies: Named policies.
        outbound: What sandboxes may reach, did reach, and their secrets.
    """

    def __init__(
        self,
        settings: Settings,
        control: Control,
        *,
        egress: Egress,
        store: SandboxStore,
        policies: PolicyStore,
        tokens: Tokens,
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._control = control
        self._store = store
        self._egress = egress
        self._tokens = tokens
        self._clock = clock
        self._lookup = Lookup(control, store)
        self.policies = Policies(policies, control, clock, default=settings.egress.default_policy)
        self.outbound = Outbound(self._lookup, egress)

    async def authenticate(self, bearer: str | None) -> Principal:
        """Say whose token this is.

        Raises:
            Unauthenticated: Code ``NOT_AUTHENTICATED`` (none), ``TOKEN_EXPIRED`` or ``INVALID_TOKEN``.
        """
        return await self._tokens.authenticate(bearer)

    def in_use(self, who: Principal, end: Callable[[], None]) -> AbstractContextManager[None]:
        """A connection goes on by a token as long as the context lasts.

        Args:
            end: Called when the token is revoked; must not wait.

        Raises:
            Unauthenticated: It was revoked since the request was let in.
        """
        return self._tokens.in_use(who.token_id, end)

    async def create(self, who: Principal, request: CreateRequest) -> Attachment:
        """Make a sandbox and attach its first client, the primary. When this returns, the sandbox serves.

        Raises:
            InvalidRequest, NotSupported: The request cannot be met; the message lists why.
            ResourceExhausted: A quota is used up; the message has limit and use.
            HostUnusable: There is no isolation on this host, or hostd is away.
            SkerryError: It could not be started; nothing is left.
        """
        require(who, SANDBOX)
        fields = check_create(request, self._bounds())
        sandbox = await self._control.create(await self._order(who, request, fields))
        return Attachment(sandbox, primary=True)

    async def connect(self, who: Principal, sandbox_id: str) -> Attachment:
        """Attach one more client to a running sandbox.

        It is primary only if the server was restarted and this is the creating token's first connect to a
        session.

        Raises:
            NotFound: Code ``SANDBOX_NOT_FOUND``.
            SandboxEnded: It has ended.
            GuestUnreachable: Its agent does not dial.
        """
        require(who, SANDBOX)
        sandbox = await self._lookup.running(who, sandbox_id)
        await sandbox.wait_connected(CONNECT_TIMEOUT_S)
        return Attachment(sandbox, primary=sandbox.try_become_primary(who.token_id))

    async def kill(self, who: Principal, sandbox_id: str) -> None:
        """End a sandbox; returns when nothing of it is left. One that has ended already is left in peace.

        Raises:
            NotFound: Code ``SANDBOX_NOT_FOUND``.
            TimedOut: The host is slow or away; the end is recorded and will be completed.
        """
        require(who, SANDBOX)
        sandbox = self._lookup.live(who, sandbox_id)
        if sandbox is None:
            await self._lookup.record(who, sandbox_id)
            return
        await self._control.end(sandbox, EndReason.KILLED)

    async def extend(self, who: Principal, sandbox_id: str, stop_at_ms: int) -> int:
        """Move the end of a sandbox to a later time. A session remembers it, but still ends with its primary
        client.

        Returns:
            The later of the old and the new end, the new one cut to the longest lifetime from now.

        Raises:
            InvalidRequest: The time is in the past.
            NotFound, SandboxEnded: As `connect`.
        """
        require(who, SANDBOX)
        sandbox = await self._lookup.running(who, sandbox_id)
        return await sandbox.extend(check_end(stop_at_ms, self._bounds()))

    async def list(
        self, who: Principal, *, labels: dict[str, str] | None = None, all_owners: bool = False
    ) -> list[SandboxView]:
        """Sandboxes that run or stopped of late, newest first.

        Args:
            labels: Only those which have all of these.
            all_owners: Everybody's; for the scope ``admin`` only.
        """
        require(who, ADMIN if all_owners else SANDBOX)
        records = await self._store.of_owner(None if all_owners else who.owner)
        wanted = (labels or {}).items()
        return [
            _view(one) for one in records if one.stage is not Stage.STARTING and wanted <= one.labels.items()
        ]

    async def get(self, who: Principal, sandbox_id: str) -> SandboxView:
        """One sandbox that runs or stopped of late.

        Raises:
            NotFound: Code ``SANDBOX_NOT_FOUND``.
        """
        require(who, SANDBOX)
        return _view(await self._lookup.record(who, sandbox_id))

    async def agent(self, who: Principal, sandbox_id: str) -> AgentClient:
        """The agent of a running sandbox, for something short that is no client's connection.

        Raises:
            NotFound, SandboxEnded, GuestUnreachable: As `connect`.
        """
        require(who, SANDBOX)
        sandbox = await self._lookup.running(who, sandbox_id)
        await sandbox.wait_connected(CONNECT_TIMEOUT_S)
        return sandbox.agent

    async def create_token(
        self,
        who: Principal,
        *,
        name: str,
        owner: str | None = None,
        scopes: tuple[str, ...] = (SANDBOX,),
        expires_in_s: int | None = None,
        max_running: int | None = None,
        policy: str | None = None,
    ) -> tuple[TokenView, str]:
        """Make a token, for the caller's owner or another; its value is returned here and never again.

        Args:
            policy: What its sandboxes go by whose label names no policy.

        Raises:
            Forbidden: The caller lacks the scope ``admin``.
            InvalidRequest: Something about it is not allowed; the message lists what.
        """
        require(who, ADMIN)
        if policy is not None:
            await self.policies.check_of_token(OwnerId(owner) if owner else who.owner, policy)
        return await self._tokens.create(
            who,
            name=name,
            owner=owner,
            scopes=scopes,
            expires_in_s=expires_in_s,
            max_running=max_running,
            policy=policy,
        )

    async def list_tokens(self, who: Principal) -> builtins.list[TokenView]:
        """Every token of every owner, newest first; without values.

        Raises:
            Forbidden: The caller lacks the scope ``admin``.
        """
        require(who, ADMIN)
        return await self._tokens.list()

    async def revoke_token(self, who: Principal, token_id: str) -> None:
        """Make a token worthless from now on and close its connections. Sandboxes made with it go on, but for
        sessions, which end with their connection.

        Raises:
            Forbidden: The caller lacks the scope ``admin``.
            NotFound: There is no such token.
        """
        require(who, ADMIN)
        await self._tokens.revoke(TokenId(token_id))

    async def ensure_first_token(self) -> str | None:
        """Make a token with all rights if there is none at all, and return its value; else None. For `skerry
        up`.
        """
        return await self._tokens.ensure_first()

    async def status(self, who: Principal) -> Status:
        """What runs here, and what this host can do.

        Raises:
            Forbidden: The caller lacks the scope ``admin``.
        """
        require(who, ADMIN)
        host = self._control.description
        isolation, problem = None, None
        try:
            isolation = default_shape(self._settings, host).isolation
        except HostUnusable as error:
            problem = error.message
        egress, egress_problem = await self._describe_egress()
        return Status(
            version=__version__,
            isolation=isolation,
            problem=problem,
            region=self._settings.region,
            running=self._control.running(),
            pool=self._control.pool_view(),
            host=host,
            egress=egress,
            egress_problem=egress_problem,
        )

    async def end_all(self) -> None:
        """End every sandbox of every owner and accept no more. For `skerry down`.

        Raises:
            TimedOut: Some are left; the next start completes their end.
        """
        await self._control.end_all(EndReason.SERVER_STOPPED)

    async def _describe_egress(self) -> tuple[EgressDescription | None, str | None]:
        try:
            found = await self._egress.describe()
        except SkerryError as error:
            return None, error.message
        return found, "; ".join(found.problems) or None

    def _bounds(self) -> Bounds:
        return Bounds(self._settings, self._control.description.memory_mib, self._clock.now_ms())

    async def _order(self, who: Principal, request: CreateRequest, fields: SandboxFields) -> Order:
        shape = default_shape(self._settings, self._control.description)
        if request.memory_mib is not None and request.memory_mib != shape.memory_mib:
            shape = shape.with_memory(request.memory_mib)
        limits = self._settings.sandbox
        policy = await self.policies.chosen(who, request.labels.get(LABEL))
        wish = egress_wish(
            fields,
            policy,
            isolation=shape.isolation,
            capabilities=capabilities_of(shape, self._control.description),
        )
        return Order(
            owner=who.owner,
            token_id=who.token_id,
            quotas=Quotas(
                server=limits.max_running, owner=limits.max_running_per_owner, token=who.max_running
            ),
            shape=shape,
            session=request.session,
            stop_at_ms=request.stop_at_ms,
            duration_s=request.duration_s,
            labels=request.labels,
            env=request.env,
            egress=wish.intent,
            secret_values=wish.values,
        )


def _view(record: SandboxRecord) -> SandboxView:
    return SandboxView(
        sandbox_id=record.sandbox_id,
        owner=record.owner or OwnerId(""),
        created_at_ms=record.created_at_ms,
        stopped_at_ms=record.stopped_at_ms,
        stop_at_ms=record.stop_at_ms,
        session=record.session,
        region=record.sandbox_id.split("_")[1],
        running=record.stage is Stage.RUNNING,
        labels=record.labels,
        isolation=record.isolation,
        image=record.image,
        memory_mib=record.memory_mib,
        end_reason=record.end_reason,
        exit_code=record.exit_code,
        policy=record.egress.policy.name if record.egress and record.egress.policy else None,
    )


@asynccontextmanager
async def open_service(
    settings: Settings, *, host: Host, egress: Egress, database: Path, clock: Clock
) -> AsyncIterator[Service]:
    """Open the database, recover what an earlier run left, and serve until the block is left. Sandboxes go on
    after it.

    `skerry.control.store.opening.preload` must have been called while the interpreter could still read its
    files.

    Raises:
        HostUnusable: hostd cannot be reached, or the database is too new.
    """
    opened = Database.open(database)
    try:
        async with Tasks() as tasks:
            store, policies = SandboxStore(opened), PolicyStore(opened)
            ground = Ground(
                host=host,
                egress=egress,
                store=store,
                policies=policies,
                clock=clock,
                tasks=tasks,
                settings=settings,
                epoch=secrets.randbits(63),
            )
            description = await host.describe()
            control = Control(ground, description, _pool_shape(settings, description))
            await control.start()
            yield Service(
                settings,
                control,
                egress=egress,
                store=store,
                policies=policies,
                tokens=Tokens(TokenStore(opened), clock),
                clock=clock,
            )
    finally:
        await opened.close()


def _pool_shape(settings: Settings, host: HostDescription) -> Shape | None:
    """What the pool holds; nothing where there is no isolation: every create says why, and what runs is still
    served.
    """
    try:
        return default_shape(settings, host)
    except HostUnusable:
        return None
