"""What `up` prepares before it starts a daemon, and takes away after the last one has ended."""

import contextlib
import signal
import socket
from dataclasses import dataclass
from pathlib import Path

import msgspec

from skerry.cli.host_checks import host_checks
from skerry.cli.invoker import Invoker
from skerry.cli.places import DataDir, RuntimeDir, read_instance, runtime_dir
from skerry.cli.processes import recorded, send, wait_gone
from skerry.cli.settings_parsers import split_listen
from skerry.daemon import data_dir
from skerry.daemon import runtime_dir as runtime
from skerry.daemon.data_dir import DataDirLock
from skerry.daemon.health import address_of, bind
from skerry.errors import Conflict, HostUnusable
from skerry.spec.ids import InstanceId
from skerry.spec.settings import PoolSettings, Settings

_STALE_DAEMON_S = 10.0


@dataclass(frozen=True, slots=True)
class Site:
    """What an instance consists of, prepared, and the lock that makes it ours.

    Attributes:
        fresh: The runtime directory has just been made, so nothing of the instance can run.
    """

    instance: InstanceId
    data: DataDir
    runtime: RuntimeDir
    who: Invoker
    listener: socket.socket
    lock: DataDirLock
    fresh: bool = False

    @property
    def descriptors(self) -> tuple[int, int]:
        """What it holds open."""
        return self.listener.fileno(), self.lock.fileno()

    def close(self) -> None:
        """Free the address and the lock. Idempotent."""
        self.listener.close()
        self.lock.release()


def check_host(settings: Settings) -> None:
    """Refuse to start where it cannot work.

    Raises:
        HostUnusable: Something is missing; the message has a line for each, with the command that mends it.
    """
    missing = [check for check in host_checks(settings) if check.state == "missing"]
    if missing:
        lines = [f"  {check.name}: {check.detail}. {check.fix}" for check in missing]
        raise HostUnusable("\n".join(["this machine lacks something (`skerry doctor` shows all):", *lines]))


def prepare(settings: Settings, who: Invoker) -> Site:
    """Make directories, take the lock, bind the address, wait for daemons of an `up` that died.

    Raises:
        Conflict: It runs already, or the address is in use.
        HostUnusable: A directory cannot be trusted.
    """
    place = DataDir(Path(settings.data_dir))
    instance = data_dir.prepare(place, who)
    with contextlib.ExitStack() as undo:
        lock = DataDirLock.take(place)
        undo.callback(lock.release)
        end_stale_daemons(runtime_dir(instance))
        listener = _bind(settings)
        undo.callback(listener.close)
        fresh = not runtime_dir(instance).path.exists()
        # With the port that was picked, since the gateway must know what no sandbox may reach.
        made = runtime.prepare(instance, msgspec.structs.replace(settings, listen=address_of(listener)))
        undo.pop_all()
    return Site(instance, place, made, who, listener, lock, fresh)


def take_over(place: DataDir, who: Invoker, lock: DataDirLock) -> Site | None:
    """What is left of an instance whose `up` is gone, to take it down; None when nothing is.

    Nobody will be served, so the socket listens at no address that anybody knows, and no pool is filled.
    """
    instance = read_instance(place.instance)
    if instance is None:
        return None
    made = runtime_dir(instance)
    end_stale_daemons(made)
    if not made.settings.exists():
        return None
    settings = runtime.read_settings(made)
    runtime.write_settings(made, msgspec.structs.replace(settings, pool=PoolSettings(size=0)))
    return Site(instance, place, made, who, bind("127.0.0.1", 0), lock)


def end_stale_daemons(made: RuntimeDir) -> None:
    """Wait until the daemons of an `up` that died have seen it and ended; kill those that take too long."""
    for row in recorded(made.processes):
        if not wait_gone(row.process, timeout_s=_STALE_DAEMON_S):
            send(row.process, signal.SIGKILL)
            wait_gone(row.process, timeout_s=_STALE_DAEMON_S)


def _bind(settings: Settings) -> socket.socket:
    try:
        return bind(*split_listen(settings.listen))
    except OSError as problem:
        raise Conflict(
            f"cannot listen on {settings.listen} ({problem.strerror}): choose another address by --listen, "
            "or let the system choose one: --listen 127.0.0.1:0",
            code="ADDRESS_IN_USE",
        ) from problem
