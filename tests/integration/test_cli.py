"""The verbs of the command line against a real server with real sandboxes."""

import base64
import hashlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Built
from tests.harness.skerry_up import SkerryUp

pytestmark = [pytest.mark.needs_root, pytest.mark.timeout(120)]

DEADLINE_S = 30.0
UNKNOWN = "sbx_ord_00000000000000000000"


@pytest.fixture(scope="module")
def skerry(tmp_path_factory: pytest.TempPathFactory, built: Built) -> Iterator[SkerryUp]:
    """One server for all tests here."""
    made = SkerryUp(tmp_path_factory.mktemp("cli") / "data")
    made.up()
    yield made
    made.down()


@pytest.fixture
def sandbox(skerry: SkerryUp) -> Iterator[str]:
    """The ID of a sandbox."""
    sandbox_id = skerry.text("create", "--timeout", "5m")
    yield sandbox_id
    skerry.command("kill", sandbox_id)


def test_create_prints_an_id_and_the_sandbox_lives(skerry: SkerryUp) -> None:
    made = skerry.json("create", "--timeout", "2m", "--memory", "1gib", "--label", "a=b", "--label", "c=")
    assert (made["memory_mib"], made["labels"], made["session"]) == (1024, {"a": "b", "c": ""}, False)
    assert made["isolation"] == "gvisor"
    assert made in skerry.json("list")
    skerry.command("kill", made["sandbox_id"])
    (row,) = [row for row in skerry.json("list") if row["sandbox_id"] == made["sandbox_id"]]
    assert (row["running"], row["end_reason"]) == (False, "killed")


def test_create_with_a_command_runs_it_in_a_sandbox_of_its_own(skerry: SkerryUp) -> None:
    done = skerry.command(
        "create", "--env", "NAME=a b", "--", "sh", "-c", 'echo "$NAME"; pwd; exit 7', expect=7
    )
    assert done.stdout == b"a b\n/home/app\n"
    newest = skerry.json("list")[0]
    assert (newest["running"], newest["end_reason"]) == (False, "closed")


def test_run_copies_a_folder_in_and_only_what_is_asked_for_out(skerry: SkerryUp, tmp_path: Path) -> None:
    folder, results = tmp_path / "project", tmp_path / "results"
    (folder / "sub").mkdir(parents=True)
    results.mkdir()
    (folder / "main.sh").write_text(
        "pwd; cat sub/data -; echo made > out.txt; echo kept > other.txt; exit 3\n"
    )
    (folder / "sub" / "data").write_text("data\n")
    words = ("run", "--copy", f"{folder}/.", "--copy-out", f"out.txt:{results}", "--", "sh", "main.sh")
    done = skerry.command(*words, stdin=b"typed\n", expect=3)
    assert done.stdout == b"/app\ndata\ntyped\n"
    assert {path.name: path.read_text() for path in results.iterdir()} == {"out.txt": "made\n"}
    assert sorted(path.name for path in folder.iterdir()) == ["main.sh", "sub"]
    newest = skerry.json("list")[0]
    assert (newest["running"], newest["session"], newest["end_reason"]) == (False, True, "closed")


def test_run_puts_files_and_folders_under_their_names(skerry: SkerryUp, tmp_path: Path) -> None:
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "a").write_text("in the folder")
    (tmp_path / "b").write_text("alone")
    words = ("--copy", str(tmp_path / "project"), "--copy", str(tmp_path / "b"), "--", "cat project/a b")
    assert skerry.command("run", *words).stdout == b"in the folderalone"
    collected = json.loads(skerry.command("run", "--json", "--env", "A=1", "--", 'echo "$A"; pwd').stdout)
    assert (collected["exit_code"], collected["stdout"]) == (0, "1\n/home/app\n")


def test_run_runs_nothing_when_something_cannot_be_copied(skerry: SkerryUp, tmp_path: Path) -> None:
    missing = str(tmp_path / "missing")
    done = skerry.command("run", "--copy", missing, "--", "echo", "it ran", expect=1)
    assert done.stdout == b""
    assert b"was not run" in done.stderr
    skerry.command("run", "--copy-out", "nothing", "--", "true", expect=2)
    skerry.command("run", "--copy-out", f"nothing:{tmp_path}/x", "--", "true", expect=1)


