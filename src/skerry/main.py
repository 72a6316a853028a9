"""Puts everything together: the command line, and the daemons as its hidden commands.

Nothing is imported before it is needed: a verb of the command line must start fast, and each daemon loads
only its own half.
"""

from pathlib import Path
from typing import Annotated

import typer

from skerry.cli import app as command_line
from skerry.cli.places import RuntimeDir
from skerry.daemon import down, up

RuntimeDirOption = Annotated[Path, typer.Option("--runtime-dir")]


def build() -> typer.Typer:
    """The whole command line."""
    app = command_line.new()
    for part in (up, down, command_line):
        part.add_to(app)
    app.command("api", hidden=True)(api)
    app.command("egressd", hidden=True)(egressd)
    app.command("hostd", hidden=True)(hostd)
    app.command("probe", hidden=True)(probe)
    return app


def api(runtime_dir: RuntimeDirOption) -> None:
    """Run the api daemon; `skerry up` does this."""
    from skerry.daemon import api_process

    raise typer.Exit(api_process.run(RuntimeDir(runtime_dir)))


def egressd(runtime_dir: RuntimeDirOption) -> None:
    """Run the egressd daemon; `skerry up` does this."""
    from skerry.daemon import egressd_process

    raise typer.Exit(egressd_process.run(RuntimeDir(runtime_dir)))


def hostd(runtime_dir: RuntimeDirOption) -> None:
    """Run the hostd daemon; `skerry up` does this."""
    from skerry.daemon import hostd_process

    raise typer.Exit(hostd_process.run(RuntimeDir(runtime_dir)))


def probe() -> None:
    """Read settings and print what each isolation driver says of this machine; `skerry doctor` does this."""
    from skerry.daemon import hostd_process

    hostd_process.print_reports()


def run() -> None:
    """Entry point."""
    build()()
