"""The api daemon: from root to an unprivileged server."""

import socket
from pathlib import Path

from skerry import __version__
from skerry.api.app import build_app, start_server
from skerry.cli.places import RuntimeDir
from skerry.control.clock import SystemClock
from skerry.control.egress_client import EgressdClient
from skerry.control.host_client import HostdClient
from skerry.control.store import opening
from skerry.control.tasks import Tasks
from skerry.daemon.data_dir import API_USER
from skerry.daemon.lifeline import Ready
from skerry.daemon.preload import API, preload, watch_late_imports
from skerry.daemon.privileges import become, system_account
from skerry.daemon.runtime_dir import read_settings
from skerry.daemon.start import Inherited, run_daemon, run_loop, stop_asked
from skerry.errors import HostUnusable, Unauthenticated
from skerry.hostd.sys import mount_namespace
from skerry.hostd.sys.mounts import MountFlag, mount
from skerry.service.requests import Principal
from skerry.service.service import Service, open_service
from skerry.service.tokens import ADMIN, FIRST_OWNER, SANDBOX
from skerry.spec.ids import TokenId
from skerry.spec.settings import Settings


def run(place: RuntimeDir) -> int:
    """Run the daemon; the exit code."""
    return run_daemon("api", place, _work)


def _work(inherited: Inherited) -> None:
    if inherited.listener is None:
        raise HostUnusable("api has no socket to serve: start it by `skerry up`")
    place, user = inherited.place, system_account(API_USER)
    settings = read_settings(place)
    _show_state(settings, place)
    database = place.state / "skerry.db"
    preload(API)
    opening.preload(database)
    become(user)
    watch_late_imports()
    run_loop(_serve(inherited, inherited.listener, settings, database))


def _show_state(settings: Settings, place: RuntimeDir) -> None:
    """Make the database's directory reachable for the plain user, in this process's own mount namespace.

    The data directory may lie below one that only its owner can enter.
    """
    mount_namespace.enter_own()
    mount(Path(settings.data_dir) / "state", place.state, None, MountFlag.BIND)


async def _serve(inherited: Inherited, listener: socket.socket, settings: Settings, database: Path) -> None:
    asked = stop_asked(inherited.parent)
    clock = SystemClock()
    async with Tasks() as tasks:
        host = HostdClient(inherited.place.hostd_socket, tasks=tasks, clock=clock)
        egress = EgressdClient(inherited.place.egressd_socket, tasks=tasks, clock=clock)
        async with open_service(
            settings, host=host, egress=egress, database=database, clock=clock
        ) as service:
            token = await _client_token(service, inherited.hello.client_token)
            app = build_app(service, host_names=settings.host_names)
            runner = await start_server(app, listener)
            inherited.parent.say(Ready(__version__, token))
            try:
                if not await asked:
                    await service.end_all()
            finally:
                await runner.cleanup()


async def _client_token(service: Service, present: str | None) -> str | None:
    """A token for the person who runs `up`; None when the one that they have is good."""
    try:
        if present is not None:
            await service.authenticate(present)
            return None
    except Unauthenticated:
        pass  # revoked, or of another database
    first = await service.ensure_first_token()
    if first is not None:
        return first
    operator = Principal(token_id=TokenId(""), owner=FIRST_OWNER, scopes=frozenset({ADMIN}))
    _, value = await service.create_token(operator, name="client", scopes=(SANDBOX, ADMIN))
    return value
