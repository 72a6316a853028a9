"""The outbound gateway beside its alternatives: ``python -m bench.egress [--quick]``, which prints rows as
JSON; `bench.__main__` runs it.

A process of its own, because workers are copies of a process that has not yet done anything, and because
what it mounts and makes must go with it.
"""

import argparse
import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, fields
from pathlib import Path

import uvloop

from bench import egress_others as others
from bench import egress_rows as rows
from bench.egress_ground import (
    AUTHORIZATION,
    BOUND,
    INSPECTED,
    PLACEHOLDER,
    SPLICED,
    Cores,
    Files,
    Ground,
    Seat,
    files,
    ground,
    origin,
)
from bench.egress_load import Target, ask, client
from bench.egress_rows import FULL, QUICK, Bench, Size, Ways
from bench.egress_worker import fork_zygote, rules, worker
from bench.report import Row
from skerry.daemon.privileges import raise_open_files
from skerry.egress.broker.zygote_client import ZygoteClient
from skerry.hostd.sys import own_mounts

_ANY_ADDRESS = "198.18.0.2"
"""Whatever a client of the others connects to, it reaches them."""


@asynccontextmanager
async def _our_ways(around: Ground, zygote: ZygoteClient) -> AsyncIterator[list[Target]]:
    """A fresh worker, and how its clients reach the three names: passed, inspected with a secret, without."""
    async with around.seat() as seat:
        told = rules(seat.sandbox_id, roots=around.roots, resolver=around.resolver)
        sockets = (seat.tcp, seat.udp)
        async with worker(zygote, sockets, told, around.directory) as running:
            found = []
            for host, roots, authorization in (
                (SPLICED, around.roots, AUTHORIZATION),
                (BOUND, running.authority, f"Bearer {PLACEHOLDER}"),
                (INSPECTED, running.authority, AUTHORIZATION),
            ):
                async with client(seat, {"what": "resolve", "host": host}) as address:
                    found.append(Target("Skerry", running.pid, seat, host, address, roots, authorization))
            yield found


def _other_way(name: str, pid: int, seat: Seat, roots: Path, *, inspects: bool) -> Target:
    host, authorization = (BOUND, f"Bearer {PLACEHOLDER}") if inspects else (SPLICED, AUTHORIZATION)
    return Target(name, pid, seat, host, _ANY_ADDRESS, roots, authorization)


@asynccontextmanager
async def _ways(around: Ground, zygote: ZygoteClient) -> AsyncIterator[Ways]:
    """Start everything, and see that each way delivers the secret's real value."""
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        at_origin, at_splice, at_inspect, at_mitmproxy = [await enter(around.seat()) for _ in range(4)]
        origin_pid = await enter(origin(around, at_origin))
        splice_pid = await enter(others.nginx_splice(around, at_splice))
        inspect_pid = await enter(others.nginx_inspect(around, at_inspect))
        mitmproxy_pid = await enter(others.mitmproxy(around, at_mitmproxy))
        splice, inspect, plain = await enter(_our_ways(around, zygote))
        found = Ways(
            direct=_other_way("direct", origin_pid, at_origin, around.roots, inspects=False),
            splice=splice,
            inspect=inspect,
            inspect_without_secret=plain,
            nginx_splice=_other_way("nginx", splice_pid, at_splice, around.roots, inspects=False),
            nginx_inspect=_other_way("nginx", inspect_pid, at_inspect, around.roots, inspects=True),
            mitmproxy=_other_way(
                "mitmproxy", mitmproxy_pid, at_mitmproxy, others.mitmproxy_roots(around), inspects=True
            ),
        )
        for way in fields(Ways):
            # The origin refuses everything else.
            await ask(around, getattr(found, way.name), "check")
        yield found


async def _measure(zygote_socket: socket.socket, prepared: Files, cores: Cores, size: Size) -> list[Row]:
    zygote_gone = asyncio.Event()
    async with ground(prepared, cores, large_bytes=size.large_bytes) as around:
        zygote = ZygoteClient(zygote_socket, zygote_gone.set)
        try:
            async with _ways(around, zygote) as ways:
                found = await rows.of_ways(Bench(around, zygote, ways, size))
            return found + await rows.of_workers(around, zygote, size)
        finally:
            zygote.close()


def main() -> None:
    """Measure, and print the rows."""
    parser = argparse.ArgumentParser(prog="python -m bench.egress")
    parser.add_argument("--quick", action="store_true", help="few repetitions")
    size = QUICK if parser.parse_args().quick else FULL
    cores = Cores.of_this_machine()
    raise_open_files()
    with files() as prepared:
        zygote_socket = fork_zygote(prepared.roots, cores.proxy)
        os.sched_setaffinity(0, cores.load)
        own_mounts.enter()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            found = runner.run(_measure(zygote_socket, prepared, cores, size))
    print(json.dumps([asdict(row) for row in found]))


if __name__ == "__main__":
    main()
