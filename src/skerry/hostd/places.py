"""Where hostd keeps things: all below the instance's runtime directory, all but the directory itself for root
only.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

from skerry.errors import HostUnusable
from skerry.hostd.sys.mounts import mounts_below, unmount
from skerry.spec.ids import InstanceId, SandboxId, container_name, is_sandbox_id


@dataclass(frozen=True, slots=True)
class SandboxPlace:
    """The files of one sandbox's runtime, below ``sandboxes/<id>``. Only hostd and what it starts write here.

    Attributes:
        name: The name of its container, group and network namespace.
    """

    path: Path
    name: str

    @property
    def config(self) -> Path:
        """The OCI configuration; its directory is the bundle."""
        return self.path / "config.json"

    @property
    def pid_file(self) -> Path:
        """Process number of the sandbox's first process on the host, written by the runtime."""
        return self.path / "pid"

    @property
    def parent_pid_file(self) -> Path:
        """Process number of its parent, which outlives hostd."""
        return self.path / "parent.pid"

    @property
    def started(self) -> Path:
        """Made as the last step of a start: without it, the start was interrupted."""
        return self.path / "started"

    @property
    def exits(self) -> Path:
        """The parent writes the exit status here."""
        return self.path / "exits"

    @property
    def exit_file(self) -> Path:
        """The exit status, once it has ended."""
        return self.exits / self.name

    @property
    def attach(self) -> Path:
        """Where the parent puts the link to its socket."""
        return self.path / "attach.d"

    @property
    def log(self) -> Path:
        """The last of what the first process printed."""
        return self.path / "log"


@dataclass(frozen=True, slots=True)
class Places:
    """The runtime directory of an instance as hostd uses it."""

    path: Path
    instance: InstanceId

    @property
    def socket(self) -> Path:
        """Where hostd takes verbs."""
        return self.path / "hostd.sock"

    @property
    def agents(self) -> Path:
        """A directory for each sandbox, which the guest sees, with its agent's socket."""
        return self.path / "agents"

    @property
    def sandboxes(self) -> Path:
        """A directory for each sandbox."""
        return self.path / "sandboxes"

    @property
    def networks(self) -> Path:
        """Files that hold network namespaces."""
        return self.path / "netns"

    @property
    def gateway(self) -> Path:
        """The file that holds the gateway's network namespace."""
        return self.path / "gateway"

    @property
    def runsc(self) -> Path:
        """runsc's own state."""
        return self.path / "runsc"

    @property
    def mounts(self) -> Path:
        """Where images and roots are mounted."""
        return self.path / "mounts"

    @property
    def guest_agents(self) -> Path:
        """The agent's binary, one directory per version."""
        return self.path / "guest-agents"

    @property
    def group(self) -> str:
        """Control group that holds all sandboxes of the instance."""
        return f"skerry-{self.instance}"

    def sandbox(self, sandbox_id: SandboxId) -> SandboxPlace:
        """The place of one sandbox."""
        return SandboxPlace(self.sandboxes / sandbox_id, container_name(self.instance, sandbox_id))

    def sandbox_of_directory(self, name: str) -> SandboxId | None:
        """The sandbox that a directory below `sandboxes` belongs to; None when it is nobody's."""
        return SandboxId(name) if is_sandbox_id(name) else None

    def network(self, sandbox_id: SandboxId) -> Path:
        """The file that holds a sandbox's network namespace."""
        return self.networks / container_name(self.instance, sandbox_id)

    def make(self) -> None:
        """Make what is missing. The runtime directory itself exists."""
        for path in self._own:
            path.mkdir(mode=0o700, exist_ok=True)
            path.chmod(0o700)

    def remove(self) -> None:
        """Remove all of it, after the last sandbox is gone.

        Raises:
            HostUnusable: Something is still mounted there, which is no longer walked for fear of deleting
                what is not ours; or a sandbox is left.
        """
        for point in mounts_below(self.runsc):
            unmount(
                point.path, lazily=True
            )  # an empty network namespace that runsc keeps for its file servers
        for path in (*self._own, self.gateway):
            if left := mounts_below(path):
                raise HostUnusable(f"{left[0].path} is still mounted")
        for path in (self.runsc, self.guest_agents):
            shutil.rmtree(path, ignore_errors=True)
        for file in (self.socket, self.gateway):
            file.unlink(missing_ok=True)
        mount_points = list(self.mounts.iterdir()) if self.mounts.exists() else []
        for path in (*mount_points, self.agents, self.sandboxes, self.networks, self.mounts):
            try:
                path.rmdir()
            except FileNotFoundError:
                continue
            except OSError as error:
                raise HostUnusable(f"{path} cannot be removed: {error.strerror}") from error

    @property
    def _own(self) -> tuple[Path, ...]:
        return (self.agents, self.sandboxes, self.networks, self.runsc, self.guest_agents, self.mounts)
