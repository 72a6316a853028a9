"""Starting processes at an agent that a test plays."""

import asyncio
from typing import Any

from skerry.control.agent import AgentClient, Process
from skerry.protocol import frames
from tests.harness.agent_peer import Peer, ping, response

STDIN, STDOUT, STDERR = 1, 2, 3


async def spawned(client: AgentClient, peer: Peer, *, pid: int = 42, **options: Any) -> Process:
    """A process with stdout (stream 2) unless `options` ask for something else."""
    wanted = {"stdin": False, "stdout": True, "stderr": False} | options
    task = asyncio.get_running_loop().create_task(client.spawn(command="test", **wanted))
    id_, _ = await peer.receive_request("process.spawn")
    ids = {"stdin": STDIN, "stdout": STDOUT, "stderr": STDERR}
    await peer.send(response(id_, {"pid": pid} | {name: ids[name] for name in ids if wanted[name]}))
    return await task


async def handled(peer: Peer) -> list[frames.Frame]:
    """Wait until the host has handled all that was sent to it; returns what it sent before it said so."""
    await asyncio.sleep(0)  # tasks that were just made come first
    await peer.send(ping(b"handled?"))
    before: list[frames.Frame] = []
    while not isinstance(frame := await peer.receive(), frames.Pong):
        before.append(frame)
    return before
