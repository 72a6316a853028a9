"""`skerry down`."""

import signal
from typing import TYPE_CHECKING, Annotated

import typer

from skerry.cli.output import ExitCode, Json, note, say, say_json, verb
from skerry.cli.progress import progress
from skerry.cli.server import DataDirOption

if TYPE_CHECKING:
    from skerry.cli.places import DataDir
    from skerry.daemon.data_dir import DataDirLock
    from skerry.daemon.site import Site

_STOP_S = 200.0
_STARTING_S = 15.0


def add_to(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("down")(verb(down))


def down(
    keep: Annotated[
        bool,
        typer.Option("--keep", help="Only stop the daemons; sandboxes go on until the next `skerry up`."),
    ] = False,
    data_dir: DataDirOption = None,
    as_json: Json = False,
) -> int:
    """Stop Skerry, end its sandboxes, and leave nothing running or mounted."""
    from skerry.cli.server import chosen_data_dir
    from skerry.daemon import elevation

    place = chosen_data_dir(data_dir)
    if not elevation.is_root():
        flags = {"--keep": keep, "--json": as_json}
        words = ["down", "--data-dir", str(place.path), *(name for name, given in flags.items() if given)]
        elevation.run_as_root(words, why="to end sandboxes and unmount what they used")
    with progress("stopping Skerry", quiet=as_json):
        was_running = place.path.is_dir() and _stop(place, keep=keep)
    left = [] if keep else _left(place)
    if as_json:
        say_json({"data_dir": str(place.path), "was_running": was_running, "left": left})
    elif not was_running:
        say(f"Skerry did not run for {place.path}")
    for name in left:
        note(f"skerry: still there: {name}")
    return ExitCode.FAILURE if left else ExitCode.OK


def _stop(place: "DataDir", *, keep: bool) -> bool:
    """Stop whatever runs; True when something did."""
    from skerry.daemon.data_dir import DataDirLock

    lock = DataDirLock.try_take(place)
    signalled = lock is None
    if lock is None:
        lock = _stop_supervisor(place, keep=keep)
    try:
        return _clean_up(place, lock, keep=keep) or signalled
    finally:
        lock.release()


def _stop_supervisor(place: "DataDir", *, keep: bool) -> "DataDirLock":
    """Tell the running `up` to stop and wait for its end; kill it if it does not.

    An `up` that has just begun holds the lock and has not said yet which process it is: waits for that too.

    Raises:
        Conflict: Something else has the lock.
    """
    import time

    from skerry.cli.places import read_instance, runtime_dir
    from skerry.cli.processes import recorded, send, wait_gone
    from skerry.daemon.data_dir import DataDirLock

    end_s = time.monotonic() + _STARTING_S
    while time.monotonic() < end_s:
        instance = read_instance(place.instance)
        rows = recorded(runtime_dir(instance).processes) if instance else []
        for row in rows:
            if row.name == "up":
                send(row.process, signal.SIGUSR1 if keep else signal.SIGTERM)
                if not wait_gone(row.process, timeout_s=_STOP_S):
                    send(row.process, signal.SIGKILL)
                    wait_gone(row.process, timeout_s=_STOP_S)
        if (lock := DataDirLock.try_take(place)) is not None:
            return lock
        time.sleep(0.05)
    return DataDirLock.take(place)


def _clean_up(place: "DataDir", lock: "DataDirLock", *, keep: bool) -> bool:
    """Take down what an `up` that died has left; True when there was something."""
    import asyncio

    from skerry.cli.invoker import invoker
    from skerry.daemon import runtime_dir, site

    place.endpoint.unlink(missing_ok=True)
    ours = site.take_over(place, invoker(), lock)
    if ours is None:
        return False
    try:
        if not keep:
            asyncio.run(_end_sandboxes(ours))
            runtime_dir.remove(ours.runtime)
    finally:
        ours.listener.close()
    return True


async def _end_sandboxes(ours: "Site") -> None:
    """Start the daemons once more, so that everything is ended and recorded in order; without api if need be.

    Raises:
        DaemonFailed: hostd cannot start, or could not free everything.
    """
    from skerry.daemon.journal import Journal
    from skerry.daemon.launch import DaemonFailed
    from skerry.daemon.supervisor import Supervisor

    journal = Journal(ours.data.logs, None)
    try:
        supervisor = Supervisor(ours, journal)
        try:
            await supervisor.run(lambda _: supervisor.request_stop(keep=False))
        except DaemonFailed as problem:
            journal.event("warning", problem.message)
            await Supervisor(ours, journal).stop(keep=False)
    finally:
        journal.close()


def _left(place: "DataDir") -> list[str]:
    from skerry.cli.orphans import leftovers_of
    from skerry.cli.places import read_instance

    instance = read_instance(place.instance)
    return [f"{found.kind} {found.name}" for found in leftovers_of(instance)] if instance else []
