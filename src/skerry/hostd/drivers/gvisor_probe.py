"""Whether gVisor can be used on this host, and if not, what to do."""

import os
import re
from pathlib import Path

from skerry.errors import HostUnusable, SkerryError
from skerry.hostd.cgroups import mounted
from skerry.hostd.drivers import conmon
from skerry.hostd.drivers.runsc import IDLE_FIXED, Runsc
from skerry.spec.sandbox import Capability, DriverReport, Isolation

OLDEST_KERNEL = (5, 10)
"""For the option ``volatile`` of overlay, which roots are mounted with."""

CAPABILITIES = frozenset(
    {
        Capability.PAUSE,
        Capability.MEMORY_LIMIT,
        Capability.CPU_LIMIT,
        Capability.PROCESS_LIMIT,
        Capability.DISK_LIMIT,
        Capability.OWN_NETWORK,
        Capability.OWN_ROOT,
    }
)


async def probe(runsc_path: str, agent_path: str) -> DriverReport:
    """Look at what is installed and at the kernel; changes nothing and needs no root.

    Args:
        runsc_path: Empty when none was found.
        agent_path: The guest agent's binary.
    """
    return await probe_with(Runsc(Path(runsc_path), Path("/nonexistent")) if runsc_path else None, agent_path)


async def probe_with(runsc: Runsc | None, agent_path: str) -> DriverReport:
    """As `probe`, with a `Runsc` that may know its version already."""
    missing = [*_kernel_problems(os.uname().release), *_agent_problems(agent_path)]
    warnings: list[str] = []
    version = ""
    if conmon.find() is None:
        missing.append("conmon is not installed: `apt install conmon`")
    try:
        mounted.hierarchies()
    except HostUnusable as problem:
        missing.append(problem.message)
    if runsc is None:
        missing.append("runsc (gVisor) was not found: run `make setup`, or set runsc_path")
    else:
        try:
            found = await runsc.version()
            version = found.text
            if found.wastes_cpu_when_idle:
                warnings.append(
                    f"this runsc ({version}) uses 4 % of a core for every idle sandbox: "
                    f"take one from after {IDLE_FIXED}"
                )
        except SkerryError as problem:
            missing.append(problem.message)
    return DriverReport(
        isolation=Isolation.GVISOR,
        usable=not missing,
        version=version,
        capabilities=CAPABILITIES,
        missing=tuple(missing),
        warnings=tuple(warnings),
    )


def _kernel_problems(release: str) -> list[str]:
    match = re.match(r"(\d+)\.(\d+)", release)
    if match and (int(match[1]), int(match[2])) >= OLDEST_KERNEL:
        return []
    wanted = ".".join(map(str, OLDEST_KERNEL))
    return [f"the kernel is {release}: Skerry needs Linux {wanted} or later, so upgrade the system"]


def _agent_problems(agent_path: str) -> list[str]:
    if agent_path and os.access(agent_path, os.X_OK):
        return []
    return ["the guest agent's binary was not found: run `make setup`, or set agent_path"]
