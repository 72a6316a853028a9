"""What the kernel holds of instances: processes, control groups, mounts, namespaces, packet filters, loop
devices, files.
"""

import os
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from skerry.cli.places import RUNTIME_ROOT, runtime_dir
from skerry.cli.processes import recorded
from skerry.spec.ids import ALPHABET, InstanceId

_ID = rf"([{ALPHABET}]{{6}})"
_NAME = re.compile(rf"(?:skerry-(?!egress)|{RUNTIME_ROOT}/){_ID}(?![{ALPHABET}])".encode())

_TABLE = re.compile(rf"table inet skerry_{_ID}")
_PATH = "/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
_NFT_S = 10.0


@dataclass(frozen=True, slots=True)
class Leftover:
    """One object.

    Attributes:
        kind: process, control group, mount, network namespace, packet filter, loop device, directory.
        name: Number, path or device.
    """

    instance: InstanceId
    kind: str
    name: str


def leftovers() -> list[Leftover]:
    """Every object of every instance, running ones included."""
    finders = (
        _processes,
        _control_groups,
        _mounts,
        _namespaces,
        _packet_filters,
        _loop_devices,
        _directories,
    )
    return [found for find in finders for found in find()]


def leftovers_of(instance: InstanceId) -> list[Leftover]:
    """Every object of one instance."""
    return [found for found in leftovers() if found.instance == instance]


def orphans() -> dict[InstanceId, list[Leftover]]:
    """Objects of instances none of whose daemons runs. `skerry down --keep` leaves such ones on purpose."""
    by_instance: defaultdict[InstanceId, list[Leftover]] = defaultdict(list)
    for found in leftovers():
        by_instance[found.instance].append(found)
    return {
        instance: objects
        for instance, objects in by_instance.items()
        if not recorded(runtime_dir(instance).processes)
    }


def _instance_in(text: bytes) -> InstanceId | None:
    match = _NAME.search(text)
    return InstanceId(match[1].decode()) if match else None


def _processes() -> Iterator[Leftover]:
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal() or int(entry.name) == os.getpid():
            continue
        try:
            line = (entry / "cmdline").read_bytes()
            groups = (entry / "cgroup").read_bytes()
        except OSError:
            continue
        program = Path(os.fsdecode(line.split(b"\0")[0])).name or "no name"
        of_ours = program in ("conmon", "runsc") or program.startswith(("runsc-", "python"))
        instance = _instance_in(groups) or (_instance_in(line) if of_ours else None)
        if instance is not None:
            yield Leftover(instance, "process", f"{entry.name} ({program})")


def _control_groups() -> Iterator[Leftover]:
    for root in _cgroup_roots():
        for path, names, _ in os.walk(root):
            # Only the outermost: what is inside goes with it.
            for name in list(names):
                if instance := _instance_in(name.encode()):
                    names.remove(name)
                    yield Leftover(instance, "control group", os.path.join(path, name))


def _cgroup_roots() -> list[str]:
    mounts = [line.split(" ") for line in Path("/proc/mounts").read_text().splitlines()]
    return [fields[1] for fields in mounts if fields[2] in ("cgroup", "cgroup2")]


def _mounts() -> Iterator[Leftover]:
    for line in Path("/proc/self/mountinfo").read_bytes().splitlines():
        point = line.split(b" ")[4]
        if instance := _instance_in(point):
            yield Leftover(instance, "mount", os.fsdecode(point))


def _namespaces() -> Iterator[Leftover]:
    try:
        names = os.listdir("/run/netns")
    except FileNotFoundError:
        return
    for name in names:
        if instance := _instance_in(os.fsencode(name)):
            yield Leftover(instance, "network namespace", name)


def _packet_filters() -> Iterator[Leftover]:
    """Tables of nftables in the host's network namespace; only root sees them."""
    import subprocess  # noqa: TID251 - no file shows what nft(8) does

    try:
        listed = subprocess.run(
            ["nft", "list", "tables"], capture_output=True, timeout=_NFT_S, check=False, env={"PATH": _PATH}
        )
    except (OSError, subprocess.TimeoutExpired):
        return
    for line in listed.stdout.decode(errors="replace").splitlines():
        if match := _TABLE.fullmatch(line):
            yield Leftover(InstanceId(match[1]), "packet filter", line)


def _loop_devices() -> Iterator[Leftover]:
    homes = {_data_dir_of(instance): instance for instance in _instances()}
    for file in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            backing = file.read_text().strip().removesuffix(" (deleted)")
        except OSError:
            continue
        for home, instance in homes.items():
            if home and Path(backing).is_relative_to(home):
                yield Leftover(instance, "loop device", f"/dev/{file.parts[3]} ({backing})")


def _directories() -> Iterator[Leftover]:
    for instance in _instances():
        yield Leftover(instance, "directory", str(runtime_dir(instance).path))


def _instances() -> list[InstanceId]:
    try:
        names = sorted(os.listdir(RUNTIME_ROOT))
    except FileNotFoundError:
        return []
    return [InstanceId(name) for name in names if re.fullmatch(_ID, name)]


def _data_dir_of(instance: InstanceId) -> str:
    import json

    try:
        return str(json.loads(runtime_dir(instance).settings.read_bytes())["data_dir"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def mending_command(instance: InstanceId) -> str:
    """The command that removes what an instance left."""
    home = _data_dir_of(instance)
    if home:
        return f"skerry down --data-dir {home}   (or `skerry up --data-dir {home}` to go on with it)"
    return "skerry down with its data directory; if that is gone, reboot"
