"""`skerry secrets list|rotate|revoke`: the secrets of a running sandbox, never their values."""

from typing import Annotated

import typer

from skerry.cli.output import Json, note, say_json, say_table, usage_error, verb
from skerry.cli.sandbox_id import named_or_default, split_default
from skerry.cli.server import DataDirOption, find_server

app = typer.Typer(help="Secrets of a running sandbox.", no_args_is_help=True, rich_markup_mode=None)

SecretWords = Annotated[
    list[str],
    typer.Argument(metavar="[ID] NAME", help="The variable's name. Default ID: SANDBOX_ID."),
]


@app.command("list")
@verb
def list_(
    sandbox_id: Annotated[str, typer.Argument(metavar="[ID]", help="Default: SANDBOX_ID.")] = "",
    data_dir: DataDirOption = None,
    as_json: Json = False,
) -> None:
    """List the secrets, their hosts and slots, and how often each was used."""
    from skerry.cli import rest
    from skerry.cli.times import show_time

    target = rest.path("skerry", "v1", "sandboxes", named_or_default(sandbox_id), "secrets")
    rows = rest.call(find_server(data_dir), "GET", target)
    if as_json:
        say_json(rows)
        return
    say_table(
        ("NAME", "STATE", "HOSTS", "SLOTS", "USED", "EXPIRES"),
        [
            (
                row["name"],
                row["state"],
                ",".join(row["hosts"]),
                ",".join(row["slots"]) or "credential headers",
                str(row["used"]),
                show_time(row["expires_at_ms"]) if row["expires_at_ms"] else "with the sandbox",
            )
            for row in rows
        ],
    )
    if any(row["state"] == "lost" for row in rows):
        note("A lost value is gone with the daemons that held it: `skerry secrets rotate` brings it back.")


@app.command("rotate")
@verb
def rotate(words: SecretWords, data_dir: DataDirOption = None, as_json: Json = False) -> None:
    """Use another value from the next request on; it is read from standard input.

    The placeholder in the sandbox stays. Works for a revoked or lost secret too.
    """
    from skerry.cli import rest
    from skerry.cli.secret_values import from_stdin

    sandbox_id, name = _words(words)
    server = find_server(data_dir)
    target = rest.path("skerry", "v1", "sandboxes", sandbox_id, "secrets", name)
    rest.call(server, "PUT", target, {"value": from_stdin(name)})
    if as_json:
        say_json({"sandbox_id": sandbox_id, "rotated": name})


@app.command("revoke")
@verb
def revoke(words: SecretWords, data_dir: DataDirOption = None, as_json: Json = False) -> None:
    """Forget a value at once: requests that would carry it are refused, streams that do are cut."""
    from skerry.cli import rest

    sandbox_id, name = _words(words)
    target = rest.path("skerry", "v1", "sandboxes", sandbox_id, "secrets", name)
    rest.call(find_server(data_dir), "DELETE", target)
    if as_json:
        say_json({"sandbox_id": sandbox_id, "revoked": name})


def _words(words: list[str]) -> tuple[str, str]:
    sandbox_id, rest_of_line = split_default(words)
    if len(rest_of_line) != 1:
        usage_error("expected a sandbox ID and the name of one secret: skerry secrets revoke sbx_… NAME")
    return sandbox_id, rest_of_line[0]
