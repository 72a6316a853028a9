"""What a sandbox may try on the network itself, with every right in its own namespace: nothing of it leaves
the gateway, nothing reaches another sandbox, and nothing is taken for another's.

The attacker here has more than one in gVisor: raw sockets and frames, its own packet filter, routes and
addresses.
"""

import errno
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest

from skerry.hostd.network.addresses import GATEWAY_PORT, gateway_address, guest_address
from skerry.hostd.network.gateway import GatewaySockets
from skerry.hostd.network.sandbox_networks import SandboxNetworks
from skerry.hostd.places import Places
from skerry.spec.ids import SandboxId, new_instance_id
from tests.harness import packets, private_mounts
from tests.harness.guest import new_id
from tests.harness.namespaces import Recorder, inside, original_destination, recorded

pytestmark = pytest.mark.needs_root

_T = TypeVar("_T")

WAIT_S = 5.0
OUTSIDE = "192.0.2.1"
NO_PACKET = b"\0no packet holds this\0"
IPV4 = b"\x08\x00"
GUEST, GATEWAY = str(guest_address(0)), str(gateway_address(0))
OTHER_GUEST, OTHER_GATEWAY = str(guest_address(1)), str(gateway_address(1))


@dataclass(frozen=True, slots=True)
class Bench:
    """Two sandboxes at a gateway, and who listens.

    Attributes:
        mine, theirs: Sockets of the attacker and of the other.
        host: Records what the host's own namespace sees.
        gateway: Records what the gateway sees.
    """

    places: Places
    attacker: SandboxId
    other: SandboxId
    mine: GatewaySockets
    theirs: GatewaySockets
    host: Recorder
    gateway: Recorder

    def attack(self, work: Callable[[], _T]) -> _T:
        """Do something as the attacker."""
        return inside(self.places.network(self.attacker), work)

    def arrives(self, address: str, port: int, *, source: str | None = None) -> tuple[str, int]:
        """Connect as the attacker; returns where the connection that arrived was going."""
        own = (source, 0) if source else None
        with self.attack(
            partial(socket.create_connection, (address, port), timeout=WAIT_S, source_address=own)
        ):
            return self._accepted(self.mine.tcp)

    def _accepted(self, listener: socket.socket) -> tuple[str, int]:
        listener.settimeout(WAIT_S)
        connection, peer = listener.accept()
        listener.setblocking(False)
        with connection:
            assert peer[0] == GUEST
            return original_destination(connection)

    def run(self, *command: str) -> None:
        """Run a program as the attacker."""
        self.attack(partial(subprocess.run, command, check=True, capture_output=True))

    def send(self, *sent: bytes) -> None:
        """Send IPv4 packets as they are."""

        def work() -> None:
            with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
                for packet in sent:
                    raw.sendto(packet, (OUTSIDE, 0))

        self.attack(work)

    def send_frames(self, *frames: bytes) -> None:
        """Send Ethernet frames as they are."""

        def work() -> None:
            with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
                raw.bind(("eth0", 0))
                for frame in frames:
                    raw.send(frame)

        self.attack(work)

    def hardware_addresses(self) -> tuple[bytes, bytes]:
        """The attacker's, and the gateway's on its link."""

        def asked(name: str) -> bytes:
            with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
                raw.bind((name, 0))
                return bytes(raw.getsockname()[4])

        return self.attack(partial(asked, "eth0")), inside(self.places.gateway, partial(asked, "g0"))

    def expect_nothing(self, marker: bytes) -> None:
        """What holds the marker reached the gateway's end of the attacker's own link, and nothing else."""
        assert {name for name, _ in self.gateway.holding(marker)} <= {"g0"}
        assert self.host.holding(marker) == []
        for sockets in (self.mine, self.theirs):
            with pytest.raises(BlockingIOError):
                sockets.tcp.accept()
            with pytest.raises(BlockingIOError):
                sockets.udp.recv(100)


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    private_mounts.enter()
    directory = Path(tempfile.mkdtemp(prefix="skerry-"))
    places = Places(directory, new_instance_id(secrets.randbelow))
    places.make()
    networks = await SandboxNetworks.opened(places, max_connections=64)
    ids = [new_id(), new_id()]
    for sandbox_id in ids:
        await networks.make(sandbox_id)
    mine, theirs = [await networks.sockets(sandbox_id) for sandbox_id in ids]
    with recorded() as host, recorded(places.gateway) as gateway:
        yield Bench(places, ids[0], ids[1], mine, theirs, host, gateway)
    for sandbox_id in ids:
        await networks.remove(sandbox_id)
    await networks.close(keep=False)
    places.remove()
    shutil.rmtree(directory)


def error_of(work: Callable[[], object]) -> int | None:
    """The number of the error that a call ends with."""
    try:
        work()
    except OSError as error:
        return error.errno
    return None


def connect(address: str, port: int) -> None:
    socket.create_connection((address, port), timeout=WAIT_S).close()


def marker() -> bytes:
    return secrets.token_hex(8).encode()


