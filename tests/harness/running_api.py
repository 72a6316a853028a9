"""The real HTTP application over a real service, on a free loopback port, in a thread of its own.

A thread, because the SDKs' synchronous clients block the caller. Sandboxes are the real agent as an ordinary
process (``fake``), or real ones
from a hostd process (``gvisor``, as root).
"""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import uvloop

from skerry.api.app import build_app, start_server
from skerry.control.clock import SystemClock
from skerry.control.host import Host
from skerry.protocol.host_verbs import HostDescription
from skerry.service.requests import Principal
from skerry.service.service import Service, open_service
from skerry.spec.ids import OwnerId, TokenId
from skerry.spec.sandbox import Capability
from skerry.spec.settings import PoolSettings, Settings
from tests.conftest import Built
from tests.harness.hostd_process import client_of, instance
from tests.harness.in_process_host import fake_host
from tests.harness.scripted_egress import ScriptedEgress

_START_S = 30.0
_CALL_S = 30.0

T = TypeVar("T")

_ROOT = Principal(TokenId("tok_root"), OwnerId("root"), frozenset({"sandbox", "admin"}))


class RunningApi:
    """A server that runs.

    Attributes:
        url: Its origin.
        isolation: What its sandboxes have.
        alice: A token of one owner.
        bob: A token of another one.
        admin: A token with the scope ``admin``, of a third one.
        service: What the application serves; use it through `call` only.
        egress: Its gateway.
    """

    def __init__(
        self,
        url: str,
        isolation: str,
        service: Service,
        egress: ScriptedEgress,
        loop: asyncio.AbstractEventLoop,
        tokens: list[str],
    ) -> None:
        self.url = url
        self.isolation = isolation
        self.service = service
        self.egress = egress
        self.alice, self.bob, self.admin = tokens
        self._loop = loop

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run something in the server's event loop and wait for it."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_CALL_S)

    def environment(self, token: str | None = None) -> dict[str, str]:
        """The variables by which both SDKs find the server."""
        return {
            "DENO_DEPLOY_TOKEN": self.alice if token is None else token,
            "DENO_SANDBOX_ENDPOINT": self.url,
            "DENO_DEPLOY_ENDPOINT": self.url,
        }


@dataclass(frozen=True, slots=True)
class Kind:
    """Where sandboxes come from.

    Attributes:
        name: The isolation that they have.
        open_host: Starts the host side.
    """

    name: str
    open_host: Callable[[], AbstractAsyncContextManager[Host]]


class _WithNetwork:
    """A host that claims that its sandboxes have a network of their own."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def __getattr__(self, name: str) -> Any:
        return getattr(self._host, name)

    async def describe(self) -> HostDescription:
        """See `Host`."""
        found = await self._host.describe()
        drivers = tuple(
            msgspec.structs.replace(one, capabilities=one.capabilities | {Capability.OWN_NETWORK})
            for one in found.drivers
        )
        return msgspec.structs.replace(found, drivers=drivers)


def fake_with_network(built: Built) -> Kind:
    """As `fake`, but the gateway is asked about them: for what tests do with a gateway in memory."""

    @asynccontextmanager
    async def open_host() -> AsyncIterator[Host]:
        async with fake_host(built.agent) as host:
            claiming: Any = _WithNetwork(host)
            yield claiming

    return Kind("fake", open_host)


def fake(built: Built) -> Kind:
    """The agent as an ordinary process."""
    return Kind("fake", lambda: fake_host(built.agent))


def gvisor(built: Built) -> Kind:
    """gVisor, from a hostd process; needs root."""

    @asynccontextmanager
    async def open_host() -> AsyncIterator[Host]:
        async with instance(built) as hostd, client_of(hostd) as host:
            yield host

    return Kind("gvisor", open_host)


@contextmanager
def running_api(kind: Kind, directory: Path, **changes: Any) -> Iterator[RunningApi]:
    """Start a server, and stop it at the end of the block.

    Args:
        kind: Where its sandboxes come from.
        directory: For its database.
        changes: Settings that are not the default.
    """
    started: list[RunningApi | BaseException] = []
    ready = threading.Event()

    def say(result: RunningApi | BaseException) -> None:
        started.append(result)
        ready.set()

    stop: list[Callable[[], object]] = []
    thread = threading.Thread(target=_serve, args=(kind, directory, changes, say, stop), daemon=True)
    thread.start()
    if not ready.wait(_START_S):
        raise TimeoutError("the server did not start")
    result = started[0]
    if isinstance(result, BaseException):
        raise result
    try:
        yield result
    finally:
        stop[0]()
        thread.join(_CALL_S)
        assert not thread.is_alive(), "the server did not stop"


def _serve(
    kind: Kind,
    directory: Path,
    changes: dict[str, Any],
    say: Callable[[RunningApi | BaseException], None],
    stop: list[Callable[[], object]],
) -> None:
    async def run() -> None:
        async with AsyncExitStack() as stack:
            try:
                api = await _start(stack, kind, directory, changes)
            except BaseException as error:
                say(error)
                raise
            ended = asyncio.Event()
            loop = asyncio.get_running_loop()
            stop.append(lambda: loop.call_soon_threadsafe(ended.set))
            say(api)
            await ended.wait()

    uvloop.run(run())


async def _start(stack: AsyncExitStack, kind: Kind, directory: Path, changes: dict[str, Any]) -> RunningApi:
    settings = Settings(
        data_dir=str(directory), isolation=kind.name, test_drivers=True, pool=PoolSettings(size=0)
    )
    settings = msgspec.structs.replace(settings, **changes)
    host = await stack.enter_async_context(kind.open_host())
    egress = ScriptedEgress()
    egress.inspects = False
    service = await stack.enter_async_context(
        open_service(
            settings,
            host=host,
            egress=egress,
            database=directory / "skerry.db",
            clock=SystemClock(),
        )
    )
    stack.push_async_callback(service.end_all)
    tokens = [
        await _token(service, "alice", ("sandbox",)),
        await _token(service, "bob", ("sandbox",)),
        await _token(service, "carol", ("sandbox", "admin")),
    ]
    listener = socket.create_server(("127.0.0.1", 0))
    runner = await start_server(build_app(service), listener)
    stack.push_async_callback(runner.cleanup)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    return RunningApi(url, kind.name, service, egress, asyncio.get_running_loop(), tokens)


async def _token(service: Service, owner: str, scopes: tuple[str, ...]) -> str:
    _, value = await service.create_token(_ROOT, name=owner, owner=owner, scopes=scopes)
    return value
