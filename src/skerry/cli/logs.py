"""`skerry logs`: what a process printed, from the journal that the sandbox's agent keeps."""

import sys
from typing import Annotated, Any

import typer

from skerry.cli.output import Json, note, say_json, say_table, usage_error, verb
from skerry.cli.sandbox_id import split_default
from skerry.cli.server import DataDirOption, Server, find_server

_CHUNK_BYTES = 65_536


def add_to(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("logs")(verb(logs))


def logs(
    words: Annotated[
        list[str],
        typer.Argument(metavar="[ID] [PID]", help="Without PID: list the processes. Default ID: SANDBOX_ID."),
    ],
    start: Annotated[
        int, typer.Option("--from", metavar="OFFSET", min=0, help="Begin at this byte of the stream.")
    ] = 0,
    stderr: Annotated[
        bool, typer.Option("--stderr", help="Standard error instead of standard output.")
    ] = False,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the stream ends.")] = False,
    data_dir: DataDirOption = None,
    as_json: Json = False,
) -> None:
    """Print what a process of a sandbox has printed.

    Output that was dropped, because nobody read it in time, is reported on standard error.
    """
    from skerry.cli import rest

    sandbox_id, rest_of_line = split_default(words)
    server = find_server(data_dir)
    route = ("skerry", "v1", "sandboxes", sandbox_id, "processes")
    if not rest_of_line:
        _print_processes(rest.call(server, "GET", rest.path(*route)), as_json=as_json)
        return
    if len(rest_of_line) > 1 or not rest_of_line[0].isdecimal():
        usage_error("expected a sandbox ID and a PID: skerry logs sbx_… 42")
    query = {"stream": "stderr" if stderr else "stdout", "from": str(start), "follow": "1" if follow else "0"}
    target = rest.path(*route, rest_of_line[0], "output", **query)
    if as_json:
        _print_json(server, target)
    else:
        _print_raw(server, target)


def _print_processes(rows: list[dict[str, Any]], *, as_json: bool) -> None:
    from skerry.cli.times import show_time

    if as_json:
        say_json(rows)
        return
    say_table(
        ("PID", "STARTED", "STATE", "COMMAND"),
        [
            (
                str(row["pid"]),
                show_time(row["started_ms"]),
                _state(row.get("exit")),
                " ".join([row["command"], *row.get("args", [])])[:200],
            )
            for row in rows
        ],
    )


def _state(ended: dict[str, Any] | None) -> str:
    if ended is None:
        return "running"
    if ended.get("signal"):
        return f"{ended['signal']}{' (out of memory)' if ended.get('oom') else ''}"
    return f"exit {ended['code']}"


def _print_raw(server: Server, target: str) -> None:
    from skerry.cli import rest

    with rest.opened(server, "GET", target, timeout_s=None) as answer:
        _report_gap(answer.header("x-skerry-gap-before"))
        # Raw, because it may be binary; on a terminal the person has asked for this program's output.
        while chunk := answer.read_some(_CHUNK_BYTES):
            sys.stdout.buffer.write(chunk)
            sys.stdout.buffer.flush()


def _report_gap(gap: str | None) -> None:
    if gap and gap != "0":
        note(f"skerry: {gap} bytes before this were dropped, because nobody read them in time")


def _print_json(server: Server, target: str) -> None:
    """One object per chunk, with its offset."""
    import base64

    from skerry.cli import rest

    with rest.opened(server, "GET", target, timeout_s=None) as answer:
        offset = int(answer.header("x-skerry-from") or 0)
        gap = int(answer.header("x-skerry-gap-before") or 0)
        while chunk := answer.read_some(_CHUNK_BYTES):
            line: dict[str, Any] = {"offset": offset, "data": base64.b64encode(chunk).decode()}
            if gap:
                line["dropped_before"] = gap
            say_json(line)
            offset, gap = offset + len(chunk), 0
