"""A whole Skerry whose sandboxes reach the internet of the tests, and a recorder on the way there."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from deno_sandbox import DenoDeploy
from deno_sandbox.sandbox import Sandbox

from tests.conftest import Built
from tests.harness.origins.network import Internet, PacketRecorder, internet
from tests.harness.origins.skerry import skerry_on
from tests.harness.skerry_up import SkerryUp
from tests.security.egress.guest_tools import GUEST_TOOLS

VALUE = "sk-live-7Qv9xZk2LmN4pRt8WcYb3HdF6"
OTHER_VALUE = "tok_5Jh2Gf8Ds1Aq0Zx7Cv4Bn9Mk3Lp"

Create = Callable[..., Any]


class Guest:
    """Runs Python in a sandbox, as root there, with the tools of `GUEST_TOOLS` at hand."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.id = sandbox.id

    def __call__(self, code: str, **values: Any) -> Any:
        """Run code; what it assigns to `result` comes back."""
        program = (
            f"{GUEST_TOOLS}\nargs = json.loads({json.dumps(values)!r})\nglobals().update(args)\n{code}\n"
        )
        process = self.sandbox.spawn(
            "sudo",
            args=["-E", "python3", "-c", program + "print('\\n' + json.dumps(result))"],
            stdout="piped",
            stderr="piped",
        )
        status = process.wait()
        output = process.stdout.read() if process.stdout else b""
        errors = process.stderr.read() if process.stderr else b""
        assert status["success"], (status, output[-2000:], errors[-2000:])
        return json.loads(output.decode().splitlines()[-1])

    def shell(self, command: str) -> tuple[int, str]:
        """Run a command of bash as user `app`: its exit code and all that it printed."""
        process = self.sandbox.spawn(
            "bash", args=["-c", f"exec 2>&1; {command}"], stdout="piped", stderr="null"
        )
        status = process.wait()
        return int(status["code"]), (process.stdout.read() if process.stdout else b"").decode(
            errors="replace"
        )


@pytest.fixture(scope="session")
def net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Internet]:
    """The internet of these tests."""
    with internet(tmp_path_factory.mktemp("internet"), six6=["5"]) as made:
        yield made


@pytest.fixture(scope="session")
def skerry(net: Internet, built: Built, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SkerryUp]:
    """A Skerry of its own; afterwards nothing may be left."""
    with skerry_on(net, tmp_path_factory.mktemp("egress")) as made:
        yield made


@pytest.fixture(scope="session")
def sdk(skerry: SkerryUp) -> Iterator[DenoDeploy]:
    """The SDK, pointed at it."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in skerry.json("env").items():
            patch.setenv(name, value)
        made = DenoDeploy()
    yield made
    bridge = made.sandbox._bridge
    bridge.run(made.sandbox._client.close())
    bridge.stop()


@pytest.fixture(scope="session")
def create(sdk: DenoDeploy) -> Create:
    """Makes a sandbox for the length of a block: `with create(allow_net=[…]) as guest`."""

    @contextmanager
    def make(**options: Any) -> Iterator[Guest]:
        with sdk.sandbox.create(**options) as sandbox:
            yield Guest(sandbox)

    return make


@pytest.fixture(scope="module")
def bound(create: Create) -> Iterator[Guest]:
    """A sandbox with one secret, KEY for api.test, that may also reach other.test and raw.test."""
    with create(
        allow_net=["other.test", "raw.test", "*.web.test"],
        secrets={"KEY": {"hosts": ["api.test"], "value": VALUE}},
    ) as guest:
        yield guest


PLENTY = {"requests_per_min": 100_000, "burst": 10_000}
"""A budget that no test exhausts by accident."""


@pytest.fixture(scope="module")
def roomy(create: Create) -> Iterator[Guest]:
    """As `bound`, with a budget for thousands of requests."""
    secret = {"hosts": ["api.test"], "value": VALUE, "budget": PLENTY}
    with create(allow_net=["other.test", "raw.test", "*.web.test"], secrets={"KEY": secret}) as guest:
        yield guest


@pytest.fixture
def uplink(net: Internet) -> Iterator[PacketRecorder]:
    """Records the way to the internet of the tests; the records of its servers start empty."""
    net.forget()
    with PacketRecorder(net.interface) as recorder:
        yield recorder
