"""A line that moves while long work goes on, on a terminal only."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from skerry.cli.output import plain_line

Update = Callable[[str], None]


@contextmanager
def progress(text: str, *, quiet: bool = False) -> Iterator[Update]:
    """Show a line on standard error until the body ends; the body may change it.

    Args:
        quiet: Show nothing, as when standard error is no terminal.
    """
    if quiet or not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.text import Text

    with Console(stderr=True).status(Text(plain_line(text))) as status:
        yield lambda changed: status.update(Text(plain_line(changed)))
