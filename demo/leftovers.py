"""What an instance of Skerry has on the host. After `skerry down` that must be nothing."""

import subprocess
from collections.abc import Iterator
from pathlib import Path


def find_leftovers(instance: str, data_dir: Path) -> list[str]:
    """Look for everything that carries the instance's ID or lies below its data directory.

    Args:
        instance: Its ID; every kernel name of the instance contains it.
        data_dir: Its data directory.
    Returns:
        One line for each process, mount, loop device, packet filter, cgroup, network namespace, interface and
        directory.
    """
    marks = (instance, str(data_dir))
    found = [f"process {line}" for line in _processes() if any(mark in line for mark in marks)]
    found += [f"mount {line}" for line in _mounts() if any(mark in line for mark in marks)]
    found += [f"loop device {line}" for line in _loop_devices() if str(data_dir) in line]
    found += [f"packet filter {line}" for line in _packet_filters() if instance in line]
    for kind, pattern in (
        ("cgroup", f"sys/fs/cgroup/**/*{instance}*/"),
        ("network namespace", f"run/netns/*{instance}*"),
        ("runtime directory", f"run/skerry/{instance}"),
    ):
        found += [f"{kind} {path}" for path in Path("/").glob(pattern)]
    found += [
        f"interface {alias.parent.name}"
        for alias in Path("/sys/class/net").glob("*/ifalias")
        if instance in _text(alias)
    ]
    return found


def _processes() -> Iterator[str]:
    for directory in Path("/proc").glob("[0-9]*"):
        arguments = _text(directory / "cmdline").replace("\0", " ").strip()
        if arguments:
            yield f"{directory.name}: {arguments}"


def _mounts() -> Iterator[str]:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        yield f"{fields[4]} ({fields[3]})"


def _loop_devices() -> Iterator[str]:
    for file in Path("/sys/block").glob("loop*/loop/backing_file"):
        yield f"{file.parent.parent.name}: {_text(file).strip()}"


def _packet_filters() -> list[str]:
    """What nft(8) lists; nothing without root's rights."""
    path = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    try:
        listed = subprocess.run(
            ["nft", "list", "tables"], capture_output=True, text=True, check=False, env=path
        )
    except FileNotFoundError:
        return []
    return listed.stdout.splitlines()


def _text(file: Path) -> str:
    """What the kernel says in a file, or nothing if its object has just gone."""
    try:
        return file.read_text(errors="replace")
    except OSError:
        return ""
