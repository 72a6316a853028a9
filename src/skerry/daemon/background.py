"""Go on in the background."""

import json
import os
import select
import signal
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from skerry.daemon.descriptors import close_others

Tell = Callable[[dict[str, Any]], None]

_MAX_ANSWER_BYTES = 1 << 20


class Background:
    """A process that was left behind, as its starter sees it."""

    def __init__(self, pid: int, answers: int) -> None:
        self.pid = pid
        self._answers = answers

    def first_answer(self, *, timeout_s: float) -> dict[str, Any] | None:
        """Wait for the first thing it tells; None when it ended, or nothing came in time."""
        deadline_s = time.monotonic() + timeout_s
        data = b""
        while b"\n" not in data and len(data) < _MAX_ANSWER_BYTES:
            left_s = deadline_s - time.monotonic()
            if left_s <= 0 or not select.select([self._answers], [], [], left_s)[0]:
                return None
            chunk = os.read(self._answers, 65_536)
            if not chunk:
                return None
            data += chunk
        answer: dict[str, Any] = json.loads(data.partition(b"\n")[0])
        return answer

    def end(self) -> None:
        """Ask it to end."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)


def fork_into_background(
    work: Callable[[Tell], None], *, errors_to: Path, keep_fds: Collection[int] = ()
) -> Background:
    """Run work in a new session, without this terminal. Call it before any thread exists.

    Args:
        work: Gets a function by which it tells the starter something; ends the process when it returns.
        errors_to: Standard output and error go there.
        keep_fds: What it needs. Others are closed: somebody may wait for the end of a pipe.
    """
    reading, writing = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writing)
        return Background(pid, reading)
    os.close(reading)
    _live_in_background(work, writing, errors_to, keep_fds)


def _live_in_background(
    work: Callable[[Tell], None], writing: int, errors_to: Path, keep_fds: Collection[int]
) -> NoReturn:
    status = 1
    try:
        os.setsid()
        os.chdir("/")
        nowhere = os.open(os.devnull, os.O_RDONLY)
        errors = os.open(errors_to, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o640)
        for source, target in ((nowhere, 0), (errors, 1), (errors, 2)):
            os.dup2(source, target)
        close_others({writing, *keep_fds})

        def tell(answer: dict[str, Any]) -> None:
            try:
                os.write(writing, json.dumps(answer).encode() + b"\n")
            except BrokenPipeError:
                return  # nobody waits any more

        work(tell)
        status = 0
    except BaseException:
        import traceback

        os.write(2, traceback.format_exc().encode())
    finally:
        # Not sys.exit: the caller's own cleanup, which belongs to the starter, must not run here.
        os._exit(status)
