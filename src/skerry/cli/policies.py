"""`skerry policy set|show|list|delete|lint|allow`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from skerry.cli.output import ExitCode, Json, note, say, say_json, say_table, usage_error, verb
from skerry.cli.sandbox_id import split_default
from skerry.cli.server import DataDirOption, find_server

app = typer.Typer(
    help="Named policies: what sandboxes may reach at most.", no_args_is_help=True, rich_markup_mode=None
)

_ROUTE = ("skerry", "v1", "policies")

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The policy's name.")]
FileArgument = Annotated[
    Path, typer.Argument(metavar="FILE", help="TOML (*.toml) or JSON; - is standard input, TOML or JSON.")
]
OwnerOption = Annotated[
    str | None, typer.Option("--owner", help="Another owner's; needs an admin token. Default: yours.")
]
SharedOption = Annotated[
    bool, typer.Option("--shared", help="The one that sandboxes of every owner may choose.")
]


@app.command("set")
@verb
def set_(
    name: NameArgument,
    file: FileArgument,
    owner: OwnerOption = None,
    shared: SharedOption = False,
    data_dir: DataDirOption = None,
    as_json: Json = False,
) -> None:
    """Make or replace a policy. Running sandboxes that go by it follow at once. Needs an admin token."""
    from skerry.cli import rest

    target = rest.path(*_ROUTE, name, **_whose(owner, shared=shared))
    made = rest.call(find_server(data_dir), "PUT", target, _read(file))
    if as_json:
        say_json(made)
        return
    _print_findings(made["findings"])
    policy = made["policy"]
    whose = "every owner" if policy["shared"] else policy["owner"]
    say(f"policy {policy['name']} of {whose}, version {policy['version']}: {_follow(made['sandboxes'])}")


def _follow(count: int) -> str:
    return "no running sandbox goes by it" if not count else f"{count} running sandboxes go by it"


@app.command("show")
@verb
def show(
    name: NameArgument,
    owner: OwnerOption = None,
    shared: SharedOption = False,
    data_dir: DataDirOption = None,
    as_json: Json = False,
) -> None:
    """Print a policy as JSON: the one that a sandbox with this label goes by."""
    import json

    from skerry.cli import rest

    target = rest.path(*_ROUTE, name, **_whose(owner, shared=shared))
    found = rest.call(find_server(data_dir), "GET", target)
    if as_json:
        say_json(found)
    else:
        say(json.dumps(found["document"], indent=2))


@app.command("list")
@verb
def list_(
    all_owners: Annotated[
        bool, typer.Option("--all", help="Those of every owner; needs an admin token.")
    ] = False,
    data_dir: DataDirOption = None,
    as_json: Json = False,
) -> None:
    """List the policies that a sandbox of yours can choose by its label `policy`."""
    from skerry.cli import rest
    from skerry.cli.times import show_time

    query = {"all": "1"} if all_owners else {}
    rows = rest.call(find_server(data_dir), "GET", rest.path(*_ROUTE, **query))
    if as_json:
        say_json(rows)
        return
    say_table(
        ("NAME", "OWNER", "VERSION", "SET", "DEFAULT", "RULES"),
        [
            (
                row["name"],
                "(shared)" if row["shared"] else row["owner"],
                str(row["version"]),
                show_time(row["updated_at_ms"]),
                row["document"].get("default", "deny"),
                f"{len(row['document'].get('allow', []))} allow, {len(row['document'].get('deny', []))} deny",
            )
            for row in rows
        ],
    )


@app.command("delete")
@verb
def delete(
    name: NameArgument,
    owner: OwnerOption = None,
    shared: SharedOption = False,
    data_dir: DataDirOption = None,
    as_json: Json = False,
) -> None:
    """Remove a policy that no running sandbox and no token goes by. Needs an admin token."""
    from skerry.cli import rest

    target = rest.path(*_ROUTE, name, **_whose(owner, shared=shared))
    rest.call(find_server(data_dir), "DELETE", target)
    if as_json:
        say_json({"deleted": name})


@app.command("lint")
@verb
def lint(file: FileArgument, as_json: Json = False) -> int:
    """Check a policy without setting it; needs no server. Ends with 2 when it is no policy at all."""
    import msgspec

    from skerry.policy.lint import lint as findings_of
    from skerry.policy.reading import read_document

    body = _read(file)
    is_toml = body.content_type == "application/toml"
    document = read_document(bytes(body), kind="toml" if is_toml else "json")
    found = msgspec.to_builtins(findings_of(document))
    if as_json:
        say_json({"findings": found})
    else:
        _print_findings(found)
        say("no problem was found" if not found else f"{len(found)} findings")
    return ExitCode.OK


@app.command("allow")
@verb
def allow(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[ID] HOST...",
            help="As in allow_net: a name, *.name or an address, each with an optional :port. "
            "Default ID: SANDBOX_ID.",
        ),
    ],
    data_dir: DataDirOption = None,
    as_json: Json = False,
) -> int:
    """Let a running sandbox reach more, at once. Its named policy and the operator's still bound it.

    Ends with 1 when one of them still forbids it.
    """
    from skerry.cli import rest

    sandbox_id, hosts = split_default(words)
    if not hosts:
        usage_error("which host? skerry policy allow sbx_… example.com")
    server = find_server(data_dir)
    route = ("skerry", "v1", "sandboxes", sandbox_id)
    answers: list[dict[str, Any]] = []
    for host in hosts:
        made = rest.call(server, "POST", rest.path(*route, "allow"), {"host": host})
        explained = rest.call(server, "GET", rest.path(*route, "explain", target=_example_of(made["rule"])))
        answers.append({"host": host, **made, "explanation": explained})
    if as_json:
        say_json(answers)
    for answer in () if as_json else answers:
        explained = answer["explanation"]
        state = "may be reached now" if explained["allowed"] else f"is still denied: {explained['why']}"
        say(f"{answer['host']} {state} (policy version {answer['version']})")
        if not explained["allowed"] and explained["owner_action"]:
            say(f"    {explained['owner_action']}")
    return ExitCode.OK if all(one["explanation"]["allowed"] for one in answers) else ExitCode.FAILURE


def _example_of(rule: dict[str, Any]) -> str:
    """A destination that the rule allows, to be explained."""
    host = rule["host"].replace("*", "any", 1)
    port = (rule.get("ports") or [443])[0]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _read(file: Path) -> Any:
    """A policy and what it is written in."""
    import sys

    from skerry.cli.rest import Raw
    from skerry.spec.limits import MAX_POLICY_BYTES

    try:
        if str(file) == "-":
            data = sys.stdin.buffer.read(MAX_POLICY_BYTES + 1)
            is_json = data.lstrip().startswith(b"{")
        else:
            with file.open("rb") as opened:
                data = opened.read(MAX_POLICY_BYTES + 1)
            is_json = file.suffix != ".toml"
    except OSError as problem:
        usage_error(f"{file} cannot be read: {problem.strerror}")
    if len(data) > MAX_POLICY_BYTES:
        usage_error(f"{file} has more than {MAX_POLICY_BYTES} bytes")
    return Raw(data, "application/json" if is_json else "application/toml")


def _print_findings(findings: list[dict[str, Any]]) -> None:
    for finding in findings:
        note(f"{finding['where']}: {finding['text']} ({finding['name']})")


def _whose(owner: str | None, *, shared: bool) -> dict[str, str]:
    if owner is not None and shared:
        usage_error("--owner or --shared, not both")
    return {"shared": "1"} if shared else {} if owner is None else {"owner": owner}
