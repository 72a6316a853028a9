"""`skerry up` and `down` for real: start, supervise, adopt, and leave nothing behind."""

import json
import signal
import socket
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from skerry.cli.processes import wait_gone
from skerry.daemon.data_dir import API_USER, EGRESS_USER, account
from tests.conftest import Built
from tests.harness.skerry_up import SkerryUp

pytestmark = [pytest.mark.needs_root, pytest.mark.timeout(180)]

DEADLINE_S = 30.0


def until(condition: Callable[[], object], what: str) -> None:
    """Wait until a condition holds."""
    end_s = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end_s, f"{what} did not come about within {DEADLINE_S:g} s"
        time.sleep(0.02)


@pytest.fixture
def skerry(tmp_path: Path, built: Built) -> Iterator[SkerryUp]:
    """One that is taken down at the end, whatever happened."""
    made = SkerryUp(tmp_path / "data")
    made.environment["SKERRY_POOL_SIZE"] = "1"
    yield made
    made.command("down", expect=None)
    assert made.leftovers() == []


def ended_by(line: int) -> str:
    """A program that prints so many lines, slowly."""
    return f"i=0; while [ $i -lt {line} ]; do echo line $i; i=$((i+1)); sleep 0.005; done"


def test_up_says_where_it_is_and_down_leaves_nothing(skerry: SkerryUp) -> None:
    told = skerry.up()
    running = skerry.processes()
    assert sorted(running) == ["api", "egressd", "hostd", "up"]
    assert told["pid"] == running["up"].process.pid
    assert told["url"] == json.loads(skerry.data.endpoint.read_text())["url"]
    status = skerry.json("status")
    assert {row["name"]: row["pid"] for row in status["processes"]} == {
        name: row.process.pid for name, row in running.items()
    }
    assert status["server"]["isolation"] == "gvisor"
    assert skerry.text("create", "--", "echo", "hello") == "hello"
    skerry.text("create", "--timeout", "5m")
    assert any(line.startswith("control group") for line in skerry.leftovers())
    skerry.down()
    assert skerry.leftovers() == []
    assert not skerry.runtime.path.exists()
    assert not skerry.data.endpoint.exists()
    assert all(wait_gone(row.process, timeout_s=0) for row in running.values())
    assert skerry.json("down") == {"data_dir": str(skerry.data.path), "was_running": False, "left": []}


def test_the_client_token_is_the_users_and_nobody_elses(skerry: SkerryUp) -> None:
    skerry.up()
    token = skerry.data.client_token.read_text().strip()
    assert stat.S_IMODE(skerry.data.client_token.stat().st_mode) == 0o600
    for row in skerry.processes().values():
        place = Path("/proc") / str(row.process.pid)
        assert token.encode() not in (place / "cmdline").read_bytes() + (place / "environ").read_bytes()
    logs = b"".join(path.read_bytes() for path in skerry.data.logs.iterdir())
    assert token.encode() not in logs
    assert token.encode() not in skerry.runtime.settings.read_bytes()
    # A token that is gone, or no longer good, is made anew; a good one stays.
    skerry.down("--keep")
    skerry.up()
    assert skerry.data.client_token.read_text().strip() == token
    skerry.down("--keep")
    skerry.data.client_token.unlink()
    skerry.up()
    assert skerry.data.client_token.read_text().strip() != token
    assert skerry.json("list") == []