async def test_every_tcp_port_of_every_address_ends_in_the_sandbox_s_own_socket(bench: Bench) -> None:
    # Its own loopback too, once it has changed its routes.
    bench.run("ip", "route", "del", "local", "127.0.0.0/8", "dev", "lo", "table", "local")
    bench.run("sysctl", "-qw", "net.ipv4.conf.all.route_localnet=1")
    bench.run("ip", "route", "add", "127.1.1.1/32", "via", GATEWAY, "dev", "eth0")
    for address in (OUTSIDE, "169.254.169.254", "10.0.0.1", "255.255.255.254", OTHER_GUEST, "127.1.1.1"):
        for port in (1, 22, 25, 80, 443, 853, 8443, GATEWAY_PORT, GATEWAY_PORT + 1, 65_535):
            assert bench.arrives(address, port) == (address, port)
    assert [name for name, _ in bench.gateway.frames() if name == "g1"] == []


async def test_the_gateway_s_own_addresses_reset_connections(bench: Bench) -> None:
    for address in (GATEWAY, OTHER_GATEWAY):
        for port in (GATEWAY_PORT, 53, 80, 1):
            assert bench.attack(partial(error_of, partial(connect, address, port))) == errno.ECONNREFUSED
    bench.expect_nothing(NO_PACKET)


async def test_udp_is_refused_at_once_but_for_questions(bench: Bench) -> None:
    mark = marker()

    def work() -> list[int | None]:
        found = []
        for port in (1, 123, 443, 3478, 5353, GATEWAY_PORT, 51_820, *range(10_000, 10_100)):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.settimeout(WAIT_S)
                sock.connect((OUTSIDE, port))
                sock.send(mark)
                found.append(error_of(partial(sock.recv, 10)))
        return found

    assert bench.attack(work) == [errno.ECONNREFUSED] * 107
    bench.expect_nothing(mark)


async def test_other_protocols_go_nowhere(bench: Bench) -> None:
    mark = marker()
    for destination in (OUTSIDE, GATEWAY, OTHER_GUEST):
        bench.send(
            *(
                packets.ipv4(GUEST, destination, protocol, b"\x08\0\0\0" + mark)
                for protocol in {*range(256)} - {socket.IPPROTO_TCP, socket.IPPROTO_UDP}
            )
        )
    bench.gateway.wait_for(mark)
    bench.expect_nothing(mark)


SPOOFED = [OTHER_GUEST, OTHER_GATEWAY, GATEWAY, "127.0.0.1", "0.0.0.0", "192.0.2.7", "255.255.255.255"]  # noqa: S104


async def test_another_source_address_is_neither_served_nor_answered(bench: Bench) -> None:
    mark = marker()
    own, gateway = bench.hardware_addresses()
    for source in SPOOFED:
        for packet in (
            packets.tcp_syn(source, OUTSIDE, 443),
            packets.tcp_syn(source, GATEWAY, GATEWAY_PORT),
            packets.udp(source, OUTSIDE, 53, mark),
            packets.udp(source, OUTSIDE, 443, mark),
            packets.ipv4(source, OUTSIDE, 1, b"\x08\0\0\0" + mark),
        ):
            bench.send_frames(packets.ethernet(gateway, own, 0x0800, packet))
    bench.gateway.wait_for(mark)
    bench.expect_nothing(mark)
    sent = [frame for _, frame in bench.gateway.frames() if frame[6:14] == gateway + IPV4]
    assert sent == []


async def test_a_flushed_filter_other_routes_and_addresses_change_nothing(bench: Bench) -> None:
    mark = marker()
    bench.run("nft", "flush", "ruleset")
    bench.run("ip", "address", "add", f"{OTHER_GUEST}/32", "dev", "eth0")
    bench.run("ip", "address", "add", "192.0.2.7/24", "dev", "eth0")
    bench.run("ip", "link", "set", "eth0", "address", "02:00:00:00:00:01")
    _, gateway = bench.hardware_addresses()
    bench.run("ip", "neigh", "replace", GATEWAY, "lladdr", gateway.hex(":"), "dev", "eth0")

    def spoof() -> None:
        for source in (OTHER_GUEST, "192.0.2.7"):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.bind((source, 0))
                sock.sendto(mark, ("198.51.100.1", 53))

    bench.attack(spoof)
    bench.gateway.wait_for(mark)
    bench.expect_nothing(mark)
    # What is its own still works, from another hardware address too.
    assert bench.arrives("198.51.100.1", 443, source=GUEST) == ("198.51.100.1", 443)


async def test_fragments_and_options_go_nowhere(bench: Bench) -> None:
    mark = marker()
    whole = packets.udp_payload(GUEST, OUTSIDE, 53, mark)
    for packet in (
        packets.ipv4(GUEST, OUTSIDE, 17, whole, fragment=0x2000),
        packets.ipv4(GUEST, OUTSIDE, 17, mark, fragment=0x0001),
        packets.ipv4(GUEST, OUTSIDE, 17, mark, fragment=0x2001),
        packets.ipv4(
            GUEST, OUTSIDE, 17, whole, options=b"\x83\x07\x04" + socket.inet_aton(OTHER_GUEST) + b"\0"
        ),
        packets.ipv4(GUEST, OUTSIDE, 17, whole, options=b"\x94\x04\0\0"),
    ):
        bench.send(packet)
    bench.gateway.wait_for(mark)
    bench.expect_nothing(mark)


