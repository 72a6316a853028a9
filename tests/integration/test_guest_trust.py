"""What a sandbox's own programs trust after `trust.install`, and whom they ask about names."""

import shlex
from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio

from skerry.control.host_client import HostdClient
from skerry.control.trust import TRUST_BUNDLE, TRUST_VARIABLES
from skerry.errors import AgentError
from skerry.spec.sandbox import Isolation
from tests.conftest import Built
from tests.harness.guest import Done, Guest, guest_on
from tests.harness.hostd_process import client_of, instance
from tests.harness.origins.certificates import TestAuthority

pytestmark = [
    pytest.mark.needs_root,
    pytest.mark.timeout(180),
    pytest.mark.asyncio(loop_scope="module"),
]

SERVER = """
import http.server, ssl, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "7")
        self.end_headers()
        self.wfile.write(b"served\\n")
server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[2])
server.socket = context.wrap_socket(server.socket, server_side=True)
print("ready", flush=True)
server.serve_forever()
"""
URLLIB = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1]).read().decode(), end='')"
NODE = "fetch(process.argv[1]).then(r => r.text()).then(t => process.stdout.write(t))"
FETCH = {
    "curl": ["curl", "--silent", "--show-error"],
    "python": ["python3", "-c", URLLIB],
    "node": ["node", "-e", NODE],
    "deno": ["deno", "eval", "--no-lock", NODE.replace("process.argv[1]", "Deno.args[0]")],
}
BY: dict[str, Callable[[list[str]], list[str]]] = {
    "app": lambda command: command,
    "sudo": lambda command: ["sudo", *command],
    "nothing kept": lambda command: ["sudo", "env", "--ignore-environment", "PATH=/usr/bin:/bin", *command],
    "a login shell": lambda command: ["sudo", "su", "--login", "app", "--command", shlex.join(command)],
}
OURS, OTHERS = 8443, 8444


async def fetch(guest: Guest, tool: str, by: str = "app", port: int = OURS) -> Done:
    """Ask the server in the sandbox, which is known as localhost."""
    command, *args = BY[by]([*FETCH[tool], f"https://localhost:{port}/"])
    return await guest.run(command, *args)


async def serve(guest: Guest, authority: TestAuthority, port: int) -> None:
    """A TLS server in the sandbox."""
    pem = f"/tmp/{port}.pem"
    await guest.agent.write_file(pem, authority.leaf("localhost"))
    server = await guest.agent.spawn(command="python3", args=["-c", SERVER, str(port), pem])
    assert server.stdout is not None
    assert await server.stdout.read() == b"ready\n"


async def install(guest: Guest, authority: TestAuthority, extra: str = "") -> None:
    """As the control layer does it."""
    pem = authority.certificate_pem.decode()
    installed = await guest.agent.install_trust(pem, extra, env=TRUST_VARIABLES)
    assert installed.system
    await guest.agent.env_update(dict[str | bytes, str | bytes](TRUST_VARIABLES.items()))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def host(built: Built) -> AsyncIterator[HostdClient]:
    async with instance(built) as hostd, client_of(hostd) as client:
        yield client


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def trusting(host: HostdClient) -> AsyncIterator[Guest]:
    """A sandbox that trusts the authority of one of its two servers."""
    async with guest_on(host, Isolation.GVISOR) as guest:
        ours, others = TestAuthority.make(), TestAuthority.make("Somebody else")
        await serve(guest, ours, OURS)
        await serve(guest, others, OTHERS)
        refused = await fetch(guest, "curl")
        assert refused.exit.code == 60, "curl: the peer's certificate cannot be authenticated"
        await install(guest, ours)
        yield guest


@pytest.mark.parametrize(
    ("tool", "by"),
    [
        *((tool, by) for tool in FETCH for by in ("app", "sudo", "a login shell")),
        # These find the system's own list.
        *((tool, "nothing kept") for tool in ("curl", "python")),
    ],
)
async def test_programs_trust_what_was_installed(trusting: Guest, tool: str, by: str) -> None:
    done = await fetch(trusting, tool, by)
    assert (done.exit.code, done.stdout) == (0, "served\n"), done.stderr


@pytest.mark.parametrize("tool", list(FETCH))
async def test_programs_trust_nobody_else(trusting: Guest, tool: str) -> None:
    done = await fetch(trusting, tool, port=OTHERS)
    assert done.exit.code != 0
    assert "served" not in done.stdout


async def test_another_authority_takes_the_place_of_the_first(host: HostdClient) -> None:
    async with guest_on(host, Isolation.GVISOR) as guest:
        first, second, root = TestAuthority.make("1"), TestAuthority.make("2"), TestAuthority.make("3")
        await serve(guest, first, OURS)
        await serve(guest, second, OTHERS)
        await install(guest, first)
        before = (await guest.shell(f"grep -c BEGIN.CERT {TRUST_BUNDLE}")).stdout
        assert (await fetch(guest, "curl")).exit.code == 0
        await install(guest, second, root.certificate_pem.decode())
        after = (await guest.shell(f"grep -c BEGIN.CERT {TRUST_BUNDLE}")).stdout
        assert int(after) == int(before) + 1, "one more root, and one in the place of another"
        assert (await fetch(guest, "curl", port=OTHERS)).exit.code == 0
        assert (await fetch(guest, "curl")).exit.code == 60


@pytest.mark.soak
async def test_the_guests_own_tool_keeps_what_was_installed(host: HostdClient) -> None:
    async with guest_on(host, Isolation.GVISOR) as guest:
        authority = TestAuthority.make()
        await serve(guest, authority, OURS)
        await install(guest, authority)
        made = await guest.shell("update-ca-certificates --fresh", user="root")
        assert made.exit.code == 0, made.stderr
        done = await fetch(guest, "curl", "nothing kept")
        assert (done.exit.code, done.stdout) == (0, "served\n"), done.stderr


async def test_a_variable_that_means_something_to_a_shell_is_refused(trusting: Guest) -> None:
    with pytest.raises(AgentError) as caught:
        await trusting.agent.install_trust("x", env={"A": "$(id)"})
    assert caught.value.code == "BAD_PARAMS"


async def test_the_guest_asks_the_gateway_about_names(trusting: Guest) -> None:
    done = await trusting.shell("cat /etc/resolv.conf && grep -w localhost /etc/hosts && sudo -n true")
    assert done.stdout.startswith("nameserver 198.18.0.1\noptions timeout:2 attempts:2\n")
    assert "127.0.0.1" in done.stdout
    assert (done.exit.code, done.stderr) == (0, "")