def test_a_session_lives_as_long_as_its_command(skerry: SkerryUp) -> None:
    with skerry.begin("create", "--timeout", "session", stdout=subprocess.PIPE) as holding:
        assert holding.stdout is not None
        sandbox_id = holding.stdout.readline().decode().strip()
        assert skerry.text("exec", sandbox_id, "echo here") == "here"
        holding.send_signal(signal.SIGINT)
        assert holding.wait(DEADLINE_S) == 0
    skerry.command("exec", sandbox_id, "true", expect=5)


def test_exec_passes_input_output_errors_and_status(skerry: SkerryUp, sandbox: str) -> None:
    data = os.urandom(3_000_000)
    done = skerry.command(
        "exec", sandbox, "--", "sh", "-c", "cat; echo oops >&2; exit 3", stdin=data, expect=3
    )
    assert hashlib.sha256(done.stdout).digest() == hashlib.sha256(data).digest()
    assert done.stderr == b"oops\n"


@pytest.mark.parametrize(
    ("words", "output"),
    [
        (["echo $HOME | tr a-z A-Z"], "/HOME/APP"),
        (["echo", "$HOME", "|", "tr"], "$HOME | tr"),
        (["--", "printf", "%s,", "--cwd", "a b", ""], "--cwd,a b,,"),
        (["--", "--cwd"], None),
    ],
)
def test_one_word_is_a_line_and_several_are_exact(
    skerry: SkerryUp, sandbox: str, words: list[str], output: str | None
) -> None:
    done = skerry.command("exec", sandbox, *words, expect=0 if output is not None else 127)
    if output is not None:
        assert done.stdout.decode().removesuffix("\n") == output


def test_exec_options_and_the_default_sandbox(skerry: SkerryUp, sandbox: str) -> None:
    words = ("exec", "--cwd", "/app", "--env", "A=1", "--", "sh", "-c", "pwd; echo $A")
    assert skerry.text(*words, env={"SANDBOX_ID": sandbox}) == "/app\n1"


def test_exec_for_programs(skerry: SkerryUp, sandbox: str) -> None:
    words = ("exec", "--json", sandbox, "--", "sh", "-c", "echo out; echo err >&2; kill -TERM $$")
    found = json.loads(skerry.command(*words, expect=143).stdout)
    assert found == {
        "sandbox_id": sandbox,
        "exit_code": 143,
        "signal": "SIGTERM",
        "oom": False,
        "truncated": False,
        "stdout": "out\n",
        "stderr": "err\n",
    }