async def test_ipv6_goes_nowhere(bench: Bench) -> None:
    mark = marker()
    bench.run("sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=0", "net.ipv6.conf.eth0.disable_ipv6=0")
    bench.run("ip", "-6", "address", "add", "fd00::2/64", "dev", "eth0", "nodad")
    bench.run("ip", "-6", "route", "add", "default", "via", "fd00::1", "dev", "eth0")
    _, gateway = bench.hardware_addresses()
    bench.run("ip", "-6", "neigh", "add", "fd00::1", "lladdr", gateway.hex(":"), "dev", "eth0")

    def work() -> None:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
            for target in ("2001:db8::1", "64:ff9b::c000:201", "fd00::1"):
                error_of(partial(sock.sendto, mark, (target, 53)))
            sock.sendto(mark, ("ff02::1", 53, 0, socket.if_nametoindex("eth0")))

    bench.attack(work)
    bench.gateway.wait_for(mark)
    bench.expect_nothing(mark)
    assert inside(bench.places.gateway, Path("/proc/thread-self/net/if_inet6").read_text) == ""


async def test_other_frames_go_nowhere(bench: Bench) -> None:
    mark = marker()
    own, gateway = bench.hardware_addresses()
    tagged = b"\0\x01" + IPV4 + packets.udp(GUEST, OUTSIDE, 53, mark)
    for kind in (0x8100, 0x88A8, 0x8863, 0x8847, 0x88CC, 0x0806):
        for target in (gateway, b"\xff" * 6, b"\x01\0\x5e\0\0\x01"):
            bench.send_frames(packets.ethernet(target, own, kind, tagged))
    bench.gateway.wait_for(mark)
    bench.expect_nothing(mark)


async def test_only_the_one_neighbour_is_answered_by_arp(bench: Bench) -> None:
    own, gateway = bench.hardware_addresses()
    own_question = packets.arp_request(own, GUEST, GATEWAY)
    bench.send_frames(
        *(packets.arp_request(own, GUEST, wanted) for wanted in (OTHER_GATEWAY, OTHER_GUEST, OUTSIDE)),
        # Each would be an entry in a table of the whole host.
        *(packets.arp_request(own, f"172.16.0.{number}", GATEWAY) for number in range(250)),
        own_question,
    )
    answer = bench.gateway.wait_for(b"\x08\x06\x00\x01\x08\x00\x06\x04\x00\x02" + gateway)

    answers = [
        frame
        for _, frame in bench.gateway.frames()
        if frame[6:12] == gateway and frame[12:14] == b"\x08\x06" and frame[20:22] == b"\0\x02"
    ]
    assert answers == [answer[1]]
    known = inside(bench.places.gateway, lambda: Path("/proc/thread-self/net/arp").read_text())
    assert "172.16." not in known


async def test_the_gateway_has_no_way_out_and_forwards_nothing(bench: Bench) -> None:
    routes = inside(
        bench.places.gateway,
        lambda: subprocess.run(["ip", "route"], check=True, capture_output=True, text=True).stdout,
    )
    values = {
        name: inside(bench.places.gateway, Path(f"/proc/sys/net/{name}").read_text).strip()
        for name in (
            "ipv4/ip_forward",
            "ipv4/conf/all/accept_source_route",
            "ipv4/conf/g0/rp_filter",
            "ipv4/conf/g0/forwarding",
            "ipv6/conf/all/disable_ipv6",
            "ipv6/conf/g0/disable_ipv6",
        )
    }
    assert sorted(line.split()[0] for line in routes.splitlines()) == [f"{GATEWAY}/31", f"{OTHER_GATEWAY}/31"]
    assert values == {
        "ipv4/ip_forward": "0",
        "ipv4/conf/all/accept_source_route": "0",
        "ipv4/conf/g0/rp_filter": "1",
        "ipv4/conf/g0/forwarding": "0",
        "ipv6/conf/all/disable_ipv6": "1",
        "ipv6/conf/g0/disable_ipv6": "1",
    }


async def test_a_flood_of_one_sandbox_leaves_the_other_served(bench: Bench) -> None:
    def flood() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
            for number in range(20_000):
                port = 1024 + number % 60_000
                raw.sendto(packets.tcp_syn(GUEST, OUTSIDE, 80, source_port=port), (OUTSIDE, 0))
                raw.sendto(packets.udp(GUEST, OUTSIDE, 53, b"", source_port=port), (OUTSIDE, 0))

    bench.attack(flood)
    tracked = int(inside(bench.places.gateway, Path("/proc/sys/net/netfilter/nf_conntrack_count").read_text))
    assert tracked < 4000
    client = inside(
        bench.places.network(bench.other),
        partial(socket.create_connection, (OUTSIDE, 443), timeout=WAIT_S),
    )
    bench.theirs.tcp.settimeout(WAIT_S)
    server, _ = bench.theirs.tcp.accept()
    client.close()
    server.close()
