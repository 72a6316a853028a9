"""The egressd daemon: from root to an unprivileged broker, and beside it the zygote of its workers."""

import asyncio
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NoReturn

import dns.rdata
from msgspec import structs

from skerry import __version__
from skerry.cli.places import RuntimeDir, read_instance
from skerry.daemon import logs
from skerry.daemon.data_dir import API_USER, EGRESS_USER
from skerry.daemon.descriptors import close_others
from skerry.daemon.lifeline import DaemonEnd, Forget, Keep, Ready
from skerry.daemon.operator_policy import read_layer
from skerry.daemon.preload import EGRESSD, preload, watch_late_imports
from skerry.daemon.privileges import Account, become, system_account
from skerry.daemon.runtime_dir import read_settings
from skerry.daemon.start import Inherited, run_daemon, run_loop, stop_asked
from skerry.daemon.trust_roots import further_roots, roots_for_guests, write_roots
from skerry.egress import zygote
from skerry.egress.broker import server, vault
from skerry.egress.broker.audit_files import Trails
from skerry.egress.broker.background import Background
from skerry.egress.broker.control_channel import largest_message_bytes
from skerry.egress.broker.gateway import Gateways
from skerry.egress.broker.policies import Policies
from skerry.egress.broker.sandbox import Ground
from skerry.egress.broker.service import Broker, Surroundings
from skerry.egress.broker.zygote_client import ZygoteClient
from skerry.egress.messages import OwnPlaces
from skerry.egress.own_places import own_places
from skerry.egress.worker import process
from skerry.egress.worker.upstream_tls import upstream_context
from skerry.errors import HostUnusable
from skerry.hostd.sys import mount_namespace
from skerry.hostd.sys.mounts import MountFlag, mount
from skerry.protocol.egress_verbs import NamedLayer
from skerry.serving.listening import bind
from skerry.spec.ids import SandboxId, egress_group
from skerry.spec.settings import EgressSettings, Settings

_HANDED_BACK_S = 20.0
_WORKERS_OOM_SCORE = "500"


def run(place: RuntimeDir) -> int:
    """Run the daemon; the exit code."""
    return run_daemon("egressd", place, _work)


@dataclass(frozen=True, slots=True)
class _Prepared:
    """What needed root."""

    listener: socket.socket
    zygote: socket.socket
    operator: NamedLayer
    settings: EgressSettings
    own: Callable[[], OwnPlaces]
    surroundings: Surroundings
    api_uid: int


def _work(inherited: Inherited) -> None:
    place = inherited.place
    settings, instance = read_settings(place), read_instance(place.instance)
    if instance is None:
        raise HostUnusable(f"{place.instance} is missing: start Skerry by `skerry up`")
    user = Account(system_account(EGRESS_USER).uid, egress_group(instance))
    prepared = _prepare(place, settings, user)
    become(user)
    watch_late_imports()
    run_loop(_serve(inherited, prepared))


def _prepare(place: RuntimeDir, settings: Settings, user: Account) -> _Prepared:
    """Do what needs root, and fork the zygote: before this process has received any secret."""
    egress = settings.egress
    operator = read_layer(egress)
    roots_pem = further_roots(egress)
    for_guests = roots_for_guests(roots_pem) if egress.trust_host_roots else ""
    egress = structs.replace(egress, extra_roots=write_roots(place.egress_roots, roots_pem))
    _show_state(settings, place)
    preload(EGRESSD)
    # From now on no answer can make it look for modules.
    dns.rdata.load_all_types()  # type: ignore[no-untyped-call]
    upstream_context(egress.extra_roots)  # it is remembered, so all workers have it from the zygote
    ours = _fork_zygote(user, egress)
    api = system_account(API_USER)
    problems = () if egress.resolvers else ("this host has no resolver: set egress.resolvers",)
    return _Prepared(
        listener=bind(place.egressd_socket, user_id=0, group_id=api.gid),
        zygote=ours,
        operator=operator,
        settings=egress,
        own=partial(own_places, settings.host_names, settings.listen),
        surroundings=Surroundings(for_guests, problems),
        api_uid=api.uid,
    )


def _show_state(settings: Settings, place: RuntimeDir) -> None:
    """Make the directory of audit trails reachable for the plain user, in this process's own mount namespace.

    The data directory may lie below one that only its owner can enter.
    """
    mount_namespace.enter_own()
    mount(Path(settings.data_dir) / "egress", place.egress_state, None, MountFlag.BIND)


def _fork_zygote(user: Account, settings: EgressSettings) -> socket.socket:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    broker = os.getpid()
    if os.fork() == 0:
        _live_as_zygote(theirs, user, settings, broker)
    theirs.close()
    return ours


def _live_as_zygote(sock: socket.socket, user: Account, settings: EgressSettings, broker: int) -> NoReturn:
    try:
        logs.configure("egress-worker")
        close_others({sock.fileno()})
        # Where memory runs out, a worker goes before anything else of Skerry.
        Path("/proc/self/oom_score_adj").write_text(_WORKERS_OOM_SCORE)
        become(user)
        watch_late_imports()
        memory_bytes = settings.limits.worker_memory_mib << 20
        zygote.run(sock, process.run, broker=broker, memory_bytes=memory_bytes)
    finally:
        os._exit(1)


class _LifelineKeeper:
    """Has `up` keep files. Implements `skerry.egress.broker.vault.Keeper`."""

    def __init__(self, parent: DaemonEnd) -> None:
        self._parent = parent

    async def keep(self, sandbox_id: SandboxId, descriptor: int) -> None:
        """See `Keeper`."""
        await self._parent.tell(Keep(sandbox_id), descriptor)

    async def forget(self, sandbox_id: SandboxId) -> None:
        """See `Keeper`."""
        await self._parent.tell(Forget(sandbox_id))


async def _serve(inherited: Inherited, prepared: _Prepared) -> None:
    kept = vault.restore(inherited.parent.handed_back(inherited.hello, timeout_s=_HANDED_BACK_S))
    asked = stop_asked(inherited.parent)
    zygote_lost = asyncio.Event()
    async with Background() as background:
        client = ZygoteClient(prepared.zygote, zygote_lost.set)
        try:
            broker = _broker(inherited.place, prepared, client, background, inherited.parent)
            broker.restore(kept)
            serving = server.BrokerServer(prepared.listener, broker=broker, allowed_uid=prepared.api_uid)
            async with asyncio.TaskGroup() as group:
                accepting = group.create_task(serving.serve())
                inherited.parent.say(Ready(__version__))
                lost = group.create_task(zygote_lost.wait())
                await asyncio.wait((asked, lost), return_when=asyncio.FIRST_COMPLETED)
                accepting.cancel()
                lost.cancel()
            await broker.close()
        finally:
            client.close()
    if not asked.done():
        raise HostUnusable("the zygote has ended, and with it all workers: starting again")


def _broker(
    place: RuntimeDir,
    prepared: _Prepared,
    client: ZygoteClient,
    background: Background,
    parent: DaemonEnd,
) -> Broker:
    directory = place.egress_state / "audit"
    directory.mkdir(mode=0o700, exist_ok=True)
    ground = Ground(
        policies=Policies(prepared.operator, prepared.settings, prepared.own),
        zygote=client,
        trails=Trails(directory, max_bytes=prepared.settings.limits.audit_file_mib << 20),
        vault=vault.Vault(_LifelineKeeper(parent)),
        background=background,
        open_gateway=Gateways(place.hostd_socket).open,
        max_rules_bytes=largest_message_bytes(),
    )
    return Broker(ground, prepared.surroundings)
