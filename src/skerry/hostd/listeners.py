"""The sockets on which sandboxes' agents are awaited. hostd makes them and hands duplicates to api, which
accepts.
"""

import contextlib
import os
import shutil
import socket
from collections.abc import Callable, Container

from skerry.errors import ResourceExhausted, RuntimeFailed
from skerry.hostd.drivers.base import AgentEndpoint
from skerry.hostd.places import Places
from skerry.spec.ids import SandboxId, is_sandbox_id

SOCKET_NAME = "agent.sock"
MAX_LISTENERS = 4096
UNUSED_S = 120.0
"""A listener whose sandbox was never started is removed after this time, when another is made."""

_BACKLOG = 16
_UNFINISHED = "."


class AgentListeners:
    """One listener per sandbox.

    After a restart of hostd, api's duplicates of the old listeners go on working: a socket is made anew, in
    place of the old one, only when it is asked for.

    Args:
        clock: Seconds, monotonic.
    """

    def __init__(self, places: Places, clock: Callable[[], float]) -> None:
        self._directory = places.agents
        self._clock = clock
        self._listeners: dict[SandboxId, socket.socket] = {}
        self._made_s: dict[SandboxId, float] = {}

    def listener(self, sandbox_id: SandboxId, used: Container[SandboxId]) -> socket.socket:
        """The listener of a sandbox; it stays this object's.

        Args:
            used: Sandboxes that exist; other listeners may be removed when they are old.

        Raises:
            ResourceExhausted: There are too many.
            RuntimeFailed: It could not be made.
        """
        if sandbox_id not in self._listeners:
            self._remove_unused(used)
            if len(self._listeners) >= MAX_LISTENERS:
                raise ResourceExhausted(f"{MAX_LISTENERS} sandboxes are the most: destroy some")
            try:
                self._listeners[sandbox_id] = self._make(self.endpoint(sandbox_id))
            except OSError as error:
                raise RuntimeFailed(
                    "the socket for the agent could not be made", detail=str(error)
                ) from error
            self._made_s[sandbox_id] = self._clock()
        return self._listeners[sandbox_id]

    def endpoint(self, sandbox_id: SandboxId) -> AgentEndpoint:
        """Where a sandbox's agent finds its listener."""
        directory = self._directory / sandbox_id
        return AgentEndpoint(directory, directory / SOCKET_NAME)

    def remove(self, sandbox_id: SandboxId) -> None:
        """Remove a listener and its directory. Duplicates go on accepting, but nobody can reach them.
        Idempotent.
        """
        listener = self._listeners.pop(sandbox_id, None)
        self._made_s.pop(sandbox_id, None)
        if listener is not None:
            listener.close()
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self._directory / sandbox_id)

    def sweep(self, used: Container[SandboxId]) -> None:
        """Remove what was left on disk: for sandboxes that do not exist, and sockets that a killed hostd had
        not moved to their place yet.
        """
        for name in os.listdir(self._directory):
            if is_sandbox_id(name) and name not in used:
                self.remove(SandboxId(name))
            elif is_sandbox_id(name.removeprefix(_UNFINISHED)) and name.startswith(_UNFINISHED):
                (self._directory / name).unlink(missing_ok=True)

    def close(self) -> None:
        """Close hostd's own descriptors; the sockets stay where they are."""
        for listener in self._listeners.values():
            listener.close()
        self._listeners.clear()

    def _remove_unused(self, used: Container[SandboxId]) -> None:
        before_s = self._clock() - UNUSED_S
        for sandbox_id, made_s in list(self._made_s.items()):
            if made_s < before_s and sandbox_id not in used:
                self.remove(sandbox_id)

    def _make(self, endpoint: AgentEndpoint) -> socket.socket:
        endpoint.directory.mkdir(exist_ok=True)
        endpoint.directory.chmod(0o755)  # whatever the umask is
        # Made beside and moved, so that an agent which dials now finds either the old socket or the new one,
        # and the guest sees no third name.
        unfinished = self._directory / f"{_UNFINISHED}{endpoint.directory.name}"
        unfinished.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listener.bind(str(unfinished))
            unfinished.chmod(0o600)
            listener.listen(_BACKLOG)
            os.replace(unfinished, endpoint.socket)
        except BaseException:
            listener.close()
            raise
        return listener
