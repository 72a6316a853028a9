"""`skerry up`."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from skerry.cli.output import ExitCode, Json, note, say, say_json, verb
from skerry.cli.progress import progress
from skerry.cli.server import DataDirOption
from skerry.errors import SkerryError

if TYPE_CHECKING:
    from skerry.daemon.site import Site

_DETACH_DEADLINE_S = 150.0

ListenOption = Annotated[
    str | None,
    typer.Option("--listen", metavar="H:P", help="Where the API listens; port 0 picks a free one."),
]
ConfigOption = Annotated[
    Path | None, typer.Option("--config", metavar="F", help="Settings in a TOML file; also SKERRY_CONFIG.")
]
AllowRemoteOption = Annotated[
    bool,
    typer.Option("--allow-remote", help="Listen on an address other than loopback although there is no TLS."),
]


def add_to(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("up")(verb(up))


def up(
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Return when the API answers; stop it by `skerry down`.")
    ] = False,
    data_dir: DataDirOption = None,
    listen: ListenOption = None,
    allow_remote: AllowRemoteOption = False,
    config: ConfigOption = None,
    as_json: Json = False,
) -> int:
    """Start Skerry and keep it running; asks for root by sudo, once. Ctrl-C ends it and its sandboxes."""
    from skerry.cli.invoker import invoker
    from skerry.cli.settings_here import settings_here
    from skerry.daemon import elevation, site

    settings = settings_here(
        data_dir=data_dir, listen=listen, allow_remote=allow_remote or None, config=config
    )
    if not elevation.is_root():
        words = ["up", "--data-dir", settings.data_dir]
        words += ["--listen", listen] if listen else []
        words += ["--config", str(config.absolute())] if config else []
        flags = {"--detach": detach, "--allow-remote": allow_remote, "--json": as_json}
        words += [name for name, given in flags.items() if given]
        elevation.run_as_root(words, why="to isolate sandboxes (control groups, mounts, namespaces)")
    site.check_host(settings)
    ours = site.prepare(settings, invoker())
    if detach:
        return _detached(ours, as_json=as_json)
    try:
        return _serve(ours, lambda url: _announce(ours, url, os.getpid(), as_json=as_json), show=not as_json)
    finally:
        ours.close()


def _serve(ours: "Site", on_ready: Callable[[str], None], *, show: bool) -> int:
    """Run the daemons until something ends them."""
    import asyncio

    from skerry.daemon import runtime_dir
    from skerry.daemon.journal import Journal
    from skerry.daemon.privileges import raise_open_files
    from skerry.daemon.supervisor import Supervisor, stop_on_signals

    raise_open_files()  # `up` keeps one for each sandbox

    async def run() -> None:
        journal = Journal(ours.data.logs, _show_log_line if show else None)
        try:
            supervisor = Supervisor(ours, journal)
            stop_on_signals(supervisor)
            keep = await supervisor.run(on_ready)
            if not keep:
                runtime_dir.remove(ours.runtime)
            journal.event("info", "stopped", kept_sandboxes=keep)
        except SkerryError as problem:
            journal.event("error", problem.message)
            if ours.fresh and not runtime_dir.holds_sandboxes(ours.runtime):
                runtime_dir.remove(ours.runtime)
            raise
        finally:
            journal.close()

    asyncio.run(run())
    return ExitCode.OK


def _announce(ours: "Site", url: str, pid: int, *, as_json: bool) -> None:
    import shlex

    from skerry import __version__
    from skerry.cli.invoker import default_data_dir

    if as_json:
        fields = {"url": url, "instance": ours.instance, "data_dir": str(ours.data.path), "pid": pid}
        say_json({**fields, "version": __version__})
        return
    is_default = ours.data.path == default_data_dir(ours.who)
    option = "" if is_default else f" --data-dir {shlex.quote(str(ours.data.path))}"
    say(f"Skerry {__version__} serves {url} (instance {ours.instance})")
    say(f'  eval "$(skerry env{option})"      then any program that uses the Deno Sandbox SDKs runs here')
    say(f"  skerry create{option} -- echo hello")
    say(f"  skerry status{option}")
    say(f"  skerry down{option}")


def _show_log_line(name: str, line: bytes) -> None:
    from skerry.daemon.journal import readable

    note(readable(name, line))


def _detached(ours: "Site", *, as_json: bool) -> int:
    """Leave a supervisor behind and wait until it says that the API answers, or why not."""
    from skerry.daemon.background import Tell, fork_into_background

    def work(tell: Tell) -> None:
        try:
            _serve(ours, lambda url: tell({"url": url}), show=False)
        except SkerryError as problem:
            tell({"problem": problem.message, "code": problem.code})

    log = ours.data.logs / "up.log"
    child = fork_into_background(work, errors_to=log, keep_fds=ours.descriptors)
    # The child has the lock and the address too, and holds them until it ends.
    ours.close()
    try:
        with progress("starting Skerry", quiet=as_json):
            answer = child.first_answer(timeout_s=_DETACH_DEADLINE_S)
    except BaseException:  # Ctrl-C: what nobody waits for any more must not go on starting
        child.end()
        raise
    if answer is None:
        child.end()
        raise SkerryError(f"Skerry did not start: {log} may say why")
    if "problem" in answer:
        raise SkerryError(answer["problem"], code=answer["code"])
    _announce(ours, answer["url"], child.pid, as_json=as_json)
    return ExitCode.OK
