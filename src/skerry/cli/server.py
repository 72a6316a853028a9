"""Which server a verb talks to, and with which token."""

import json
import os
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from skerry.cli.invoker import default_data_dir, invoker
from skerry.cli.output import Unreachable
from skerry.cli.places import DataDir
from skerry.errors import Unauthenticated

DataDirOption = Annotated[
    Path | None,
    typer.Option("--data-dir", metavar="D", help="Data directory of the server; also SKERRY_DATA_DIR."),
]

TOKEN_ENV = "DENO_DEPLOY_TOKEN"  # noqa: S105 - a name
SANDBOX_ENDPOINT_ENV = "DENO_SANDBOX_ENDPOINT"
CONSOLE_ENDPOINT_ENV = "DENO_DEPLOY_ENDPOINT"


@dataclass(frozen=True, slots=True)
class Server:
    """A server and how to be let in."""

    url: str
    token: str = field(repr=False)


def chosen_data_dir(option: Path | None) -> DataDir:
    """The data directory: of the flag, else of SKERRY_DATA_DIR, else the default of the person who asks."""
    given = option or (Path(os.environ["SKERRY_DATA_DIR"]) if os.environ.get("SKERRY_DATA_DIR") else None)
    return DataDir((given or default_data_dir(invoker())).absolute())


def find_server(data_dir: Path | None) -> Server:
    """Choose the server: that of ``--data-dir`` or SKERRY_DATA_DIR, else the one in the environment (from
    `skerry env`), else that of the default data directory.

    Raises:
        Unreachable: It is not running.
        Unauthenticated: Its token cannot be read.
    """
    env = os.environ
    explicit = data_dir is not None or bool(env.get("SKERRY_DATA_DIR"))
    if not explicit and env.get(SANDBOX_ENDPOINT_ENV) and env.get(TOKEN_ENV):
        return Server(env[SANDBOX_ENDPOINT_ENV].rstrip("/"), env[TOKEN_ENV])
    place = chosen_data_dir(data_dir)
    return Server(_url(place), _token(place))


def _url(place: DataDir) -> str:
    try:
        return str(json.loads(place.endpoint.read_bytes())["url"])
    except FileNotFoundError:
        raise Unreachable(
            f"Skerry does not run for {place.path}: start it by "
            f"`skerry up --data-dir {shlex.quote(str(place.path))}`, "
            "or name another directory by --data-dir"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise Unreachable(f"{place.endpoint} cannot be read: {problem}") from problem


def _token(place: DataDir) -> str:
    try:
        return place.client_token.read_text().strip()
    except PermissionError:
        raise Unauthenticated(
            f"{place.client_token} belongs to somebody else: ask them for a token (`skerry token create`), "
            f"then set {SANDBOX_ENDPOINT_ENV} and {TOKEN_ENV}"
        ) from None
    except FileNotFoundError:
        raise Unauthenticated(
            f"{place.client_token} is missing: `skerry down --keep` and `skerry up` make a new one"
        ) from None
