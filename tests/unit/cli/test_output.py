"""What is printed cannot harm a terminal, and errors become exit codes."""

import json

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from skerry import errors
from skerry.cli.output import ExitCode, Unreachable, plain, plain_line, say_table, verb


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[2Jb", "a\\x1b[2Jb"),
        ("bell\a, return\r, tab\t", "bell\\x07, return\\x0d, tab\\x09"),
        ("\x9b31m", "\\x9b31m"),
        ("txt\u202egpj.exe", "txt\\u{202e}gpj.exe"),
        ("not utf-8: \udcff", "not utf-8: \\xff"),
        ("Grüße, 世界 🙂", "Grüße, 世界 🙂"),
    ],
)
def test_what_could_control_a_terminal_is_made_visible(text: str, shown: str) -> None:
    assert plain(text) == shown


def test_a_name_stays_on_its_line() -> None:
    assert plain_line("a\nb") == "a\\nb"


@given(st.text())
def test_nothing_but_newlines_controls(text: str) -> None:
    shown = plain(text)
    assert all(
        char == "\n" or char.isprintable()
        for char in shown
        if char not in "\u00a0\u3000" and not char.isspace()
    )
    assert "\x1b" not in shown


def test_a_table_is_aligned_and_harmless(capsys: pytest.CaptureFixture[str]) -> None:
    say_table(("A", "LONG"), [("one", "x"), ("two\n\x1b", "")])
    assert capsys.readouterr().out == "A          LONG\none        x\ntwo\\n\\x1b\n"


@pytest.mark.parametrize(
    ("problem", "code"),
    [
        (errors.InvalidRequest("no"), ExitCode.USAGE),
        (errors.Unauthenticated("no"), ExitCode.AUTHENTICATION),
        (errors.Forbidden("no"), ExitCode.AUTHENTICATION),
        (errors.NotFound("no"), ExitCode.NOT_FOUND),
        (errors.Conflict("no"), ExitCode.CONFLICT),
        (errors.SandboxEnded("killed"), ExitCode.CONFLICT),
        (errors.RuntimeFailed("no"), ExitCode.FAILURE),
        (errors.HostUnusable("no"), ExitCode.FAILURE),
        (Unreachable("no"), ExitCode.NETWORK),
    ],
)
def test_every_family_has_its_exit_code(problem: errors.SkerryError, code: ExitCode) -> None:
    @verb
    def fail() -> None:
        raise problem

    with pytest.raises(typer.Exit) as ended:
        fail()
    assert ended.value.exit_code == code


def test_errors_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    @verb
    def fail(*, as_json: bool) -> None:
        raise errors.NotFound("no such thing", code="SANDBOX_NOT_FOUND")

    with pytest.raises(typer.Exit):
        fail(as_json=True)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert json.loads(shown.err) == {"error": {"code": "SANDBOX_NOT_FOUND", "message": "no such thing"}}


def test_errors_for_people_cannot_harm_either(capsys: pytest.CaptureFixture[str]) -> None:
    @verb
    def fail() -> None:
        raise errors.NotFound("no \x1b]0;title\a")

    with pytest.raises(typer.Exit):
        fail()
    assert capsys.readouterr().err == "skerry: no \\x1b]0;title\\x07\n"