def test_signals_reach_the_process(skerry: SkerryUp, sandbox: str) -> None:
    script = "trap 'echo caught; exit 9' INT; echo ready; while :; do sleep 0.05; done"
    with skerry.begin("exec", sandbox, script, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == b"ready\n"
        running.send_signal(signal.SIGINT)
        assert running.stdout.readline() == b"caught\n"
        assert running.wait(DEADLINE_S) == 9


def test_a_reader_that_leaves_ends_the_process(skerry: SkerryUp, sandbox: str) -> None:
    with skerry.begin("exec", sandbox, "yes", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == b"y\n"
        running.stdout.close()
        assert running.wait(DEADLINE_S) == 141
    (process,) = skerry.json("logs", sandbox)
    assert process["exit"]["signal"] == "SIGPIPE"


def test_a_child_that_holds_the_output_does_not_hold_exec(skerry: SkerryUp, sandbox: str) -> None:
    assert skerry.text("exec", sandbox, "sleep 300 & echo started") == "started"


def test_logs_from_anywhere_in_the_stream(skerry: SkerryUp, sandbox: str) -> None:
    skerry.command("exec", sandbox, "printf 0123456789; printf problem >&2")
    (process,) = skerry.json("logs", sandbox)
    pid = str(process["pid"])
    assert process["exit"]["code"] == 0
    assert skerry.text("logs", sandbox, pid) == "0123456789"
    assert skerry.text("logs", sandbox, pid, "--from", "7") == "789"
    assert skerry.text("logs", sandbox, pid, "--stderr", "--follow") == "problem"
    (line,) = skerry.command("logs", sandbox, pid, "--from", "7", "--json").stdout.splitlines()
    chunk = json.loads(line)
    assert (chunk["offset"], base64.b64decode(chunk["data"])) == (7, b"789")
    assert "exit 0" in skerry.text("logs", sandbox)


def test_logs_say_what_was_dropped(skerry: SkerryUp, sandbox: str) -> None:
    with skerry.begin(
        "exec", sandbox, "head -c 3000000 /dev/zero; sleep 300", stdout=subprocess.PIPE
    ) as running:
        assert running.stdout is not None
        assert len(running.stdout.read(3_000_000)) == 3_000_000
        (process,) = skerry.json("logs", sandbox)
        running.kill()
    done = skerry.command("logs", sandbox, str(process["pid"]))
    assert 0 < len(done.stdout) <= 1 << 20
    assert f"{3_000_000 - len(done.stdout)} bytes before this were dropped".encode() in done.stderr


def tree(root: Path) -> dict[str, tuple[int, bytes | None]]:
    """Everything below a directory: mode and contents."""
    return {
        str(path.relative_to(root)): (
            path.stat().st_mode & 0o777,
            None if path.is_dir() else path.read_bytes(),
        )
        for path in root.rglob("*")
        if not path.is_symlink()
    }


def test_cp_a_tree_there_and_back(skerry: SkerryUp, sandbox: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "sub" / "empty").mkdir(parents=True)
    (source / "sub" / "name with\nstrange \x1b bytes").write_bytes(b"x")
    (source / "program").write_bytes(b"#!/bin/sh\necho runs\n")
    (source / "program").chmod(0o755)
    (source / "big").write_bytes(os.urandom(2_000_000))
    (source / "zero").touch()
    (source / "link").symlink_to("big")
    done = skerry.command("cp", str(source), f"{sandbox}:/app/copy")
    assert b"left out" in done.stderr
    assert skerry.text("exec", sandbox, "/app/copy/program") == "runs"
    back = tmp_path / "back"
    back.mkdir()
    report = skerry.json("cp", f"{sandbox}:/app/copy", str(back))
    assert (report["files"], report["problems"]) == (4, [])
    assert tree(back / "copy") == tree(source)


def test_cp_between_sandboxes_and_several_files(skerry: SkerryUp, sandbox: str, tmp_path: Path) -> None:
    other = skerry.text("create", "--timeout", "5m")
    skerry.command("exec", sandbox, "head -c 20000000 /dev/urandom > big; echo small > small")
    skerry.command("cp", f"{sandbox}:big", f"{sandbox}:small", f"{other}:/app/new/")
    sums = "sha256sum < {0}big; sha256sum < {0}small"
    mine, theirs = (
        skerry.text("exec", *words)
        for words in ((sandbox, sums.format("")), (other, sums.format("/app/new/")))
    )
    assert mine == theirs
    skerry.command("cp", f"{other}:/app/new/big", str(tmp_path))
    assert hashlib.sha256((tmp_path / "big").read_bytes()).hexdigest() == mine.split()[0]
    skerry.command("kill", other)


def test_cp_never_leaves_the_target(skerry: SkerryUp, sandbox: str, tmp_path: Path) -> None:
    skerry.command(
        "exec", sandbox, "mkdir d; ln -s / d/root; ln -s /etc/passwd d/file; ln -s .. d/up; echo x > d/real"
    )
    done = skerry.command("cp", f"{sandbox}:d", str(tmp_path / "out"))
    assert tree(tmp_path) == {"out": (0o755, None), "out/real": (0o644, b"x\n")}
    assert done.stderr.count(b"a symbolic link") == 3


def test_cp_says_what_failed_and_goes_on(skerry: SkerryUp, sandbox: str, tmp_path: Path) -> None:
    skerry.command("exec", sandbox, "mkdir d; echo x > d/a; echo y > d/b; chmod 0 d/a")
    done = skerry.command("cp", f"{sandbox}:d", str(tmp_path / "out"), expect=1)
    assert f"{sandbox}:/home/app/d/a".encode() in done.stderr
    assert (tmp_path / "out" / "b").read_bytes() == b"y\n"
    skerry.command("cp", f"{sandbox}:/none", str(tmp_path), expect=1)
    skerry.command("cp", "here", "there", expect=2)


def test_names_from_a_sandbox_cannot_control_the_terminal(
    skerry: SkerryUp, sandbox: str, tmp_path: Path
) -> None:
    skerry.command("exec", sandbox, "mkdir d; ln -s x \"d/$(printf '\\033]0;title\\007')\"")
    done = skerry.command("cp", f"{sandbox}:d", str(tmp_path / "out"))
    assert b"\x1b" not in done.stderr
    assert b"\\x1b]0;title\\x07" in done.stderr


def test_extend(skerry: SkerryUp, sandbox: str) -> None:
    before = skerry.json("list")[0]["stop_at_ms"]
    found = skerry.json("extend", sandbox, "1h")
    assert found["stop_at_ms"] > before
    skerry.command("extend", sandbox, "soon", expect=2)
    skerry.command("extend", UNKNOWN, "1h", expect=4)


def test_tokens(skerry: SkerryUp) -> None:
    made = skerry.json("token", "create", "ci", "--owner", "other", "--expires", "1h", "--max-running", "1")
    value, token_id = made["token"], made["view"]["token_id"]
    other = {
        "DENO_DEPLOY_TOKEN": value,
        "DENO_SANDBOX_ENDPOINT": skerry.json("status")["url"],
        "SKERRY_DATA_DIR": "",
    }
    assert json.loads(skerry.command("list", "--json", env=other).stdout) == []
    skerry.command("token", "list", env=other, expect=3)
    skerry.command("list", "--all", env=other, expect=3)
    theirs = skerry.text("create", "--timeout", "1m", env=other)
    skerry.command("exec", theirs, "true", expect=4)
    assert theirs in [row["sandbox_id"] for row in skerry.json("list", "--all")]
    skerry.command("create", "--timeout", "1m", env=other, expect=1)
    skerry.command("kill", theirs, env=other)
    listed = skerry.json("token", "list")
    assert token_id in [row["token_id"] for row in listed]
    assert value not in json.dumps(listed)
    skerry.command("token", "revoke", token_id)
    skerry.command("list", env=other, expect=3)
    skerry.command("token", "revoke", "tok_none", expect=4)


def test_env_is_for_a_shell(skerry: SkerryUp) -> None:
    script = (
        'eval "$1"; printf "%s %s %s" "$DENO_DEPLOY_TOKEN" "$DENO_SANDBOX_ENDPOINT" "$DENO_DEPLOY_ENDPOINT"'
    )
    lines = skerry.text("env")
    shown = subprocess.run(
        ["sh", "-c", script, "sh", lines], capture_output=True, check=True, timeout=DEADLINE_S
    ).stdout
    variables = skerry.json("env")
    assert shown.decode().split() == list(variables.values())
    assert skerry.command("list", env={"SKERRY_DATA_DIR": "", **variables}).returncode == 0


def test_doctor_finds_nothing_missing(skerry: SkerryUp) -> None:
    found = skerry.json("doctor")
    assert {check["state"] for check in found["checks"]} <= {"ok", "warning"}
    assert "isolation gvisor" in [check["name"] for check in found["checks"]]
    broken = json.loads(
        skerry.command("doctor", "--json", env={"SKERRY_RUNSC_PATH": "/nonexistent"}, expect=1).stdout
    )
    fixes = {check["name"]: check["fix"] for check in broken["checks"] if check["state"] == "missing"}
    assert fixes["runsc"] == "make setup"


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["exec", UNKNOWN, "true"], 4),
        (["kill", UNKNOWN], 4),
        (["kill", "nonsense"], 2),
        (["create", "--timeout", "forever"], 2),
        (["create", "--memory", "1MiB", "--timeout", "1m"], 2),
        (["create", "--label", "nonsense", "--timeout", "1m"], 2),
        (["nonsense"], 2),
        (["list", "--nonsense"], 2),
        (["list", "--data-dir", "/nonexistent"], 6),
        (["status", "--data-dir", "/nonexistent"], 6),
        (["env", "--data-dir", "/nonexistent"], 6),
    ],
)
def test_exit_codes(skerry: SkerryUp, words: list[str], code: int) -> None:
    done = skerry.command(*words, expect=code)
    assert done.stderr or words[0] == "status"
    assert b"Traceback" not in done.stderr


def test_a_server_that_does_not_answer(skerry: SkerryUp) -> None:
    nowhere = {
        "DENO_DEPLOY_TOKEN": "ddo_x",
        "DENO_SANDBOX_ENDPOINT": "http://127.0.0.1:1",
        "SKERRY_DATA_DIR": "",
    }
    for words in (["list"], ["create", "--", "true"], ["exec", UNKNOWN, "true"]):
        assert b"does not answer" in skerry.command(*words, env=nowhere, expect=6).stderr
    wrong = {**nowhere, "DENO_SANDBOX_ENDPOINT": skerry.json("status")["url"]}
    for words in (["list"], ["create", "--", "true"], ["exec", UNKNOWN, "true"]):
        skerry.command(*words, env=wrong, expect=3)


def test_a_killed_sandbox_ends_what_waits_on_it(skerry: SkerryUp) -> None:
    sandbox_id = skerry.text("create", "--timeout", "5m")
    with skerry.begin(
        "exec",
        sandbox_id,
        "echo ready; sleep 300",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == b"ready\n"
        skerry.command("kill", sandbox_id)
        assert running.wait(DEADLINE_S) in (1, 5)
