"""A network namespace that plays the internet for one test module, and a recorder on the way there."""

import contextlib
import json
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.harness.origins.certificates import TestAuthority

REPOSITORY = Path(__file__).resolve().parents[3]
PASSWORD = "hosted-key-6Rt9Yp2Wq8Xn4Lz7"
READY_S = 20.0
TRAPS = {
    "rebind.example": ["169.254.169.254"],
    "loopback.example": ["127.0.0.1"],
    "private.example": ["10.0.0.1"],
    "mapped6.example": ["::ffff:7f00:1"],
    "nat64.example": ["64:ff9b::a9fe:a9fe"],
}
"""Names that anybody could have, with addresses that nobody may be led to."""

_ETH_P_ALL = 0x0003
_ALL_OF_A_PACKET = 65_535


@dataclass(slots=True)
class Internet:
    """What a test needs to know of it.

    Attributes:
        cidr: All of its IPv4 addresses.
        origins: Names and their addresses, as its name server answers.
        resolver: ``address:port`` of the name server.
        roots: PEM file of the authority that the origins' certificates come from.
        files: What origins serve below ``/static/``, and for `PASSWORD` below ``/private/``.
        records: JSON lines: what origins and name server got.
        interface: The host's end; everything on the way there passes it.
    """

    cidr: str
    cidr6: str
    origins: dict[str, list[str]]
    resolver: str
    roots: Path
    records: Path
    files: Path
    interface: str
    netns: str

    def settings(self, **more: Any) -> str:
        """The ``[egress]`` table that lets sandboxes reach it, as TOML."""
        lines = [
            "[egress]",
            f'resolvers = ["{self.resolver}"]',
            f'extra_roots = ["{self.roots}"]',
            *(f"{name} = {json.dumps(value)}" for name, value in more.items()),
            "[[egress.internal]]",
            'names = ["*.test"]',
            f'cidr = ["{self.cidr}", "{self.cidr6}"]',
        ]
        return "\n".join(lines) + "\n"

    def recorded(self, kind: str | None = None, **equal: Any) -> list[dict[str, Any]]:
        """What has been recorded up to now, of one kind: ``dns``, ``hello``, ``request``, ``raw``."""
        lines = self.records.read_text().splitlines() if self.records.exists() else []
        found = [json.loads(line) for line in lines]
        return [
            one
            for one in found
            if (kind is None or one["kind"] == kind)
            and all(one.get(name) == value for name, value in equal.items())
        ]

    def forget(self) -> None:
        """Start with an empty record."""
        self.records.write_text("")


@contextlib.contextmanager
def internet(directory: Path, **origins: list[str]) -> Iterator[Internet]:
    """Make it, run its servers, and take everything away again.

    Args:
        directory: Where it keeps its files.
        origins: Further names, without ``.test`` → last parts of their addresses, 2 to 9; names that end
            in ``6`` get IPv6 addresses only.
    """
    token = secrets.token_hex(3)
    number = secrets.randbelow(200) + 20
    netns, outside, inside = f"skt-{token}", f"skt{token}h", f"skt{token}i"
    prefix, prefix6 = f"10.77.{number}", f"fd77:{number:x}::"
    names = {
        "api.test": ["2"],
        "other.test": ["3"],
        "web.test": ["2"],
        "raw.test": ["4"],
        "a.web.test": ["2"],
        "badcert.test": ["6"],
    }
    names |= {f"{name}.test": parts for name, parts in origins.items()}
    addresses = {
        name: [
            f"{prefix6}{part}" if name.split(".")[0].endswith("6") else f"{prefix}.{part}" for part in parts
        ]
        for name, parts in names.items()
    }
    addresses |= TRAPS
    authority = TestAuthority.make()
    roots = directory / "test-roots.pem"
    roots.write_bytes(authority.certificate_pem)
    roots.chmod(0o644)
    key = directory / "test-authority.key"
    key.write_bytes(authority.key_pem)
    records = directory / "records.jsonl"
    files = directory / "files"
    files.mkdir()
    with contextlib.ExitStack() as undo:
        _ip("netns", "add", netns)
        undo.callback(_ip, "netns", "del", netns)
        _ip("link", "add", outside, "type", "veth", "peer", "name", inside, "netns", netns)
        _ip("addr", "add", f"{prefix}.1/24", "dev", outside)
        _ip("-6", "addr", "add", f"{prefix6}1/64", "dev", outside, "nodad")
        _ip("link", "set", outside, "up")
        for part in range(2, 10):
            _ip("-n", netns, "addr", "add", f"{prefix}.{part}/24", "dev", inside)
            _ip("-n", netns, "-6", "addr", "add", f"{prefix6}{part}/64", "dev", inside, "nodad")
        _ip("-n", netns, "link", "set", "lo", "up")
        _ip("-n", netns, "link", "set", inside, "up")
        config = {
            "names": addresses,
            "resolver": f"{prefix}.9",
            "records": str(records),
            "roots": str(roots),
            "key": str(key),
            "files": str(files),
            "password": PASSWORD,
        }
        server = _start(netns, config)
        undo.callback(_stop, server)
        yield Internet(
            cidr=f"{prefix}.0/24",
            cidr6=f"{prefix6}/64",
            origins=addresses,
            resolver=f"{prefix}.9:53",
            roots=roots,
            records=records,
            files=files,
            interface=outside,
            netns=netns,
        )


class PacketRecorder:
    """Records what passes an interface, packet by packet, until it is closed (packet(7))."""

    def __init__(self, interface: str) -> None:
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
        self._socket.bind((interface, 0))
        self._socket.setblocking(False)

    def packets(self) -> list[bytes]:
        """What has passed since the last call, ARP and IPv6 neighbour discovery left out."""
        found: list[bytes] = []
        with contextlib.suppress(BlockingIOError):
            while True:
                found.append(self._socket.recv(_ALL_OF_A_PACKET))
        return [one for one in found if not _is_housekeeping(one)]

    def close(self) -> None:
        """End recording."""
        self._socket.close()

    def __enter__(self) -> "PacketRecorder":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _is_housekeeping(packet: bytes) -> bool:
    kind = packet[12:14]
    return kind == b"\x08\x06" or (kind == b"\x86\xdd" and packet[20] in (0, 58))


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, timeout=20)


def _start(netns: str, config: dict[str, Any]) -> "subprocess.Popen[bytes]":
    server = subprocess.Popen(
        ["ip", "netns", "exec", netns, sys.executable, "-m", "tests.harness.origins.server"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=REPOSITORY,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
    )
    assert server.stdin is not None
    assert server.stdout is not None
    server.stdin.write(json.dumps(config).encode() + b"\n")
    server.stdin.flush()
    os.set_blocking(server.stdout.fileno(), False)
    deadline_s = time.monotonic() + READY_S
    said = b""
    while b"ready\n" not in said:
        assert time.monotonic() < deadline_s, "the origins did not start"
        assert server.poll() is None, "the origins ended"
        said += server.stdout.read() or b""
        time.sleep(0.01)
    return server


def _stop(server: "subprocess.Popen[bytes]") -> None:
    assert server.stdin is not None
    server.stdin.close()  # it ends with its input
    try:
        server.wait(10)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
    if server.stdout is not None:
        server.stdout.close()
