"""What the set-up says before it changes anything, and how root's steps are asked for."""

import json
import subprocess
import sys

import pytest

from setup.install import Plan, announce
from tests.conftest import REPOSITORY


def plan(
    *,
    packages: list[str] | None = None,
    users: list[str] | None = None,
    image: bool = False,
    rust: bool = False,
) -> Plan:
    return Plan(
        packages=packages or [],
        rust=("rustc", "cargo") if rust else (),
        users=users or [],
        image=image,
        runs=True,
        uses_js=False,
        compares=False,
    )


def test_everything_that_changes_on_the_host_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    announce(plan(packages=["conmon", "xfsprogs"], users=["skerry"], image=True, rust=True))

    said = capsys.readouterr().err
    for fact in (
        "conmon xfsprogs",
        "rustc cargo",
        "system users",
        "skerry",
        "changes.json",
        "base image",
        ".venv",
    ):
        assert fact in said


def test_nothing_is_said_when_nothing_changes(capsys: pytest.CaptureFixture[str]) -> None:
    announce(plan())

    assert capsys.readouterr().err == ""


def test_only_what_changes_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    announce(plan(image=True))

    said = capsys.readouterr().err
    assert "base image" in said
    assert "Debian packages" not in said
    assert "changes.json" not in said


def test_root_s_side_answers_each_step_and_goes_on_after_a_failure() -> None:
    # The image build fails at its first look at the recipe; nothing is changed.
    absent = {"recipe": "/nonexistent", "deno": "/nonexistent", "directory": "/nonexistent", "key": "k"}
    request = json.dumps({"step": "build_image", "arguments": absent}) + "\n"
    done = subprocess.run(
        [sys.executable, "-m", "setup.root_steps"],
        cwd=REPOSITORY,
        input=request * 2,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    answers = [json.loads(line) for line in done.stdout.splitlines()]

    assert len(answers) == 2
    assert all("/nonexistent" in answer["problem"] for answer in answers)
