"""How the set-up gets root: in this process if it is root, else from one `sudo` for all such steps."""

import json
import os
import subprocess
import sys
from types import TracebackType
from typing import Self

from setup.commands import SetupError, find_program, say
from setup.places import REPOSITORY
from setup.root_steps import Argument, perform


class Root:
    """Does the steps that need root. The password prompt, if any, comes with the first of them."""

    def __init__(self) -> None:
        self._server: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None and self._server.stdin is not None:
            self._server.stdin.close()
            self._server.wait(timeout=60)

    def do(self, step: str, **arguments: Argument) -> None:
        """Do one step and wait for its end; every command in it has a deadline of its own.

        Args:
            step: Name of a step in `setup.root_steps`.
            arguments: What the step takes.
        Raises:
            SetupError: The step failed, or root is not to be had.
        """
        if os.geteuid() == 0:
            perform(step, arguments)
            return
        server = self._server = self._server or _start_server()
        if server.stdin is None or server.stdout is None:
            raise RuntimeError("started without pipes")
        try:
            server.stdin.write(json.dumps({"step": step, "arguments": arguments}) + "\n")
            server.stdin.flush()
            answer = server.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            raise SetupError("sudo refused, or ended early: run `make setup` as a user who may become root")
        if problem := json.loads(answer)["problem"]:
            raise SetupError(problem)


def _start_server() -> subprocess.Popen[str]:
    if find_program("sudo") is None:
        raise SetupError("this needs root and there is no sudo: run it as root")
    say("Root is needed now; sudo asks once:")
    return subprocess.Popen(
        ["sudo", "--", sys.executable, "-B", "-m", "setup.root_steps"],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