@pytest.mark.parametrize(("name", "user"), [("api", API_USER), ("egressd", EGRESS_USER)])
def test_a_daemon_that_needs_no_root_has_none_of_its_rights(skerry: SkerryUp, name: str, user: str) -> None:
    skerry.up()
    place = Path("/proc") / str(skerry.processes()[name].process.pid)
    status = dict(
        line.split(":\t", 1) for line in (place / "status").read_text().splitlines() if ":\t" in line
    )
    uid = str(account(user).pw_uid)
    assert status["Uid"].split() == [uid] * 4
    assert status["NoNewPrivs"] == "1"
    assert {status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert "Max core file size        0                    0" in (place / "limits").read_text()
    # Not dumpable: its files in /proc belong to root.
    assert (place / "maps").stat().st_uid == 0
    names = {line.split("=")[0] for line in (place / "environ").read_text().split("\0") if line}
    assert names <= {"PATH", "LANG", "LC_ALL", "TZ", "SKERRY_PARENT_FD", "SKERRY_LISTEN_FD"}


def test_a_second_up_is_refused(skerry: SkerryUp) -> None:
    skerry.up()
    done = skerry.command("up", "--detach", expect=5)
    assert b"already runs" in done.stderr
    assert sorted(skerry.processes()) == ["api", "egressd", "hostd", "up"]


def test_an_address_in_use_is_said(skerry: SkerryUp) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        done = skerry.command("up", "--detach", "--listen", f"127.0.0.1:{other.getsockname()[1]}", expect=5)
    assert b"--listen 127.0.0.1:0" in done.stderr


def test_wrong_settings_are_all_said_before_anything_is_done(skerry: SkerryUp, tmp_path: Path) -> None:
    config = tmp_path / "skerry.toml"
    config.write_text("[pool]\nsiez = 1\n")
    done = skerry.command("up", "--config", str(config), "--listen", "0.0.0.0:x", expect=2)
    assert b"key pool.siez: there is no such setting" in done.stderr
    assert b"flag --listen" in done.stderr
    assert not skerry.data.path.exists()
    skerry.data.path.mkdir()
    skerry.command("up", "--detach", "--listen", "127.0.0.1:0", "--allow-remote")


def test_a_missing_part_is_said_with_what_mends_it(skerry: SkerryUp) -> None:
    done = skerry.command("up", "--detach", env={"SKERRY_AGENT_PATH": "/nonexistent"}, expect=1)
    assert b"agent: /nonexistent does not exist. make setup" in done.stderr
    skerry.up()


@pytest.mark.parametrize("name", ["api", "egressd", "hostd"])
def test_a_daemon_that_dies_is_started_again_and_loses_nothing(skerry: SkerryUp, name: str) -> None:
    url = skerry.up()["url"]
    sandbox_id = skerry.text("create", "--timeout", "5m")
    with skerry.begin("exec", sandbox_id, ended_by(200)) as printing:
        until(lambda: skerry.json("logs", sandbox_id), "a process")
        before = skerry.processes()[name].process
        skerry.kill(name)
        until(lambda: name in skerry.processes() and skerry.processes()[name].process != before, "a restart")
        printing.wait(DEADLINE_S)
    assert json.loads(skerry.data.endpoint.read_text())["url"] == url
    (process,) = skerry.json("logs", sandbox_id)
    expected = "".join(f"line {number}\n" for number in range(200))
    followed = skerry.command("logs", sandbox_id, str(process["pid"]), "--follow").stdout.decode()
    assert followed == expected
    assert skerry.text("exec", sandbox_id, "echo alive") == "alive"


@pytest.mark.parametrize("names", [("up",), ("up", "api", "egressd", "hostd")])
def test_sandboxes_outlive_up_and_the_next_one_adopts_them(skerry: SkerryUp, names: tuple[str, ...]) -> None:
    skerry.up()
    sandbox_id = skerry.text("create", "--timeout", "5m")
    running = skerry.processes()
    skerry.kill(*names)
    for row in running.values():
        assert wait_gone(row.process, timeout_s=DEADLINE_S), f"{row.name} outlived up"
    assert skerry.command("list", expect=6).stderr.startswith(b"skerry: http://127.0.0.1:")
    skerry.up()
    assert skerry.text("exec", sandbox_id, "echo alive") == "alive"


@pytest.mark.parametrize(
    "names", [("up",), ("api",), ("egressd",), ("hostd",), ("up", "api", "egressd", "hostd")]
)
def test_down_leaves_nothing_whatever_was_killed_before(skerry: SkerryUp, names: tuple[str, ...]) -> None:
    skerry.up()
    skerry.text("create", "--timeout", "5m")
    skerry.kill(*names)
    skerry.down()
    assert skerry.leftovers() == []
    skerry.up()
    (row,) = skerry.json("list")
    assert row["end_reason"] == "server_stopped"


def test_down_keep_leaves_the_sandboxes(skerry: SkerryUp) -> None:
    skerry.up()
    sandbox_id = skerry.text("create", "--timeout", "5m")
    running = skerry.processes()
    skerry.down("--keep")
    assert all(wait_gone(row.process, timeout_s=0) for row in running.values())
    assert any(line.startswith("control group") for line in skerry.leftovers())
    orphans = skerry.command("doctor", "--orphans", "--json", expect=1)
    assert skerry.runtime.path.name in json.loads(orphans.stdout)
    skerry.up()
    assert skerry.text("exec", sandbox_id, "echo alive") == "alive"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_in_the_foreground_a_signal_stops_everything(
    skerry: SkerryUp, number: signal.Signals, tmp_path: Path
) -> None:
    log = tmp_path / "terminal"
    with (
        log.open("wb") as file,
        skerry.begin("up", "--listen", "127.0.0.1:0", stdout=file, stderr=file) as running,
    ):
        until(lambda: b"skerry env" in log.read_bytes(), "its greeting")
        skerry.text("create", "--timeout", "5m")
        running.send_signal(number)
        assert running.wait(DEADLINE_S) == 0
    assert skerry.leftovers() == []
    assert "hostd serves" in log.read_text()


def test_two_instances_do_not_know_each_other(skerry: SkerryUp, tmp_path: Path) -> None:
    other = SkerryUp(tmp_path / "other")
    skerry.up()
    try:
        other.up("--listen", "127.0.0.1:0")
        mine, theirs = skerry.text("create", "--timeout", "5m"), other.text("create", "--timeout", "5m")
        assert [row["sandbox_id"] for row in skerry.json("list")] == [mine]
        skerry.command("exec", theirs, "true", expect=4)
        skerry.down()
        assert skerry.leftovers() == []
        assert other.text("exec", theirs, "echo alive") == "alive"
    finally:
        other.down()
    assert other.leftovers() == []
