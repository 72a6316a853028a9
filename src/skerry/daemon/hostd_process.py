"""The hostd daemon: root, in the instance's own mount namespace."""

import asyncio
import os
import sys

import msgspec

from skerry import __version__
from skerry.cli.places import RuntimeDir, read_instance
from skerry.daemon import logs
from skerry.daemon.data_dir import API_USER, EGRESS_USER
from skerry.daemon.lifeline import Ready
from skerry.daemon.privileges import system_account
from skerry.daemon.runtime_dir import read_settings
from skerry.daemon.start import Inherited, run_daemon, run_loop, stop_asked
from skerry.errors import HostUnusable
from skerry.hostd import server, trial_instance
from skerry.hostd.composition import Host, composed
from skerry.hostd.drivers import gvisor_probe
from skerry.hostd.places import Places
from skerry.hostd.sys import mount_namespace
from skerry.serving.listening import bind
from skerry.spec.ids import egress_group
from skerry.spec.sandbox import DriverReport
from skerry.spec.settings import Settings


def run(place: RuntimeDir) -> int:
    """Run the daemon; the exit code."""
    return run_daemon("hostd", place, _work)


def _work(inherited: Inherited) -> None:
    place = inherited.place
    settings, instance = read_settings(place), read_instance(place.instance)
    if instance is None:
        raise HostUnusable(f"{place.instance} is missing: start Skerry by `skerry up`")
    # Before any thread exists, and from the namespace where the pin is: setns(2) asks for both.
    mount_namespace.enter(place.mount_namespace)
    run_loop(_serve(inherited, Places(place.path, instance), settings))


async def _serve(inherited: Inherited, places: Places, settings: Settings) -> None:
    asked = stop_asked(inherited.parent)
    api, egress_uid = system_account(API_USER), system_account(EGRESS_USER).uid
    egress = server.EgressPeer(egress_uid, egress_group(places.instance), os.getppid())
    async with composed(places, settings, egress_uid=egress_uid) as host:
        listener = bind(places.socket, user_id=api.uid, group_id=egress.gid)
        serving = server.HostServer(
            listener,
            service=host.service,
            happenings=host.happenings,
            allowed_uid=api.uid,
            egress=egress,
        )
        try:
            await _answer(inherited, host, serving, asked=asked)
        finally:
            places.socket.unlink(missing_ok=True)


async def _answer(
    inherited: Inherited, host: Host, serving: server.HostServer, *, asked: "asyncio.Future[bool]"
) -> None:
    async with asyncio.TaskGroup() as group:
        accepting = group.create_task(serving.serve())
        inherited.parent.say(Ready(__version__))
        host.keep = await asyncio.shield(asked)
        accepting.cancel()


def print_reports() -> None:
    """Read settings from standard input and print what each driver says of this machine.

    As root a sandbox of each is run for real; else the drivers only look.
    """
    logs.configure("probe")
    settings = msgspec.json.decode(sys.stdin.buffer.read(), type=Settings)
    runs = os.geteuid() == 0 and settings.image in settings.images
    reports = trial_instance.reports(settings) if runs else asyncio.run(_looks(settings))
    sys.stdout.buffer.write(msgspec.json.encode(reports))


async def _looks(settings: Settings) -> list[DriverReport]:
    return [await gvisor_probe.probe(settings.runsc_path, settings.agent_path)]
