"""Plain ``runsc run`` and ``runc run`` of the same root image, without Skerry."""

import json
import shutil
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_HELLO_WITHIN_S = 10.0


@dataclass(frozen=True, slots=True)
class Bundles:
    """The mounted image and the programs to run it with."""

    directory: Path
    root: Path
    runsc: str
    agent: Path

    def run(self, runtime: str, *command: str) -> None:
        """Run a command in a fresh container to its end and remove the container (what ``RUNTIME run``
        does)."""
        self.output(runtime, *command)

    def output(self, runtime: str, *command: str) -> str:
        """Run a command in a fresh container and return what it prints."""
        name = f"bench-{uuid.uuid4().hex[:12]}"
        bundle = self._bundle(name, command)
        done = subprocess.run(
            [*self._runtime(runtime), "run", "--bundle", bundle, name],
            check=True,
            capture_output=True,
            text=True,
        )
        shutil.rmtree(bundle)
        return done.stdout

    def start_idle(self) -> str:
        """Start a container that only sleeps, in the background; returns its name."""
        name = f"bench-idle-{uuid.uuid4().hex[:12]}"
        bundle = self._bundle(name, ("/bin/sleep", "3600"))
        null = subprocess.DEVNULL
        run = [*self._runtime("runsc"), "run", "--detach", "--bundle", str(bundle), name]
        subprocess.run(run, check=True, stdin=null, stdout=null, stderr=null)
        return name

    def delete(self, name: str) -> None:
        """End a container and remove it (``runsc delete --force``)."""
        subprocess.run([*self._runtime("runsc"), "delete", "--force", name], check=True)

    def run_agent(self) -> None:
        """``runsc run`` with the agent as its process, until the agent's first bytes arrive; then end it."""
        name = f"bench-{uuid.uuid4().hex[:12]}"
        channel = self.directory / f"{name}.d"
        channel.mkdir()
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(channel / "agent.sock"))
            listener.listen(1)
            listener.settimeout(_HELLO_WITHIN_S)
            bundle = self._bundle(
                name, ("/.skerry/skerry-agent",), {"/.skerry": self.agent.parent, "/run/skerry": channel}
            )
            log = subprocess.DEVNULL
            run = subprocess.Popen(
                [*self._runtime("runsc"), "run", "--bundle", bundle, name], stdin=log, stdout=log, stderr=log
            )
            try:
                connection, _ = listener.accept()
                with connection:
                    connection.recv(1)
            finally:
                subprocess.run(
                    [*self._runtime("runsc"), "kill", name, "KILL"], check=False, stdout=log, stderr=log
                )
                run.wait(timeout=_HELLO_WITHIN_S)
        shutil.rmtree(bundle)
        shutil.rmtree(channel)

    def _runtime(self, runtime: str) -> list[str]:
        state = str(self.directory / f"state-{runtime}")
        if runtime == "runc":
            return ["runc", "--root", state]
        flags = ["--network=none", "--overlay2=root:memory", "--host-uds=open", "--ignore-cgroups"]
        return [self.runsc, "--root", state, *flags]

    def _bundle(self, name: str, command: Sequence[str], binds: dict[str, Path] | None = None) -> Path:
        bundle = self.directory / name
        bundle.mkdir()
        (bundle / "config.json").write_text(json.dumps(_config(self.root, command, binds or {})))
        return bundle


def _config(root: Path, command: Sequence[str], binds: dict[str, Path]) -> dict[str, object]:
    mounts: list[dict[str, object]] = [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"},
        {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"},  # noqa: S108
    ]
    mounts += [
        {"destination": to, "type": "bind", "source": str(source), "options": ["bind", "ro"]}
        for to, source in binds.items()
    ]
    environment = ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"]
    return {
        "ociVersion": "1.0.2",
        "process": {"user": {"uid": 0, "gid": 0}, "args": list(command), "env": environment, "cwd": "/"},
        "root": {"path": str(root), "readonly": True},
        "mounts": mounts,
        "linux": {"namespaces": [{"type": kind} for kind in ("pid", "mount", "ipc", "uts", "network")]},
    }


@contextmanager
def bundles(image: Path, runsc: str, agent: Path) -> Iterator[Bundles]:
    """Mount the image read-only in a temporary directory; unmount and remove everything at the end."""
    directory = Path(tempfile.mkdtemp(prefix="skerry-bench-run-"))
    root, agent_directory = directory / "root", directory / "agent"
    root.mkdir()
    agent_directory.mkdir()
    shutil.copy(agent, agent_directory / "skerry-agent")
    subprocess.run(["mount", "-t", "erofs", "-o", "ro,loop", image, root], check=True)
    try:
        yield Bundles(directory, root, runsc, agent_directory / "skerry-agent")
    finally:
        # runsc keeps the empty network namespace of --network=none there.
        for mounted in (root, directory / "state-runsc" / "null-netns"):
            subprocess.run(["umount", "--quiet", mounted], check=mounted == root)
        shutil.rmtree(directory, ignore_errors=True)
