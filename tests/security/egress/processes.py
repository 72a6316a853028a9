"""The gateway's own processes, as the host sees them."""

from pathlib import Path
from typing import Any

from tests.harness.skerry_up import SkerryUp


def egress_of(skerry: SkerryUp) -> Any:
    """What ``skerry status`` says of the gateway."""
    return skerry.json("status")["server"]["egress"]


def worker_of(skerry: SkerryUp, sandbox: str) -> int:
    """The process that serves a sandbox; it must have used the network."""
    (found,) = [one for one in egress_of(skerry)["sandboxes"] if one["sandbox_id"] == sandbox]
    assert found["worker_pid"] is not None
    return int(found["worker_pid"])


def memory_mib(pid: int) -> float:
    """Memory of its own that a process has had at most since it started (proc_pid_status(5))."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    values = {line.split(":")[0]: line.split()[1] for line in lines if line.endswith("kB")}
    return int(values["RssAnon"]) / 1024


def peak_mib(pid: int) -> float:
    """As `memory_mib` for all of its memory, code included, at its highest."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
