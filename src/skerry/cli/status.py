"""`skerry status`."""

from typing import Any

import typer

from skerry.cli.output import ExitCode, Json, exit_code_of, say, say_json, say_table, verb
from skerry.cli.server import DataDirOption
from skerry.errors import SkerryError


def add_to(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("status")(verb(status))


def status(data_dir: DataDirOption = None, as_json: Json = False) -> int:
    """Say what runs: processes, isolation, pool, sandboxes. Ends with 6 when the API does not answer."""
    from skerry.cli import rest
    from skerry.cli.places import read_instance, runtime_dir
    from skerry.cli.processes import recorded
    from skerry.cli.server import chosen_data_dir, find_server

    place = chosen_data_dir(data_dir)
    instance = read_instance(place.instance)
    processes = [] if instance is None else recorded(runtime_dir(instance).processes)
    found: dict[str, Any] = {
        "data_dir": str(place.path),
        "instance": instance,
        "processes": [{"name": p.name, "pid": p.process.pid, "version": p.version} for p in processes],
    }
    try:
        server = find_server(data_dir)
        found["url"] = server.url
        found["server"] = rest.call(server, "GET", rest.path("skerry", "v1", "status"))
        code = ExitCode.OK
    except SkerryError as problem:
        found["problem"] = problem.message
        code = exit_code_of(problem)
    if as_json:
        say_json(found)
    else:
        _print(found)
    return code


def _print(found: dict[str, Any]) -> None:
    say(
        f"data directory  {found['data_dir']}"
        + (f"  (instance {found['instance']})" if found["instance"] else "")
    )
    if "url" in found:
        say(f"API             {found['url']}")
    for name, value in _server_lines(found.get("server") or {}):
        say(f"{name:<15} {value}")
    if "problem" in found:
        say(f"problem         {found['problem']}")
    if found["processes"]:
        say("")
        rows = [(p["name"], str(p["pid"]), p["version"]) for p in found["processes"]]
        say_table(("PROCESS", "PID", "VERSION"), rows)


def _server_lines(server: dict[str, Any]) -> list[tuple[str, str]]:
    """What the API says of itself, a line for each thing; nested objects become ``key value`` pairs."""
    lines: list[tuple[str, str]] = []
    for key, value in server.items():
        if key in ("host", "egress") or value is None:
            continue
        if isinstance(value, dict):
            pairs = [(name.replace("_", " "), inner) for name, inner in value.items() if inner != ""]
            value = ", ".join(f"{name} {inner}" for name, inner in pairs)
        lines.append((key.replace("_", " "), str(value)))
    egress = server.get("egress")
    if egress is not None:
        workers = sum(one["worker_pid"] is not None for one in egress["sandboxes"])
        lost = [one["sandbox_id"] for one in egress["sandboxes"] if one["lost"]]
        trouble = [
            f"{one['sandbox_id']}: {one['problem'] or 'its network was cut'}"
            for one in egress["sandboxes"]
            if one["problem"] or one["cut"]
        ]
        told = f"{len(egress['sandboxes'])} sandboxes, {workers} workers, pid {egress['pid']}"
        lines.append(("egress", told + (f"; secrets lost: {', '.join(lost)}" if lost else "")))
        lines += [("no way out", text) for text in trouble]
    for driver in (server.get("host") or {}).get("drivers", []):
        state = "usable" if driver["usable"] else "not usable: " + "; ".join(driver["missing"])
        lines.append((f"driver {driver['isolation']}", " ".join([driver["version"], state]).strip()))
    return lines
