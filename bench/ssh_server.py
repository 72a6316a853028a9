"""An OpenSSH server on loopback for comparison: what a remote command and a file copy cost without a
sandbox."""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_READY_WITHIN_S = 10.0


@dataclass(frozen=True, slots=True)
class SshServer:
    """A running server and the client options that reach it over one multiplexed connection."""

    directory: Path
    options: tuple[str, ...]
    user: str

    def run(self, *command: str) -> None:
        """Run a remote command to its end over the multiplexed connection."""
        subprocess.run(
            ["ssh", *self.options, f"{self.user}@127.0.0.1", *command], check=True, stdout=subprocess.DEVNULL
        )

    def sftp(self, batch: str) -> None:
        """Run a batch of sftp commands over the multiplexed connection."""
        subprocess.run(
            ["sftp", "-q", "-b", "-", *self.options, f"{self.user}@127.0.0.1"],
            input=batch.encode(), check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip


@contextmanager
def ssh_server() -> Iterator[SshServer]:
    """Start sshd on a free loopback port, with keys of its own, and stop it at the end."""
    directory = Path(tempfile.mkdtemp(prefix="skerry-bench-ssh-"))
    Path("/run/sshd").mkdir(exist_ok=True)
    for name in ("host", "client"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(directory / name)], check=True
        )
    shutil.copy(directory / "client.pub", directory / "authorized_keys")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (directory / "config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {directory}/host\n"
        f"AuthorizedKeysFile {directory}/authorized_keys\nPidFile none\nStrictModes no\nUsePAM no\n"
        "PermitRootLogin yes\nSubsystem sftp internal-sftp\nPrintMotd no\nAcceptEnv SHLVL\n"
    )
    sshd = subprocess.Popen(
        ["/usr/sbin/sshd", "-D", "-e", "-f", str(directory / "config")], stderr=subprocess.DEVNULL
    )
    options = (
        "-o", f"Port={port}", "-o", f"IdentityFile={directory}/client", "-o", "StrictHostKeyChecking=no",
        "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", "-o", "ControlMaster=auto",
        "-o", f"ControlPath={directory}/mux", "-o", "ControlPersist=600",
        # With a higher SHLVL bash does not read the user's start-up files for a remote command.
        "-o", "SetEnv=SHLVL=2",
    )  # fmt: skip
    server = SshServer(directory, options, os.environ.get("USER") or "root")
    try:
        _wait_until_it_answers(port)
        server.run("true")
        yield server
    finally:
        subprocess.run(["ssh", *options, "-O", "exit", "127.0.0.1"], check=False, stderr=subprocess.DEVNULL)
        sshd.terminate()
        sshd.wait(timeout=10)
        shutil.rmtree(directory, ignore_errors=True)


def _wait_until_it_answers(port: int) -> None:
    deadline = time.monotonic() + _READY_WITHIN_S
    while time.monotonic() < deadline:
        with socket.socket() as attempt:
            if attempt.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise TimeoutError(f"sshd did not listen within {_READY_WITHIN_S:g} s")
