"""`skerry token create|list|revoke`."""

from typing import Annotated, Any

import typer

from skerry.cli.output import Json, note, say, say_json, say_table, verb
from skerry.cli.server import DataDirOption, find_server

app = typer.Typer(help="Tokens: who may use this server.", no_args_is_help=True, rich_markup_mode=None)

_ROUTE = ("skerry", "v1", "tokens")


@app.command("create")
@verb
def create(
    name: Annotated[str, typer.Argument(help="What it is for.")],
    owner: Annotated[
        str | None,
        typer.Option(help="Whom its sandboxes belong to; one token sees only its owner's. Default: you."),
    ] = None,
    admin: Annotated[
        bool, typer.Option("--admin", help="May also manage tokens and see the status.")
    ] = False,
    expires: Annotated[
        str | None, typer.Option(metavar="DURATION", help="When it ends, such as 30d.")
    ] = None,
    max_running: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Sandboxes it may have at once.")
    ] = None,
    policy: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="What its sandboxes go by whose label `policy` names none."),
    ] = None,
    data_dir: DataDirOption = None,
    as_json: Json = False,
) -> None:
    """Make a token and print it: the only time that it can be seen."""
    from skerry.cli import rest
    from skerry.cli.quantities import parse_duration_s

    body: dict[str, Any] = {"name": name, "scopes": ["sandbox", "admin"] if admin else ["sandbox"]}
    if owner is not None:
        body["owner"] = owner
    if expires is not None:
        body["expires_in_s"] = int(parse_duration_s(expires))
    if max_running is not None:
        body["max_running"] = max_running
    if policy is not None:
        body["policy"] = policy
    made = rest.call(find_server(data_dir), "POST", rest.path(*_ROUTE), body)
    if as_json:
        say_json(made)
        return
    say(made["token"])
    note(
        f"Token {made['view']['token_id']} of owner {made['view']['owner']}: keep it, it is not shown again."
    )


@app.command("list")
@verb
def list_(data_dir: DataDirOption = None, as_json: Json = False) -> None:
    """List the tokens."""
    from skerry.cli import rest
    from skerry.cli.times import show_time

    rows = rest.call(find_server(data_dir), "GET", rest.path(*_ROUTE))
    if as_json:
        say_json(rows)
        return
    say_table(
        ("ID", "NAME", "OWNER", "SCOPES", "POLICY", "CREATED", "EXPIRES", "STATE"),
        [
            (
                row["token_id"],
                row["name"],
                row["owner"],
                ",".join(row["scopes"]),
                row.get("policy") or "",
                show_time(row["created_at_ms"]),
                show_time(row["expires_at_ms"]) if row["expires_at_ms"] else "never",
                "revoked" if row["revoked_at_ms"] else "good",
            )
            for row in rows
        ],
    )


@app.command("revoke")
@verb
def revoke(
    token_ids: Annotated[list[str], typer.Argument(metavar="ID...", help="IDs from `skerry token list`.")],
    data_dir: DataDirOption = None,
    as_json: Json = False,
) -> None:
    """Make tokens useless at once and close their connections.

    Sandboxes made with them go on, but for sessions, which end with their connection.
    """
    from skerry.cli import rest

    server = find_server(data_dir)
    for token_id in token_ids:
        rest.call(server, "DELETE", rest.path(*_ROUTE, token_id))
    if as_json:
        say_json({"revoked": token_ids})
