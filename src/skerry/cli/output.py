"""What verbs print: text that cannot harm a terminal, tables, JSON, errors with their exit codes."""

import json
import os
import sys
import unicodedata
from collections.abc import Callable, Sequence
from enum import IntEnum
from functools import wraps
from typing import Annotated, Any, NoReturn, ParamSpec

import typer

from skerry import errors

P = ParamSpec("P")

Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


class ExitCode(IntEnum):
    """What the process ends with. A command run by `exec` or `create` ends with its own status instead."""

    OK = 0
    FAILURE = 1
    USAGE = 2
    AUTHENTICATION = 3
    NOT_FOUND = 4
    CONFLICT = 5
    NETWORK = 6


class Unreachable(errors.SkerryError):
    """The API does not answer."""

    code = "UNREACHABLE"
    retryable = True


_EXIT_CODES: tuple[tuple[type[errors.SkerryError], ExitCode], ...] = (
    (errors.Unauthenticated, ExitCode.AUTHENTICATION),
    (errors.Forbidden, ExitCode.AUTHENTICATION),
    (errors.NotFound, ExitCode.NOT_FOUND),
    (errors.Conflict, ExitCode.CONFLICT),
    (errors.SandboxEnded, ExitCode.CONFLICT),
    (errors.InvalidRequest, ExitCode.USAGE),
    (Unreachable, ExitCode.NETWORK),
)


def exit_code_of(problem: errors.SkerryError) -> ExitCode:
    """The exit code for a family of errors."""
    return next((code for family, code in _EXIT_CODES if isinstance(problem, family)), ExitCode.FAILURE)


def verb(function: Callable[P, int | None]) -> Callable[P, None]:
    """Make a function that returns an exit code into a command; errors are printed and become exit codes."""

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            code = function(*args, **kwargs) or 0
        except errors.SkerryError as problem:
            print_error(problem, as_json=bool(kwargs.get("as_json")))
            code = exit_code_of(problem)
        except BrokenPipeError:
            code = _output_is_gone()
        except KeyboardInterrupt:
            code = 130
        raise typer.Exit(code)

    return run


def _output_is_gone() -> int:
    """Whoever read our output has gone: end as after SIGPIPE, without a second error at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 141


def print_error(problem: errors.SkerryError, *, as_json: bool) -> None:
    """Say what went wrong, on standard error."""
    if as_json:
        note_raw(json.dumps({"error": {"code": problem.code, "message": problem.message}}))
    else:
        note(f"skerry: {problem.message}")


def plain(text: str) -> str:
    """Text from outside with everything that could control a terminal or reorder a line made visible."""
    return "".join(char if char == "\n" or _is_harmless(char) else _escaped(char) for char in text)


def plain_line(text: str) -> str:
    """The same for text that must stay on one line, such as a file name."""
    return plain(text).replace("\n", "\\n")


def _is_harmless(char: str) -> bool:
    # Cc: control; Cf: invisible formatting, bidirectional overrides; Cs: lone surrogates; Zl, Zp: separators.
    return unicodedata.category(char) not in {"Cc", "Cf", "Cs", "Zl", "Zp", "Co", "Cn"}


def _escaped(char: str) -> str:
    number = ord(char)
    if 0xDC80 <= number <= 0xDCFF:  # a byte that was not UTF-8 (PEP 383)
        return f"\\x{number - 0xDC00:02x}"
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{{{number:x}}}"


def say(text: str) -> None:
    """Print a result."""
    sys.stdout.write(plain(text) + "\n")
    sys.stdout.flush()


def note(text: str) -> None:
    """Print something beside the result, on standard error."""
    note_raw(plain(text))


def note_raw(line: str) -> None:
    """Print a line that is known to be harmless on standard error."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def say_json(document: Any) -> None:
    """Print a result for programs. JSON with ASCII only: nothing in it can control a terminal."""
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()


def say_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print aligned columns."""
    cells = [list(head), *[[plain_line(cell) for cell in row] for row in rows]]
    widths = [max(len(line[column]) for line in cells) for column in range(len(head))]
    for line in cells:
        padded = [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]
        sys.stdout.write("  ".join(padded).rstrip() + "\n")
    sys.stdout.flush()


def usage_error(message: str) -> NoReturn:
    """Refuse what was typed."""
    raise errors.InvalidRequest(message, code="USAGE")
