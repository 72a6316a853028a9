"""Every argument of a verb is checked here, though api has checked it already: api parses what strangers
send. Pure.
"""

from collections.abc import Collection

from skerry.errors import InvalidRequest, NotFound, NotSupported
from skerry.spec.ids import SandboxId, parse_sandbox_id
from skerry.spec.sandbox import Isolation, StartSpec

MEMORY_MIB = (128, 1 << 20)
CPUS = (0.1, 1024.0)
DISK_MIB = (64, 1 << 20)
PROCESSES = (16, 1_000_000)


def checked_id(sandbox_id: SandboxId) -> SandboxId:
    """A sandbox ID in its one form, so that it is safe as part of a path.

    Raises:
        InvalidRequest: It is not one.
    """
    return parse_sandbox_id(sandbox_id)


def check_start(spec: StartSpec, *, isolations: Collection[Isolation], images: Collection[str]) -> None:
    """Check what a start asks for.

    Raises:
        InvalidRequest: A value is malformed or out of range.
        NotSupported: The host has no such driver.
        NotFound: The host has no such image.
    """
    checked_id(spec.sandbox_id)
    if spec.isolation not in isolations:
        have = ", ".join(sorted(isolations)) or "none"
        raise NotSupported(f"isolation {spec.isolation} cannot be used on this host; it has: {have}")
    if spec.image not in images:
        raise NotFound("there is no such root image on this host: `skerry status` lists them")
    _check_range("memory_mib", spec.memory_mib, MEMORY_MIB)
    _check_range("cpus", spec.cpus, CPUS)
    _check_range("disk_mib", spec.disk_mib, DISK_MIB)
    _check_range("max_processes", spec.max_processes, PROCESSES)


def _check_range(name: str, value: float, bounds: tuple[float, float]) -> None:
    low, high = bounds
    if not low <= value <= high:  # also refuses NaN
        raise InvalidRequest(f"{name} must be between {low:g} and {high:g}")
