"""`skerry env`."""

import typer

from skerry.cli.output import Json, say, say_json, verb
from skerry.cli.server import (
    CONSOLE_ENDPOINT_ENV,
    SANDBOX_ENDPOINT_ENV,
    TOKEN_ENV,
    DataDirOption,
    find_server,
)


def add_to(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("env")(verb(env))


def env(data_dir: DataDirOption = None, as_json: Json = False) -> None:
    """Print what the official SDKs read, as `export` lines: eval "$(skerry env)"."""
    import shlex

    server = find_server(data_dir)
    variables = {
        TOKEN_ENV: server.token,
        SANDBOX_ENDPOINT_ENV: server.url,
        CONSOLE_ENDPOINT_ENV: server.url,
    }
    if as_json:
        say_json(variables)
    else:
        say("\n".join(f"export {name}={shlex.quote(value)}" for name, value in variables.items()))
