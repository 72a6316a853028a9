"""A hostd for tests: the real composition and server in a process of its own, which one user may call, and
another as egressd.

``python -m tests.harness.hostd_child RUNTIME_DIR INSTANCE ALLOWED_UID EGRESS_UID``; settings (JSON) are the
first line of standard input, then ``keep`` or ``destroy`` ends it, and so does end of file (keep).
"""

import asyncio
import os
import sys
from pathlib import Path

import msgspec
import uvloop

from skerry.hostd import server
from skerry.hostd.composition import composed
from skerry.hostd.places import Places
from skerry.hostd.sys import mount_namespace
from skerry.serving.listening import bind
from skerry.spec.ids import egress_group, parse_instance_id
from skerry.spec.settings import Settings

READY = "ready"


async def _serve(places: Places, settings: Settings, allowed_uid: int, egress_uid: int) -> None:
    egress = server.EgressPeer(egress_uid, egress_group(places.instance), os.getppid())
    async with composed(places, settings, egress_uid=egress_uid) as host:
        listener = bind(places.socket, user_id=allowed_uid, group_id=egress.gid)
        serving = server.HostServer(
            listener,
            service=host.service,
            happenings=host.happenings,
            allowed_uid=allowed_uid,
            egress=egress,
        )
        async with asyncio.TaskGroup() as group:
            accepting = group.create_task(serving.serve())
            print(READY, flush=True)
            host.keep = await _asked_to_keep()
            accepting.cancel()


async def _asked_to_keep() -> bool:
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(0, readable.set)
    await readable.wait()
    loop.remove_reader(0)
    return os.read(0, 64).strip() != b"destroy"


def main() -> None:
    """Run until told to stop."""
    runtime_dir, instance, allowed_uid, egress_uid = sys.argv[1:]
    os.umask(0o077)  # as the real daemon's
    line = bytearray()
    while not line.endswith(b"\n"):
        line += os.read(0, 1)
    settings = msgspec.json.decode(bytes(line), type=Settings)
    mount_namespace.enter(Path(runtime_dir, "mntns"))
    places = Places(Path(runtime_dir), parse_instance_id(instance))
    uvloop.run(_serve(places, settings, int(allowed_uid), int(egress_uid)))


if __name__ == "__main__":
    main()
