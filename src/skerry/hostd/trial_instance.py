"""What the drivers of this machine say when a sandbox is run for real, asked without a running Skerry."""

import asyncio
import secrets
import shutil
import tempfile
from pathlib import Path

from msgspec import structs

from skerry.hostd.composition import composed
from skerry.hostd.places import Places
from skerry.hostd.sys import own_mounts
from skerry.spec.ids import new_instance_id
from skerry.spec.sandbox import DriverReport
from skerry.spec.settings import Settings


def reports(settings: Settings) -> list[DriverReport]:
    """Set an instance up, run one sandbox of each driver in it, and remove all. Takes about a second.

    Must be called as root in a process that ends soon, for it stays in a mount namespace of its own.

    Raises:
        HostUnusable: Not even the instance could be set up; the message says why.
        SkerryError: Something could not be removed, and is left.
    """
    own_mounts.enter()
    # Not below the data directory: a socket's path may have 108 bytes (unix(7)).
    directory = Path(tempfile.mkdtemp(prefix="skerry-probe-", dir="/run"))
    data_dir = Path(tempfile.mkdtemp(prefix="skerry-probe-"))
    places = Places(directory, new_instance_id(secrets.randbelow))
    found = asyncio.run(_reports(places, structs.replace(settings, data_dir=str(data_dir))))
    # Only after everything was unmounted: a removal must never walk into a guest's root.
    shutil.rmtree(data_dir)
    directory.rmdir()
    return found


async def _reports(places: Places, settings: Settings) -> list[DriverReport]:
    async with composed(places, settings) as host:
        host.keep = False
        return list((await host.service.describe()).drivers)
