"""What conmon is told and what it says."""

import subprocess
from pathlib import Path

import pytest

from skerry.errors import RuntimeFailed
from skerry.hostd.drivers import conmon
from skerry.hostd.drivers.runsc import Runsc
from skerry.hostd.places import SandboxPlace

PLACE = SandboxPlace(Path("/run/skerry/abc123/sandboxes/x"), "skerry-abc123-x")
RUNSC = Runsc(Path("/opt/runsc"), Path("/run/skerry/abc123/runsc"))


def test_what_conmon_asks_of_its_runtime_becomes_one_run_of_runsc(tmp_path: Path) -> None:
    echo = tmp_path / "runsc"
    echo.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    echo.chmod(0o755)
    runsc = Runsc(echo, Path("/run/skerry/abc123/runsc"))
    argv = conmon.arguments(Path("/usr/bin/conmon"), runsc, PLACE)
    runtime = [argv[argv.index("--runtime") + 1]]
    runtime += [argv[place + 1] for place, word in enumerate(argv) if word == "--runtime-arg"]

    # As conmon calls it (src/runtime_args.c).
    asked = [*runtime, "create", "--bundle", "/a bundle", "--pid-file", "/pid", PLACE.name]
    done = subprocess.run(asked, capture_output=True, text=True, check=True)

    assert done.stdout.splitlines() == [
        *runsc.flags,
        "--panic-log=/proc/self/fd/2",
        *("run", "--detach", "--bundle", "/a bundle", "--pid-file", "/pid", PLACE.name),
    ]


def test_its_log_is_bounded_and_its_files_are_the_sandbox_s() -> None:
    argv = conmon.arguments(Path("/usr/bin/conmon"), RUNSC, PLACE)

    assert argv[argv.index("--log-size-max") + 1] == str(conmon.LOG_BYTES)
    for option in ("--bundle", "--container-pidfile", "--conmon-pidfile", "--exit-dir", "--socket-dir-path"):
        assert Path(argv[argv.index(option) + 1]).is_relative_to(PLACE.path)


def test_a_created_sandbox_is_reported_by_its_process_number() -> None:
    assert conmon.parse_report(b'{"data": 4711}\n') == 4711


@pytest.mark.parametrize(
    ("report", "detail"),
    [
        (b'{"data": -1, "message": "cannot load spec"}\n', "cannot load spec"),
        (b'{"data": 0}\n', ""),
        (b'{"data": true}', "conmon said"),
        (b"[1]", "conmon said"),
        (b"", "conmon said"),
        (b"\xff", "conmon said"),
    ],
)
def test_anything_else_is_a_failure_with_what_was_said(report: bytes, detail: str) -> None:
    with pytest.raises(RuntimeFailed) as caught:
        conmon.parse_report(report)
    assert detail in caught.value.detail


@pytest.mark.parametrize(
    ("written", "status"), [("0\n", 0), ("137", 137), ("", None), ("x", None), ("-1", None)]
)
def test_the_exit_status_is_what_conmon_wrote(tmp_path: Path, written: str, status: int | None) -> None:
    place = SandboxPlace(tmp_path, "name")
    place.exits.mkdir()
    place.exit_file.write_text(written)

    assert conmon.read_exit_status(place) == status


def test_without_a_record_there_is_no_exit_status(tmp_path: Path) -> None:
    assert conmon.read_exit_status(SandboxPlace(tmp_path, "name")) is None


def test_only_the_end_of_a_log_is_read(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"a" * 100 + b"\xffend")

    assert conmon.read_log(log, max_bytes=4) == "\ufffdend"
    assert conmon.read_log(tmp_path / "none", max_bytes=4) == ""
