"""Skerry's side: a sandbox's worker as a real process, with the broker's own code at the other end of its
line, which writes the audit trail and confirms what must be confirmed.
"""

import asyncio
import os
import resource
import secrets
import socket
import time
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.egress_ground import BOUND, INSPECTED, MAX_CONNECTIONS, PLACEHOLDER, SPLICED, VALUE
from skerry.daemon.data_dir import EGRESS_USER
from skerry.daemon.preload import EGRESSD, preload
from skerry.daemon.privileges import Account, become, raise_open_files, system_account
from skerry.egress import zygote
from skerry.egress.broker.audit_files import Trail
from skerry.egress.broker.control_channel import pair
from skerry.egress.broker.worker import Worker
from skerry.egress.broker.zygote_client import ZygoteClient
from skerry.egress.ca import make_authority
from skerry.egress.messages import Rules, Secret
from skerry.egress.worker import process
from skerry.egress.worker.upstream_tls import upstream_context
from skerry.policy.document import AllowRule, Budget, PolicyDocument, SecretRule, TlsChoice
from skerry.protocol.egress_verbs import NamedLayer
from skerry.spec.ids import SandboxId, egress_group, new_instance_id
from skerry.spec.settings import EgressLimits, EgressSettings, InternalNetwork

SECRETS = 5
"""So many each answer to a request with a secret is searched for."""

_UNLIMITED = 1_000_000_000
_AUDIT_BYTES = 64 << 20
_READY_WITHIN_S = 20.0


def fork_zygote(roots: Path, cores: frozenset[int]) -> socket.socket:
    """Fork the process that forks workers, as egressd does; to be called before there is a thread.

    Args:
        roots: A file with authorities that origins may have.
        cores: Where it and its workers run.
    """
    user = Account(system_account(EGRESS_USER).uid, egress_group(new_instance_id(secrets.randbelow)))
    preload(EGRESSD)
    upstream_context((str(roots),))
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    broker = os.getpid()
    if os.fork() == 0:
        try:
            ours.close()
            os.sched_setaffinity(0, cores)
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            raise_open_files()
            become(user)
            memory_bytes = EgressLimits().worker_memory_mib << 20
            zygote.run(theirs, process.run, broker=broker, memory_bytes=memory_bytes)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    theirs.close()
    return ours


def rules(sandbox_id: SandboxId, *, roots: Path, resolver: str) -> Rules:
    """For the three names of the origin; limits that no load meets."""
    sandbox = PolicyDocument(
        allow=(
            AllowRule(host=SPLICED, ports=()),
            AllowRule(host=BOUND, ports=()),
            AllowRule(host=INSPECTED, ports=(), tls=TlsChoice.INSPECT),
        )
    )
    budget = Budget(requests_per_min=_UNLIMITED, burst=_UNLIMITED)
    return Rules(
        sandbox_id=sandbox_id,
        version=1,
        layers=(
            NamedLayer(name="operator", document=PolicyDocument(default="public")),
            NamedLayer(name="sandbox", document=sandbox),
        ),
        secrets=(
            Secret(
                rule=SecretRule(name="KEY", hosts=(BOUND,), budget=budget),
                placeholder=PLACEHOLDER,
                value=VALUE.encode(),
            ),
            *(other_secret(number) for number in range(1, SECRETS)),
        ),
        authority=make_authority(sandbox_id, [BOUND, INSPECTED], time.time_ns() // 1_000_000),
        settings=EgressSettings(
            resolvers=(resolver,),
            extra_roots=(str(roots),),
            internal=(InternalNetwork(names=("*.bench.test",), cidr=("127.0.0.0/8",)),),
            limits=EgressLimits(
                connections=MAX_CONNECTIONS, tls_per_s=_UNLIMITED, tls_burst=_UNLIMITED, idle_s=600.0
            ),
        ),
    )


def other_secret(number: int) -> Secret:
    """A secret of another host."""
    return Secret(
        rule=SecretRule(name=f"OTHER_{number}", hosts=(f"other{number}.bench.test",)),
        placeholder=f"DENO_SECRET_PLACEHOLDER_{secrets.token_hex(32)}",
        value=f"sk-{secrets.token_hex(20)}".encode(),
    )


@dataclass
class Running:
    """A worker.

    Attributes:
        started_s: How long it took from asking for the fork until it served.
        authority: The certificate that its clients trust, in a file.
        problem: What the broker had to say against it.
    """

    pid: int
    started_s: float
    authority: Path
    problem: str = ""

    def used(self, counts: dict[str, int]) -> None:
        """See `skerry.egress.broker.worker.Owner`."""

    def cut(self, secret: str) -> None:
        """See `skerry.egress.broker.worker.Owner`."""
        self.problem = f"{secret} strayed"

    def misbehaved(self, problem: str) -> None:
        """See `skerry.egress.broker.worker.Owner`."""
        self.problem = problem


@asynccontextmanager
async def worker(
    client: ZygoteClient, sockets: tuple[socket.socket, socket.socket], told: Rules, directory: Path
) -> AsyncIterator[Running]:
    """A worker of its own; at the end it must have behaved, and end well.

    Args:
        sockets: Its TCP listener and its UDP socket.
        directory: For its audit trail.
    """
    if told.authority is None:
        raise AssertionError("something is inspected")
    certificate = directory / f"{told.sandbox_id}.pem"
    certificate.write_text(told.authority.certificate_pem)
    ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    running = Running(0, 0.0, certificate)
    ours, theirs = pair()
    line = Worker(ours, Trail(directory, told.sandbox_id, _AUDIT_BYTES), running)
    began = time.perf_counter()
    with theirs:
        line.tell(told)
        descriptors = [theirs.fileno(), *(one.fileno() for one in sockets)]
        running.pid = await client.fork(descriptors, ended.set_result)
    async with asyncio.timeout(_READY_WITHIN_S):
        await line.adopted(told.version)
    running.started_s = time.perf_counter() - began
    try:
        yield running
    finally:
        line.stop()
        async with asyncio.timeout(_READY_WITHIN_S):
            status = await ended
        line.ended()
    if status or running.problem:
        raise RuntimeError(f"the worker ended with {status} {running.problem}")
