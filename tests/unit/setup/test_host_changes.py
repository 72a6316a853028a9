"""What root changes is recorded before it is changed, and only that is undone."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from setup import host_changes
from setup.commands import SetupError
from setup.host_changes import Changes

FakeHost = Callable[..., Path]


@pytest.fixture(autouse=True)
def record_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where changes are recorded: not the host's own record."""
    file = tmp_path / "record" / "changes.json"
    monkeypatch.setattr(host_changes, "HOST_CHANGES", file)
    return file


@pytest.fixture
def fake_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHost:
    """Make a host out of scripts that stand for its programs, which log their calls."""
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")

    def make(*, apt: str, installed: str = "") -> Path:
        log = tmp_path / "log"
        log.touch()
        scripts = {
            "apt-get": f'echo "apt-get $*" >>{log}\n{apt}',
            "apt-mark": f'echo "apt-mark $*" >>{log}',
            "userdel": f'echo "userdel $*" >>{log}',
            "useradd": f'echo "useradd $*" >>{log}',
            "systemctl": f'echo "systemctl $*" >>{log}',
            "dpkg-query": f'case " {installed} " in *" $4 "*) printf "install ok installed";; esac',
        }
        for name, text in scripts.items():
            (programs / name).write_text(f"#!/bin/sh\n{text}\n")
            (programs / name).chmod(0o755)
        return log

    return make


SIMULATE = """case "$*" in
*--simulate*) printf 'Inst conmon (1)\\nInst libnew (1)\\nInst libc6 [1] (2)\\nConf conmon (1)\\n';;
*"-y install"*) exit 100;;
esac"""


def test_packages_are_recorded_even_if_their_installation_breaks_off(fake_host: FakeHost) -> None:
    fake_host(apt=SIMULATE, installed="libc6")

    with pytest.raises(SetupError, match="install"):
        host_changes.install_packages(["conmon"])

    # libc6 would only be upgraded: it was there before.
    assert host_changes.recorded() == Changes(packages=["conmon", "libnew"])


def test_apt_may_never_remove_a_package_for_it(fake_host: FakeHost) -> None:
    log = fake_host(apt=SIMULATE.replace("exit 100", "true"))

    host_changes.install_packages(["conmon"])

    calls = [line for line in log.read_text().splitlines() if " install " in line]
    assert len(calls) == 2
    assert all("--no-remove" in call for call in calls)


def test_undoing_removes_what_is_recorded_and_nothing_else_needs(
    fake_host: FakeHost, record_file: Path
) -> None:
    log = fake_host(
        apt="""case "$*" in
*autoremove*) printf 'Remv conmon [1]\\nRemv libnew [1]\\nRemv orphan-from-before [1]\\n';;
*--simulate*purge*) printf 'Purg conmon [1]\\nPurg libnew [1]\\n';;
esac""",
        installed="conmon libnew gcc",
    )
    Changes(packages=["conmon", "gcc", "gone", "libnew"]).save()

    host_changes.undo()

    calls = log.read_text()
    assert "apt-get -q -y purge conmon libnew\n" in calls
    assert "apt-mark auto conmon gcc libnew\n" in calls
    assert not record_file.parent.exists()


def test_undoing_stops_rather_than_remove_what_was_there_before(fake_host: FakeHost) -> None:
    log = fake_host(
        apt="""case "$*" in
*autoremove*) printf 'Remv conmon [1]\\n';;
*--simulate*purge*) printf 'Purg conmon [1]\\nPurg precious [1]\\n';;
esac""",
        installed="conmon",
    )
    Changes(packages=["conmon"]).save()

    with pytest.raises(SetupError, match="precious"):
        host_changes.undo()

    assert "-y purge" not in log.read_text()
    assert host_changes.recorded().packages == ["conmon"]


def test_users_are_recorded_before_they_are_made(
    fake_host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_changes, "USERS", ("skerry-unit-test",))
    log = fake_host(apt="true")

    host_changes.create_users()

    assert host_changes.recorded().users == ["skerry-unit-test"]
    assert "--system" in log.read_text()
    assert "/usr/sbin/nologin skerry-unit-test" in log.read_text()


def test_a_user_that_was_there_before_is_not_recorded(
    fake_host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_changes, "USERS", ("root",))
    log = fake_host(apt="true")

    host_changes.create_users()

    assert host_changes.recorded() == Changes()
    assert log.read_text() == ""


def test_the_record_is_written_in_one_step(record_file: Path) -> None:
    Changes(packages=["a"], users=["b"]).save()
    Changes(packages=["a", "c"], users=["b"]).save()

    assert json.loads(record_file.read_text()) == {"packages": ["a", "c"], "users": ["b"]}
    assert list(record_file.parent.iterdir()) == [record_file]
