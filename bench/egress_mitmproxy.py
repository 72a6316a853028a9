"""mitmdump as it is measured, run by the interpreter of mitmproxy's own environment: it takes connections
from a socket that it inherits, replaces the placeholder, and passes bodies as they come.
"""

import asyncio
import json
import os
import socket
import sys
import types
from pathlib import Path
from typing import Any

# mitmproxy wants the clipboard, by a package that is not published as a wheel.
clipboard: Any = types.ModuleType("pyperclip")
clipboard.PyperclipException = Exception
sys.modules["pyperclip"] = clipboard

from mitmproxy.tools.main import mitmdump  # type: ignore[import-not-found]  # noqa: E402

_SETTINGS = json.loads(os.environ["BENCH_MITMPROXY"])
_PLACEHOLDER, _VALUE = _SETTINGS["placeholder"], _SETTINGS["value"]


class Substitution:
    """The addon."""

    def running(self) -> None:
        """It serves."""
        (Path(_SETTINGS["directory"]) / "ready").touch()

    def requestheaders(self, flow: Any) -> None:
        """A request has come but for its body."""
        flow.request.stream = True
        found = flow.request.headers.get("Authorization", "")
        if _PLACEHOLDER in found:
            flow.request.headers["Authorization"] = found.replace(_PLACEHOLDER, _VALUE)

    def responseheaders(self, flow: Any) -> None:
        """An answer has come but for its body."""
        flow.response.stream = True


addons = [Substitution()]


def main() -> None:
    """Run it."""
    start_server = asyncio.start_server

    async def start_inherited(handler: Any, host: str, port: int) -> asyncio.Server:
        return await start_server(handler, sock=socket.socket(fileno=_SETTINGS["listener"]))

    asyncio.start_server = start_inherited  # type: ignore[assignment]
    options = {
        "mode": f"reverse:https://127.0.0.1:{_SETTINGS['origin_port']}",
        "keep_host_header": "true",  # and with it the name in its hello to the origin
        "ssl_verify_upstream_trusted_ca": _SETTINGS["roots"],
        "confdir": _SETTINGS["directory"],
        "listen_host": "127.0.0.1",
        "listen_port": "0",
        "http2": "false",
        "flow_detail": "0",
        "termlog_verbosity": "error",
        "scripts": __file__,
    }
    arguments = ["-q"]
    for name, value in options.items():
        arguments += ["--set", f"{name}={value}"]
    mitmdump(arguments)


if __name__ == "__main__":
    main()
