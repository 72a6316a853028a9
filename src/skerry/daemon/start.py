"""How a daemon process begins: what it inherits from `up`, and how it tells why it cannot go on."""

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Coroutine
from typing import Any

import structlog

from skerry.cli.places import RuntimeDir
from skerry.daemon import logs
from skerry.daemon.lifeline import LISTEN_FD_ENV, DaemonEnd, Failed, Hello
from skerry.daemon.privileges import harden
from skerry.errors import SkerryError
from skerry.hostd.sys import credentials

_HELLO_S = 60.0

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
