"""`skerry list`, `kill`, `extend`."""

from typing import Annotated, Any

import typer

from skerry.cli.output import Json, say, say_json, say_table, verb
from skerry.cli.sandbox_id import named_or_default, split_default
from skerry.cli.server import DataDirOption, find_server


def add_to(app: typer.Typer) -> None:
    """Add the verbs."""
    app.command("list")(verb(list_))
    app.command("ls", hidden=True)(verb(list_))
    app.command("kill")(verb(kill))
    app.command("extend")(verb(extend))


def list_(
    all_owners: Annotated[
        bool, typer.Option("--all", help="Those of every owner; needs an admin token.")
    ] = False,
    data_dir: DataDirOption = None,
    as_json: Json = False,
) -> None:
    """List sandboxes, the newest first."""
    from skerry.cli import rest

    query = {"all": "1"} if all_owners else {}
    rows = rest.call(find_server(data_dir), "GET", rest.path("skerry", "v1", "sandboxes", **query))
    if as_json:
        say_json(rows)
        return
    head = ("ID", "CREATED", "STATUS", "UPTIME", "ENDS", "ISOLATION", "MEMORY", "LABELS")
    owner = ("OWNER",) if all_owners else ()
    say_table(head + owner, [_row(row) + ((row["owner"],) if all_owners else ()) for row in rows])


def _row(row: dict[str, Any]) -> tuple[str, ...]:
    from skerry.cli.quantities import show_duration
    from skerry.cli.times import now_ms, show_time

    ended_ms = row["stopped_at_ms"] or now_ms()
    if row["running"]:
        status = "running"
        ends = "with its client" if row["session"] else show_time(row["stop_at_ms"] or 0)
    else:
        status = f"stopped ({row['end_reason']})" if row["end_reason"] else "stopped"
        ends = ""
    return (
        row["sandbox_id"],
        show_time(row["created_at_ms"]),
        status,
        show_duration((ended_ms - row["created_at_ms"]) / 1000),
        ends,
        row["isolation"],
        f"{row['memory_mib']} MiB",
        ",".join(f"{key}={value}" for key, value in row["labels"].items()),
    )


def kill(
    sandbox_ids: Annotated[
        list[str] | None, typer.Argument(metavar="ID...", help="Default: SANDBOX_ID from the environment.")
    ] = None,
    data_dir: DataDirOption = None,
    as_json: Json = False,
) -> None:
    """End sandboxes; returns when they are gone."""
    from skerry.cli import rest

    server = find_server(data_dir)
    killed = [named_or_default(text) for text in sandbox_ids or [""]]
    for sandbox_id in killed:
        rest.call(server, "DELETE", rest.path("api", "v3", "sandbox", sandbox_id))
    if as_json:
        say_json({"killed": killed})


def extend(
    words: Annotated[
        list[str],
        typer.Argument(metavar="[ID] DURATION", help="Default ID: SANDBOX_ID from the environment."),
    ],
    data_dir: DataDirOption = None,
    as_json: Json = False,
) -> None:
    """Let a sandbox live until DURATION from now, such as 30m, unless it lives longer anyway."""
    from skerry.cli import rest
    from skerry.cli.output import usage_error
    from skerry.cli.quantities import parse_duration_s
    from skerry.cli.times import now_ms, show_time

    sandbox_id, rest_of_line = split_default(words)
    if len(rest_of_line) != 1:
        usage_error("expected a sandbox ID and one duration: skerry extend sbx_… 30m")
    wanted_ms = now_ms() + int(parse_duration_s(rest_of_line[0]) * 1000)
    target = rest.path("api", "v3", "sandbox", sandbox_id)
    stop_at_ms = rest.call(find_server(data_dir), "PATCH", target, {"stop_at_ms": wanted_ms})["stop_at_ms"]
    if as_json:
        say_json({"sandbox_id": sandbox_id, "stop_at_ms": stop_at_ms})
    else:
        say(f"{sandbox_id} ends at {show_time(stop_at_ms)}")
