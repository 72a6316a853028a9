"""`skerry explain` and `skerry audit`: why something gets out of a sandbox or does not."""

from typing import Annotated, Any

import typer

from skerry.cli.output import ExitCode, Json, plain_line, say, say_json, usage_error, verb
from skerry.cli.sandbox_id import named_or_default, split_default
from skerry.cli.server import DataDirOption, Server, find_server

_WAIT_MS = 20_000
_PAGE = 500


def add_to(app: typer.Typer) -> None:
    """Add the verbs."""
    app.command("explain")(verb(explain))
    app.command("audit")(verb(audit))


def explain(
    words: Annotated[
        list[str],
        typer.Argument(metavar="[ID] URL", help="A URL, name:port or address:port. Default ID: SANDBOX_ID."),
    ],
    method: Annotated[str, typer.Option(metavar="METHOD", help="Of the request.")] = "GET",
    data_dir: DataDirOption = None,
    as_json: Json = False,
) -> int:
    """Say what would happen to a request of a sandbox: verdict, rule, TLS mode, slots of secrets.

    Ends with 1 when it would be denied.
    """
    from skerry.cli import rest

    sandbox_id, targets = split_default(words)
    if len(targets) != 1:
        usage_error("expected a sandbox ID and one URL: skerry explain sbx_… https://example.com/")
    query = {"target": targets[0], "method": method}
    target = rest.path("skerry", "v1", "sandboxes", sandbox_id, "explain", **query)
    found = rest.call(find_server(data_dir), "GET", target)
    if as_json:
        say_json(found)
    else:
        _print_explanation(found)
    return ExitCode.OK if found["allowed"] else ExitCode.FAILURE


def _print_explanation(found: dict[str, Any]) -> None:
    say(f"{'allowed' if found['allowed'] else 'denied'}  {found['target']}")
    rows = [("rule", found["rule"]), ("why", found["why"]), ("reason", found["reason"])]
    rows += [("TLS", found["mode"] if found["allowed"] else None)]
    rows += [("secret", f"{slot['secret']} in {slot['slot']}") for slot in found["slots"]]
    rows += [("what to do", found["owner_action"]), ("version", str(found["version"]))]
    for name, value in rows:
        if value:
            say(f"  {name:<11} {plain_line(str(value))}")


def audit(
    sandbox_id: Annotated[str, typer.Argument(metavar="[ID]", help="Default: SANDBOX_ID.")] = "",
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the sandbox has ended.")
    ] = False,
    data_dir: DataDirOption = None,
    as_json: Json = False,
) -> None:
    """Print what a sandbox tried to reach, the oldest first; also after its end.

    With --json one object per line, as it was written.
    """
    chosen, server = named_or_default(sandbox_id), find_server(data_dir)
    after, ended = 0, False
    while not ended:
        found = _page(server, chosen, after, wait_ms=_WAIT_MS if follow else 0)
        for line in found["lines"]:
            if as_json:
                say_json(line)
            else:
                say(plain_line(audit_line(line)))
        is_last_page = len(found["lines"]) < _PAGE
        ended = is_last_page and (found["ended"] or not follow)
        after = found["last"] if found["lines"] else after


def _page(server: Server, sandbox_id: str, after: int, *, wait_ms: int) -> dict[str, Any]:
    from skerry.cli import rest

    query = {"after": str(after), "limit": str(_PAGE), "wait_ms": str(wait_ms)}
    target = rest.path("skerry", "v1", "sandboxes", sandbox_id, "audit", **query)
    page: dict[str, Any] = rest.call(server, "GET", target, timeout_s=wait_ms / 1000 + 30)
    return page


def audit_line(line: Any) -> str:
    """One line of the trail for people: when, what was decided, about what, and why."""
    from skerry.cli.times import show_time

    if not isinstance(line, dict):
        return str(line)
    place = f"{line['host']}:{line['port']}" if line.get("port") else line.get("host")
    secrets = [f"{one.get('name')} in {one.get('slot')}" for one in line.get("secrets") or ()]
    found = {
        "": " ".join(str(one) for one in (line.get("method"), place, line.get("path")) if one),
        "status": line.get("status"),
        "reason": line.get("reason"),
        "rule": line.get("rule"),
        "mode": line.get("mode"),
        "secret": ", ".join(secrets),
        "strays": ", ".join(line.get("strays") or ()),
        "scrubbed": ", ".join(line.get("scrubbed") or ()),
        "limit": line.get("limit"),
        "times": line.get("count"),
        "note": line.get("note"),
    }
    told = " ".join(f"{name}={value}" if name else str(value) for name, value in found.items() if value)
    when, decision, event = (
        show_time(line.get("time_ms") or 0),
        line.get("decision") or "-",
        line.get("event", ""),
    )
    return f"{when}  {decision:<5}  {event:<10}  {told}".rstrip()
