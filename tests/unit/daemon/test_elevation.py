"""Root by one announced sudo, and nothing else goes along."""

import os
import shutil
import sys
from typing import NoReturn

import pytest

from skerry.daemon.elevation import run_as_root
from skerry.errors import HostUnusable


class Executed(Exception):
    """Instead of a replaced process."""


@pytest.fixture
def executed(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The command lines that would have replaced this process."""
    lines: list[list[str]] = []

    def execv(program: str, words: list[str]) -> NoReturn:
        lines.append([program, *words])
        raise Executed

    monkeypatch.setattr(os, "execv", execv)
    for name in [name for name in os.environ if name.startswith("SKERRY_")]:
        monkeypatch.delenv(name)
    return lines


def test_the_command_line(
    monkeypatch: pytest.MonkeyPatch, executed: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: "/usr/bin/sudo")
    monkeypatch.setenv("SKERRY_REGION", "ams")
    monkeypatch.setenv("SKERRY_ISOLATION", "gvisor")
    monkeypatch.setenv("DENO_DEPLOY_TOKEN", "ddo_secret")
    with pytest.raises(Executed):
        run_as_root(["up", "--data-dir", "/d; rm -rf /"], why="to test")
    assert executed == [
        [
            "/usr/bin/sudo",
            "sudo",
            "--preserve-env=SKERRY_ISOLATION,SKERRY_REGION",
            "--",
            sys.executable,
            "-I",
            "-B",
            "-m",
            "skerry",
            "up",
            "--data-dir",
            "/d; rm -rf /",
        ]
    ]
    assert "root is needed to test" in capsys.readouterr().err


def test_without_sudo_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch, executed: list[list[str]]) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(HostUnusable, match=r"run this as root: .* -m skerry down"):
        run_as_root(["down"], why="to test")
    assert executed == []
