"""A daemon for tests of the supervisor, which does what ``behaviour.json`` says of its name.

``serve``; ``fail``: says that it cannot; ``crash``: ends at once; ``hang``: says nothing; ``die``: says that
it serves, then ends; ``deaf``: serves and never stops; ``dirty``: serves, and cannot clean up; ``count``: has
one more file kept in each life, and writes down how many it was handed back.
"""

import asyncio
import json
import os
import socket
import sys
from pathlib import Path

from skerry.daemon.lifeline import LISTEN_FD_ENV, DaemonEnd, Failed, Hello, Keep, Ready
from skerry.egress.broker.vault import sealed


async def _stopped(parent: DaemonEnd) -> bool:
    loop = asyncio.get_running_loop()
    asked: asyncio.Future[bool] = loop.create_future()
    parent.on_stop(loop, asked.set_result)
    return await asked


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readline()
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
    writer.close()


async def _serve(parent: DaemonEnd, hello: Hello, what: str, runtime: Path, name: str) -> int:
    token = None
    if LISTEN_FD_ENV in os.environ:
        listener = socket.socket(fileno=int(os.environ[LISTEN_FD_ENV]))
        server = await asyncio.start_server(_answer, sock=listener)
        await server.start_serving()
        token = None if hello.client_token else "ddo_made_by_the_stand_in"
    handed_back = parent.handed_back(hello, timeout_s=10)
    parent.say(Ready("stand-in", token))
    if what == "count":
        await parent.tell(Keep(f"sbx_ord_{len(handed_back):020d}"), sealed(b"state"))
        (runtime / "counted").write_text(str(len(handed_back)))
    if what == "die":
        return 7
    keep = await _stopped(parent)
    (runtime / f"stopped-{name}").write_text("keep" if keep else "destroy")
    if what == "deaf":
        await asyncio.Event().wait()
    return 1 if what == "dirty" else 0


def main() -> int:
    """Run it."""
    name, runtime = sys.argv[1], Path(sys.argv[3])
    with (runtime / f"starts-{name}").open("a") as file:
        file.write(f"{os.getpid()}\n")
    what = json.loads((runtime / "behaviour.json").read_text())[name]
    sys.stderr.write(f"{name} will {what}\n")
    sys.stderr.flush()
    parent = DaemonEnd.inherit()
    hello = parent.hello(timeout_s=30)
    if what == "crash" or hello is None:
        return 3
    if what == "fail":
        parent.say(Failed("the stand-in cannot"))
        return 1
    if what == "hang":
        parent.hello(timeout_s=600)
        return 0
    return asyncio.run(_serve(parent, hello, what, runtime, name))


if __name__ == "__main__":
    sys.exit(main())
