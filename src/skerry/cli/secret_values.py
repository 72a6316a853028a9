"""Where values of secrets come from: the environment or standard input, never a command line, which every
user of the machine can read.
"""

import os
import sys

from skerry.cli.output import usage_error
from skerry.policy.values import MAX_BYTES


def from_stdin(name: str) -> str:
    """One value: typed without an echo on a terminal, else all of standard input, without its last line end.

    Raises:
        InvalidRequest: There is none, or it is too long.
    """
    if sys.stdin.isatty():
        import getpass

        value = getpass.getpass(f"value of {name}: ")
    else:
        data = sys.stdin.buffer.read(MAX_BYTES + 3)
        value = data.decode("utf-8", "surrogateescape").removesuffix("\n").removesuffix("\r")
    if not value:
        usage_error(f"no value for {name}: write it to standard input")
    return _checked(name, value)


def values_of(names: list[str]) -> dict[str, str]:
    """A value for each secret: of the environment variable of that name; of the one that has none, from
    standard input.

    Raises:
        InvalidRequest: Several have no variable, or nothing is on standard input.
    """
    absent = [name for name in names if not os.environ.get(name)]
    if len(absent) > 1 and not sys.stdin.isatty():
        usage_error(
            f"no environment variables {', '.join(absent)}: only one value can come from standard input"
        )
    return {name: _checked(name, os.environ.get(name) or from_stdin(name)) for name in names}


def _checked(name: str, value: str) -> str:
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        usage_error(f"the value for {name} is not UTF-8")
    if size > MAX_BYTES:
        usage_error(f"the value for {name} has more than {MAX_BYTES} bytes")
    return value
