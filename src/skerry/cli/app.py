"""The command line: its verbs. Each imports what it needs only when it runs, so that start-up stays fast."""

import typer

from skerry import __version__
from skerry.cli import (
    cp,
    doctor,
    env,
    logs,
    one_line,
    outbound,
    policies,
    run,
    sandboxes,
    secret_verbs,
    status,
    tokens,
)


def new() -> typer.Typer:
    """The application, without verbs."""
    app = typer.Typer(
        name="skerry",
        help="Isolated Linux sandboxes for untrusted code, on your own machine.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    return app


def add_to(app: typer.Typer) -> None:
    """Add the verbs that need no root."""
    for module in (status, doctor, env, one_line, run, sandboxes, logs, cp, outbound):
        module.add_to(app)
    app.add_typer(policies.app, name="policy")
    app.add_typer(secret_verbs.app, name="secrets")
    app.add_typer(tokens.app, name="token")


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"skerry {__version__}")
        raise typer.Exit


def _root(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version."
    ),
) -> None:
    """Isolated Linux sandboxes for untrusted code, on your own machine."""
