"""Where an instance keeps its files: the data directory D and the runtime directory R."""

import json
from dataclasses import dataclass
from pathlib import Path

from skerry.errors import InvalidRequest, SkerryError
from skerry.spec.ids import InstanceId, parse_instance_id

RUNTIME_ROOT = Path("/run/skerry")
"""Sockets live below it, never below the data directory: their paths may have only 108 bytes (unix(7))."""


@dataclass(frozen=True, slots=True)
class DataDir:
    """The data directory: what outlives a reboot."""

    path: Path

    @property
    def instance(self) -> Path:
        """Which instance it is; readable by everyone."""
        return self.path / "instance.json"

    @property
    def lock(self) -> Path:
        """Locked by the one `skerry up` of this directory while it lives."""
        return self.path / "lock"

    @property
    def client_token(self) -> Path:
        """The token of the person who started it, 0600."""
        return self.path / "client-token"

    @property
    def endpoint(self) -> Path:
        """Where the API answers; there only while it does."""
        return self.path / "endpoint.json"

    @property
    def state(self) -> Path:
        """The database; belongs to the api's user."""
        return self.path / "state"

    @property
    def host(self) -> Path:
        """Storage of sandboxes; root only."""
        return self.path / "host"

    @property
    def egress(self) -> Path:
        """Audit trails; belongs to egressd's user."""
        return self.path / "egress"

    @property
    def logs(self) -> Path:
        """Logs of `up` and the daemons."""
        return self.path / "logs"


@dataclass(frozen=True, slots=True)
class RuntimeDir:
    """The runtime directory ``/run/skerry/<instance>``: what ends with the host's uptime."""

    path: Path

    @property
    def settings(self) -> Path:
        """The settings in force."""
        return self.path / "settings.json"

    @property
    def instance(self) -> Path:
        """The instance's ID."""
        return self.path / "instance.json"

    @property
    def processes(self) -> Path:
        """Who runs, with enough to recognise a process again."""
        return self.path / "processes.json"

    @property
    def hostd_socket(self) -> Path:
        """Where hostd takes verbs."""
        return self.path / "hostd.sock"

    @property
    def egressd_socket(self) -> Path:
        """Where egressd takes verbs."""
        return self.path / "egressd.sock"

    @property
    def mount_namespace(self) -> Path:
        """Holds hostd's mount namespace over its restarts."""
        return self.path / "mntns"

    @property
    def state(self) -> Path:
        """The data directory's ``state`` as api sees it, in its own mount namespace."""
        return self.path / "state"

    @property
    def egress_state(self) -> Path:
        """The data directory's ``egress`` as egressd sees it, in its own mount namespace."""
        return self.path / "egress-state"

    @property
    def egress_roots(self) -> Path:
        """Further certificate authorities that origins may have, all in one file."""
        return self.path / "egress-roots.pem"


def runtime_dir(instance: InstanceId) -> RuntimeDir:
    """The runtime directory of an instance."""
    return RuntimeDir(RUNTIME_ROOT / instance)


def read_instance(file: Path) -> InstanceId | None:
    """The ID in an ``instance.json``; None when there is no such file.

    Raises:
        InvalidRequest: The file is not what Skerry writes.
    """
    try:
        document = json.loads(file.read_bytes())
        return parse_instance_id(document["instance"])
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, KeyError, TypeError, SkerryError) as problem:
        raise InvalidRequest(
            f"{file} is damaged: remove it if no sandbox of it runs ({problem})"
        ) from problem
