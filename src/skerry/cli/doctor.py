"""`skerry doctor`."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from skerry.cli.output import ExitCode, Json, say, say_json, say_table, verb
from skerry.cli.server import DataDirOption

if TYPE_CHECKING:
    from skerry.cli.host_checks import Check
    from skerry.spec.settings import Settings

_PROBE_S = 60.0


def add_to(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("doctor")(verb(doctor))


def doctor(
    orphans: Annotated[
        bool,
        typer.Option(
            "--orphans", help="Only list what instances that no longer run have left in the kernel."
        ),
    ] = False,
    data_dir: DataDirOption = None,
    as_json: Json = False,
) -> int:
    """Check everything that Skerry needs from this machine, and say what mends what is missing.

    When Skerry runs, a sandbox fetches https://example.com/, to prove the way out. Ends with 1 when something
    is missing.
    """
    if orphans:
        return _orphans(as_json=as_json)
    from skerry.cli.host_checks import host_checks
    from skerry.cli.orphans import orphans as find_orphans
    from skerry.cli.outbound_check import outbound_check
    from skerry.cli.settings_here import settings_here

    settings = settings_here(data_dir=data_dir)
    checks = [*host_checks(settings), *_driver_checks(settings), outbound_check(data_dir)]
    left = sum(len(objects) for objects in find_orphans().values())
    if as_json:
        say_json({"checks": [asdict(check) for check in checks], "orphans": left})
    else:
        _print(checks, left)
    return ExitCode.FAILURE if any(check.state == "missing" for check in checks) else ExitCode.OK


def _print(checks: "list[Check]", left: int) -> None:
    signs = {"ok": "ok", "warning": "WARNING", "missing": "MISSING"}
    say_table(("", "WHAT", "FOUND"), [(signs[check.state], check.name, check.detail) for check in checks])
    for check in checks:
        if check.fix:
            say(f"\n{check.name}: {check.detail}\n    {check.fix}")
    if left:
        say(f"\n{left} objects of instances that no longer run are in the kernel: skerry doctor --orphans")


def _driver_checks(settings: "Settings") -> "list[Check]":
    """What the isolation drivers say: a hidden command asks them, since the command line never loads them."""
    import json
    import subprocess  # noqa: TID251 - asks our own other half
    import sys

    import msgspec

    from skerry.cli.host_checks import Check

    try:
        result = subprocess.run(
            [sys.executable, "-I", "-m", "skerry", "probe"],
            input=msgspec.json.encode(settings),
            capture_output=True,
            timeout=_PROBE_S,
            check=True,
        )
        reports: list[dict[str, Any]] = json.loads(result.stdout)
    except subprocess.CalledProcessError as problem:
        text = problem.stderr.decode(errors="replace").strip().splitlines()
        return [Check("isolation", "missing", text[-1] if text else "the drivers could not be asked")]
    except (subprocess.TimeoutExpired, ValueError) as problem:
        return [Check("isolation", "missing", f"the drivers could not be asked: {problem}")]
    return [check for report in reports for check in _checks_of(report)]


def _checks_of(report: dict[str, Any]) -> "list[Check]":
    from skerry.cli.host_checks import Check

    name = f"isolation {report['isolation']}"
    found = [Check(name, "ok", report["version"])] if report["usable"] else []
    found += [Check(name, "missing", text) for text in report["missing"]]
    return found + [Check(name, "warning", text) for text in report["warnings"]]


def _orphans(*, as_json: bool) -> int:
    from skerry.cli.orphans import mending_command, orphans

    found = orphans()
    if as_json:
        say_json({instance: [asdict(one) for one in objects] for instance, objects in found.items()})
    elif not found:
        say("nothing is left of instances that no longer run")
    for instance, objects in ({} if as_json else found).items():
        say(f"instance {instance}: none of its daemons runs. {mending_command(instance)}")
        for one in objects:
            say(f"    {one.kind:<18} {one.name}")
    return ExitCode.FAILURE if found else ExitCode.OK
