"""How a daemon process begins: what it inherits from `up`, and how it tells why it cannot go on."""

import asyncio
import fcntl
import os
import signal
import socket
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import structlog

from skerry.cli.places import RuntimeDir
from skerry.daemon import logs
from skerry.daemon.lifeline import LISTEN_FD_ENV, DaemonEnd, Failed, Hello
from skerry.daemon.privileges import harden
from skerry.errors import HostUnusable, SkerryError
from skerry.hostd.sys import credentials

_HELLO_S = 60.0
_OTHER_S = 30.0
_LOCK_RETRY_S = 0.02

_log = structlog.get_logger(__name__)


class Inherited:
    """What `up` handed over.

    Attributes:
        place: The instance's runtime directory.
        parent: The line to `up`.
        listener: The API's listening socket; only api has one.
        hello: What `up` said first.
    """

    def __init__(
        self, place: RuntimeDir, parent: DaemonEnd, listener: socket.socket | None, hello: Hello
    ) -> None:
        self.place = place
        self.parent = parent
        self.listener = listener
        self.hello = hello


def run_daemon(name: str, place: RuntimeDir, work: Callable[[Inherited], None]) -> int:
    """Take over what `up` hands down, harden the process, and do the daemon's work until it is done.

    Returns:
        The exit code: 0 when everything that was asked is done.
    """
    credentials.set_process_name(f"skerry-{name}")
    parent, listener = DaemonEnd.inherit(), _inherited_listener()
    harden(keep_fds={parent.fileno(), *([listener.fileno()] if listener else [])})
    logs.configure(name)
    try:
        only_one(place.path / f"{name}.lock")
        hello = parent.hello(timeout_s=_HELLO_S)
        if hello is not None:
            work(Inherited(place, parent, listener, hello))
    except SkerryError as problem:
        _log.error("stopped", error=problem.message, detail=problem.detail)
        parent.say(Failed(problem.message))
        return 1
    except Exception as problem:
        _log.exception("stopped")
        parent.say(Failed(f"internal error: {type(problem).__name__}; its log says more"))
        return 1
    return 0


def only_one(file: Path, *, timeout_s: float = _OTHER_S) -> None:
    """Hold a lock until this process ends, so that no two daemons of a name work on one instance.

    After a kill of `up` the old one may need a moment to see it.

    Raises:
        HostUnusable: Another one holds it for longer than the time.
    """
    fd = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    deadline_s = time.monotonic() + timeout_s
    while True:
        try:
            return fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline_s:
                os.close(fd)
                raise HostUnusable(f"another daemon holds {file}: end it, then start again") from None
            time.sleep(_LOCK_RETRY_S)


def _inherited_listener() -> socket.socket | None:
    number = os.environ.pop(LISTEN_FD_ENV, None)
    if number is None:
        return None
    listener = socket.socket(fileno=int(number))
    listener.set_inheritable(False)
    return listener


def stop_asked(parent: DaemonEnd) -> "asyncio.Future[bool]":
    """Becomes, with ``keep``, done when `up` says stop or is gone, or a signal says so (keep)."""
    loop = asyncio.get_running_loop()
    asked: asyncio.Future[bool] = loop.create_future()

    def ask(keep: bool) -> None:
        if not asked.done():
            asked.set_result(keep)

    parent.on_stop(loop, ask)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ask, True)
    return asked


def run_loop(main: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine on a uvloop event loop."""
    import uvloop

    uvloop.run(main)
