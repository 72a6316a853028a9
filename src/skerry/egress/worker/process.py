"""The life of one sandbox's worker, from the fork to its end.

It starts as a copy of the zygote, gets its rules, makes ready whatever needs files, gives up the system calls
that it does not need, and then serves until the broker tells it to end or is gone.
"""

import asyncio
import signal
import socket
from pathlib import Path

import uvloop

from skerry.egress.worker import seccomp
from skerry.egress.worker.broker_line import BrokerGone, first_rules
from skerry.egress.worker.inspect import Inspection
from skerry.egress.worker.inspect_openssl import OPENS_FILES
from skerry.egress.worker.resolver import endpoints
from skerry.egress.worker.worker import Sockets, Worker

_RESOLV_CONF = Path("/etc/resolv.conf")


def run(control_fd: int, listener_fd: int, dns_fd: int) -> int:
    """A worker's whole life; returns its exit status.

    Args:
        control_fd: SOCK_SEQPACKET, to the broker.
        listener_fd: Listening TCP socket that gets all connections of the sandbox.
        dns_fd: UDP socket that gets its packets to port 53.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    control, listener, dns = (socket.socket(fileno=fd) for fd in (control_fd, listener_fd, dns_fd))
    try:
        rules = first_rules(control)
    except BrokerGone:
        return 0
    listener.setblocking(False)
    dns.setblocking(False)
    sockets = Sockets(control, listener, dns)
    resolvers = endpoints(rules.settings.resolvers, _read_resolv_conf())
    inspection = Inspection(rules)
    # From here on no file can be opened: the zygote has imported all that is ever imported.
    seccomp.install(opens_files=OPENS_FILES)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(Worker(rules, sockets, inspection, resolvers).main())


def _read_resolv_conf() -> str:
    try:
        return _RESOLV_CONF.read_text(errors="replace")
    except OSError:
        return ""
