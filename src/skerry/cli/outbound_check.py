"""The part of `skerry doctor` that needs a running server: one fetch from inside a sandbox, by the whole way
out.
"""

import asyncio
import secrets
import socket
from pathlib import Path
from typing import Any

from skerry.cli.host_checks import Check
from skerry.cli.output import Unreachable
from skerry.cli.server import Server, find_server
from skerry.errors import SkerryError

HOST = "example.com"
NAME = "outbound"

_SANDBOX_S = 60.0
_FETCH_S = 25
_DIRECT_S = 5.0
_MAX_TOLD = 300
_NO_SUCH_PROGRAM = 127

_PROGRAM = f"""
import sys, urllib.error, urllib.request
try:
    with urllib.request.urlopen(sys.argv[1], timeout={_FETCH_S}) as answer:
        print(answer.status, len(answer.read()))
except urllib.error.HTTPError as error:
    sys.exit(f"HTTP {{error.code}}: " + error.read(400).decode(errors="replace"))
except Exception as error:
    sys.exit(str(error))
"""


def outbound_check(data_dir: Path | None, *, host: str = HOST) -> Check:
    """Fetch a page from inside a sandbox made for it: name look-up, gateway, inspected TLS, the certificate
    that the sandbox must trust, and the origin's own.

    A host that has a secret is always inspected; the secret here is nothing, and is not sent.

    Args:
        host: Whose page is fetched.
    """
    url = f"https://{host}/"
    try:
        server = find_server(data_dir)
        code, told = asyncio.run(_fetch_inside(server, host))
    except Unreachable:
        fix = "skerry up --detach, then skerry doctor"
        return Check(NAME, "warning", "not tried, because Skerry does not run", fix)
    except SkerryError as problem:
        return Check(NAME, "missing", problem.message)
    except TimeoutError:
        code, told = 1, f"no answer within {_SANDBOX_S:g} s"
    if code == 0:
        return Check(NAME, "ok", f"{url} answered a sandbox through the gateway ({told} bytes)")
    if code == _NO_SUCH_PROGRAM:
        return Check(NAME, "warning", "not tried, because the image has no python3")
    return _explained(told, host)


def _explained(told: str, host: str) -> Check:
    """A fetch that failed: whose fault is it?"""
    url, trouble = f"https://{host}/", _trouble_without_sandbox(host)
    if trouble is None:
        return Check(
            NAME,
            "missing",
            f"{url} answers this machine, but not a sandbox: {told}",
            "look at the newest sandbox of `skerry list` with `skerry audit`, and at logs/egressd.log in the "
            "data directory",
        )
    return Check(
        NAME,
        "warning",
        f"not proved: this machine itself does not reach {url} ({trouble}); the sandbox said: {told}",
        "connect this machine to the internet, or set egress.upstream_proxy or egress.resolvers",
    )


async def _fetch_inside(server: Server, host: str) -> tuple[int, str]:
    """Exit code of the fetch, and the last line that it printed."""
    from skerry.cli.process import Program, run
    from skerry.cli.rpc import created

    printed = bytearray()

    def take(_stream: str, chunk: bytes) -> None:
        printed.extend(chunk[: max(0, 65_536 - len(printed))])

    async with asyncio.timeout(_SANDBOX_S), created(server, _config(host)) as session:
        ending = await run(
            session, Program("python3", ("-c", _PROGRAM, f"https://{host}/")), take, stdin=False
        )
    lines = printed.decode(errors="replace").strip().splitlines() or ["it printed nothing"]
    return ending.code, lines[-1][:_MAX_TOLD]


def _config(host: str) -> dict[str, Any]:
    nothing = {"hosts": [host], "value": secrets.token_hex(32)}
    return {
        "timeout": "session",
        "allow_net": [host],
        "secrets": {"SKERRY_DOCTOR": nothing},
        "labels": {"made-by": "skerry doctor"},
    }


def _trouble_without_sandbox(host: str) -> str | None:
    """Why this machine does not reach the page; None: it does."""
    try:
        socket.create_connection((host, 443), timeout=_DIRECT_S).close()
    except OSError as problem:
        return problem.strerror or str(problem)
    return None
