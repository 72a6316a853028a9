"""Make, read and remove an instance's runtime directory."""

import shutil
import stat
from dataclasses import asdict

import msgspec

from skerry.cli.places import RUNTIME_ROOT, RuntimeDir, runtime_dir
from skerry.cli.processes import Recorded
from skerry.daemon.files import write_file, write_json
from skerry.errors import HostUnusable
from skerry.hostd.sys import mount_namespace
from skerry.hostd.sys.mounts import mounts_below
from skerry.spec.ids import InstanceId
from skerry.spec.settings import Settings


def prepare(instance: InstanceId, settings: Settings) -> RuntimeDir:
    """Make the directory and write what the daemons read; idempotent.

    Raises:
        HostUnusable: The directory belongs to somebody else.
    """
    place = runtime_dir(instance)
    for path in (RUNTIME_ROOT, place.path):
        path.mkdir(mode=0o755, exist_ok=True)
        path.chmod(0o755)
        found = path.lstat()
        if found.st_uid != 0 or not stat.S_ISDIR(found.st_mode):
            raise HostUnusable(f"{path} is not root's: remove it")
    for mount_point in (place.state, place.egress_state):
        mount_point.mkdir(mode=0o700, exist_ok=True)
    write_json(place.instance, {"instance": instance})
    write_settings(place, settings)
    return place


def write_settings(place: RuntimeDir, settings: Settings) -> None:
    """Write what the daemons read at their start. It holds no secret."""
    write_file(place.settings, msgspec.json.encode(settings) + b"\n", mode=0o644)


def read_settings(place: RuntimeDir) -> Settings:
    """The settings in force.

    Raises:
        HostUnusable: The file is missing or damaged.
    """
    try:
        return msgspec.json.decode(place.settings.read_bytes(), type=Settings)
    except (OSError, msgspec.MsgspecError) as problem:
        raise HostUnusable(f"{place.settings} cannot be read: start Skerry by `skerry up`") from problem


def record(place: RuntimeDir, processes: list[Recorded]) -> None:
    """Write down who runs."""
    write_json(
        place.processes, [{"name": p.name, "version": p.version, **asdict(p.process)} for p in processes]
    )


def holds_sandboxes(place: RuntimeDir) -> bool:
    """Whether hostd keeps files of any sandbox there."""
    return any((place.path / "sandboxes").glob("*"))


def remove(place: RuntimeDir) -> None:
    """Remove the directory of an instance that holds nothing any more; idempotent.

    Raises:
        HostUnusable: Something below it is still mounted; nothing was removed.
    """
    mount_namespace.remove(place.mount_namespace)
    mounted = [mount.path for mount in mounts_below(place.path)]
    if mounted:
        raise HostUnusable(
            f"{mounted[0]} is still mounted: `sudo umount {mounted[0]}`, then `skerry down` again"
        )
    if place.path.is_dir() and not place.path.is_symlink():
        shutil.rmtree(place.path)
    try:
        RUNTIME_ROOT.rmdir()
    except OSError:
        return  # other instances
