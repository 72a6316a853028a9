"""Somebody who asks hostd for a sandbox's gateway, as any user: what egressd's broker does, and what others
may try.

``python -m tests.harness.egress_peer SOCKET SANDBOX UID GID DESCRIPTOR [grandchild]`` asks once and hands
everything that comes back over the descriptor.
"""

import asyncio
import os
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import msgspec

from skerry.protocol.host_verbs import Call, FrameReader, OpenGateway, Reply, Verb, frame
from skerry.spec.ids import SandboxId
from tests.conftest import REPOSITORY

WAIT_S = 15.0
_READ_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class Answer:
    """What hostd said.

    Attributes:
        reply: None: it closed the connection.
    """

    reply: Reply | None
    sockets: tuple[socket.socket, ...]

    @property
    def refusal(self) -> str:
        """The family of the error, or that the connection was closed; empty when there is neither."""
        if self.reply is None:
            return "closed"
        return self.reply.failure.family if self.reply.failure else ""

    def close(self) -> None:
        """Close what was received."""
        for one in self.sockets:
            one.close()


async def ask_as(path: Path, verb: Verb, *, uid: int, gid: int, grandchild: bool = False) -> Answer:
    """Ask one thing as another user.

    Args:
        grandchild: By a process whose parent is not this one.
    """
    return await asyncio.to_thread(_ask_as, path, verb, uid, gid, grandchild)


async def open_gateway(path: Path, sandbox_id: str, *, uid: int, gid: int) -> Answer:
    """Ask for a sandbox's sockets."""
    return await ask_as(path, OpenGateway(SandboxId(sandbox_id)), uid=uid, gid=gid)


def _ask_as(path: Path, verb: Verb, uid: int, gid: int, grandchild: bool) -> Answer:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        ours.settimeout(WAIT_S)
        subprocess.run(
            [
                *(sys.executable, "-m", "tests.harness.egress_peer", str(path)),
                *(frame(Call(1, verb)).hex(), str(uid), str(gid), str(theirs.fileno())),
                *(("grandchild",) if grandchild else ()),
            ],
            pass_fds=[theirs.fileno()],
            cwd=REPOSITORY,
            timeout=WAIT_S,
            check=True,
        )
        data, descriptors, _, _ = socket.recv_fds(ours, _READ_BYTES, 8)
    sockets = tuple(socket.socket(fileno=descriptor) for descriptor in descriptors)
    bodies = FrameReader().feed(data)
    return Answer(msgspec.msgpack.decode(bodies[0], type=Reply) if bodies else None, sockets)


def main() -> None:
    """Become the user, ask, and hand over what comes."""
    path, wire, uid, gid, descriptor = sys.argv[1:6]
    if sys.argv[6:] == ["grandchild"] and (child := os.fork()):
        os.waitpid(child, 0)
        return
    os.setgroups([])
    os.setresgid(int(gid), int(gid), int(gid))
    os.setresuid(int(uid), int(uid), int(uid))
    back = socket.socket(fileno=int(descriptor))
    with socket.socket(socket.AF_UNIX) as asked:
        asked.settimeout(WAIT_S)
        asked.connect(path)
        try:
            asked.sendall(bytes.fromhex(wire))
            data, descriptors, _, _ = socket.recv_fds(asked, _READ_BYTES, 8)
        except (ConnectionResetError, BrokenPipeError):
            data, descriptors = b"", []
    socket.send_fds(back, [data or b"\0"], descriptors)


if __name__ == "__main__":
    main()
