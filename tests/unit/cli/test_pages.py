"""The page about the command line knows every verb and every exit code."""

import re
from pathlib import Path

import typer

from skerry.cli.output import ExitCode
from skerry.main import build

PAGE = Path(__file__).parents[3] / "docs" / "command-line.md"


def test_every_verb_is_described() -> None:
    group = typer.main.get_command(build())
    assert isinstance(group, typer.core.TyperGroup)
    shown = {name for name, command in group.commands.items() if not command.hidden}
    described = set(re.findall(r"^\| `([a-z]+)", PAGE.read_text(), re.MULTILINE))
    assert described == shown


def test_every_exit_code_is_described() -> None:
    described = re.findall(r"^\| (\d) \|", PAGE.read_text(), re.MULTILINE)
    assert sorted(map(int, described)) == sorted(ExitCode)
