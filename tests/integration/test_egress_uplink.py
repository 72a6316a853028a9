"""Where the host's packet filter lets the gateway's workers connect to, whatever they think."""

import asyncio
import errno
import json
import os
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from ipaddress import ip_address
from pathlib import Path

import pytest

from skerry.hostd.network import uplink_rules
from skerry.hostd.network.uplink import UplinkTable
from skerry.hostd.network.uplink_rules import Uplink
from skerry.hostd.sys import network_namespace, nftables
from skerry.spec.ids import InstanceId, egress_group
from skerry.spec.settings import EgressSettings
from tests.harness import private_mounts
from tests.harness.namespaces import Recorder, inside, recorded
from tests.harness.waiting import until

pytestmark = pytest.mark.needs_root

INSTANCE, OTHER = InstanceId("test01"), InstanceId("test02")
UID = 64_321
GID = egress_group(INSTANCE)
OWN, OWN_V6 = "198.51.100.5", "2001:db8:5::5"
SENT = "sent"

UPLINK = Uplink(
    uid=UID,
    gid=GID,
    resolvers=(
        (ip_address("127.0.0.53"), 53),
        (ip_address("2001:db8:53::1"), 53),
        (ip_address("10.0.0.53"), 5353),
    ),
    proxies=((ip_address("10.9.9.9"), 3128),),
    internal=uplink_rules.networks(["10.3.0.0/16", "fd12:3::/48"]),
)

OTHERS_RULES = """
table ip nat {
  chain output {
    type nat hook output priority -100; policy accept;
    ip daddr 203.0.113.80 tcp dport 8080 dnat to 172.17.0.2:80
  }
}
table inet firewalld_like {
  chain output {
    type filter hook output priority filter + 10; policy accept;
    accept
  }
}
"""


@contextmanager
def host(rules: str) -> Iterator[Path]:
    """A host of its own, with one way out on which nobody answers."""
    private_mounts.enter()
    with tempfile.TemporaryDirectory(prefix="skerry-") as directory:
        pin = Path(directory) / "host"
        network_namespace.create(pin, partial(_set_up, rules))
        try:
            yield pin
        finally:
            network_namespace.remove(pin)


def _set_up(rules: str) -> None:
    for name in ("all", "default", "lo"):  # which gives lo its address
        Path(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6").write_text("0")
    Path("/proc/sys/net/ipv6/conf/default/accept_dad").write_text("0")
    for command in (
        "link add out type veth peer name away",
        "link set away up",
        "link set out up arp off",
        f"address add {OWN}/24 dev out",
        f"-6 address add {OWN_V6}/64 dev out nodad",
        "route add default dev out",
        "-6 route add default dev out",
        "address add 127.0.0.53/32 dev lo",
    ):
        subprocess.run(["ip", *command.split()], check=True)
    nftables.load(rules)


def outcome(pin: Path, kind: str, address: str, port: int, *, uid: int = UID, gid: int = GID) -> str:
    """What happens to a connection (or datagram) of a user: `SENT`, or the name of its error."""
    reading, writing = os.pipe()

    def attempt() -> None:
        child = os.fork()
        if child == 0:
            try:
                os.setgroups([])
                os.setresgid(gid, gid, gid)
                os.setresuid(uid, uid, uid)
                os.write(writing, _try(kind, address, port).encode())
            finally:
                os._exit(0)
        os.waitpid(child, 0)

    inside(pin, attempt)
    os.close(writing)
    with os.fdopen(reading) as answer:
        return answer.read()


def _try(kind: str, address: str, port: int) -> str:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        try:
            sock.connect((address, port))
            if kind == "udp":
                sock.send(b"x")
        except BlockingIOError:
            # The refusal comes before connect(2) returns, since nothing has left the host.
            number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            return SENT if number == 0 else errno.errorcode[number]
        except OSError as error:
            return errno.errorcode[error.errno or 0]
        return SENT


def _left(recorder: Recorder, address: str) -> bool:
    """Whether an IP packet to an address went out."""
    wanted = ip_address(address).packed
    place = slice(30, 34) if len(wanted) == 4 else slice(38, 54)
    return any(name == "out" and frame[place] == wanted for name, frame in recorder.frames())


DENIED = [
    "10.0.0.1", "10.2.255.255", "100.64.0.1", "100.100.100.200", "127.0.0.1", "127.0.0.53", "168.63.129.16",
    "169.254.169.254", "172.16.0.1", "172.17.0.2", "192.0.0.192", "192.168.1.1", "198.18.0.1", "224.0.0.1",
    "240.0.0.1", "255.255.255.255", "0.0.0.0", OWN,  # noqa: S104
    "::1", "fd00:ec2::254", "fc00::1", "fe80::1", "ff02::1", "64:ff9b::a9fe:a9fe", "2002:a00:1::1", "2001::1",
    OWN_V6,
]  # fmt: skip


def test_workers_reach_the_internet_and_nothing_else() -> None:
    with host(uplink_rules.script(INSTANCE, UPLINK)) as pin, recorded(pin) as recorder:
        denied = {address: outcome(pin, "tcp", address, 443) for address in DENIED}
        for address in DENIED:
            assert denied[address] != SENT, address
            assert not _left(recorder, address), address
        for address in ("1.1.1.1", "203.0.113.80", "2606:4700::1111"):
            assert outcome(pin, "tcp", address, 443) == SENT, address
        assert _left(recorder, "1.1.1.1")


def test_a_refusal_is_told_at_once() -> None:
    with host(uplink_rules.script(INSTANCE, UPLINK)) as pin:
        assert outcome(pin, "tcp", "10.0.0.1", 443) in ("EHOSTUNREACH", "EACCES")
        assert outcome(pin, "tcp", "127.0.0.1", 443) in ("EHOSTUNREACH", "EACCES")


def test_what_the_operator_opened_is_open_and_only_so_far() -> None:
    with host(uplink_rules.script(INSTANCE, UPLINK)) as pin:
        opened = [
            ("udp", "127.0.0.53", 53),
            ("udp", "2001:db8:53::1", 53),
            ("udp", "10.0.0.53", 5353),
            ("tcp", "10.0.0.53", 5353),
            ("tcp", "10.9.9.9", 3128),
            ("tcp", "10.3.4.5", 8443),
            ("tcp", "fd12:3::1", 80),
        ]
        closed = [
            ("udp", "127.0.0.53", 54),
            ("tcp", "127.0.0.53", 80),
            ("udp", "1.1.1.1", 53),
            ("udp", "10.3.4.5", 53),
            ("tcp", "10.0.0.53", 53),
            ("udp", "10.9.9.9", 3128),
            ("tcp", "10.9.9.9", 3129),
            ("tcp", "10.9.9.8", 3128),
            ("tcp", "10.4.0.1", 443),
            ("udp", "2606:4700::1111", 443),
        ]
        assert [case for case in opened if outcome(pin, *case) not in (SENT, "ECONNREFUSED")] == []
        assert [case for case in closed if outcome(pin, *case) in (SENT, "ECONNREFUSED")] == []


def test_others_are_left_alone() -> None:
    with host(uplink_rules.script(INSTANCE, UPLINK)) as pin:
        for uid, gid in ((0, 0), (UID, egress_group(OTHER)), (UID + 1, GID)):
            assert outcome(pin, "tcp", "10.0.0.1", 443, uid=uid, gid=gid) == SENT
            assert outcome(pin, "udp", "1.1.1.1", 443, uid=uid, gid=gid) == SENT


def test_it_works_beside_rules_of_others_and_after_their_translation() -> None:
    with host(OTHERS_RULES + uplink_rules.script(INSTANCE, UPLINK)) as pin, recorded(pin) as recorder:
        assert outcome(pin, "tcp", "203.0.113.80", 8080) != SENT
        assert not _left(recorder, "172.17.0.2")
        assert outcome(pin, "tcp", "203.0.113.80", 443) == SENT
        assert outcome(pin, "tcp", "203.0.113.80", 8080, uid=0, gid=0) == SENT


def test_loading_again_replaces_it_and_removal_leaves_the_others() -> None:
    with host(OTHERS_RULES + uplink_rules.script(INSTANCE, UPLINK)) as pin:
        changed = Uplink(uid=UID, gid=GID, internal=uplink_rules.networks(["10.4.0.0/16"]))
        inside(pin, partial(nftables.load, uplink_rules.script(INSTANCE, changed)))
        assert outcome(pin, "tcp", "10.4.0.1", 443) == SENT
        assert outcome(pin, "tcp", "10.3.4.5", 443) != SENT
        others = Uplink(uid=UID, gid=egress_group(OTHER))
        inside(pin, partial(nftables.load, uplink_rules.script(OTHER, others)))
        for _ in range(2):
            inside(pin, partial(nftables.load, uplink_rules.removal(INSTANCE)))
        listed = inside(pin, partial(subprocess.check_output, ["nft", "-j", "list", "tables"]))
        names = {entry["table"]["name"] for entry in json.loads(listed)["nftables"] if "table" in entry}
        assert names == {"nat", "firewalld_like", uplink_rules.table_name(OTHER)}
        assert outcome(pin, "tcp", "10.0.0.1", 443) == SENT


async def test_a_flushed_rule_set_is_restored() -> None:
    with host("") as pin:
        restored = await asyncio.to_thread(inside, pin, lambda: asyncio.run(_flush_and_wait()))
    assert restored


async def _flush_and_wait() -> bool:
    """In a host's namespace: whether the table is there again after somebody has removed everything."""
    table = await UplinkTable.installed(INSTANCE, EgressSettings(), uid=UID, gid=GID)
    async with asyncio.TaskGroup() as group:
        keeping = group.create_task(table.keep())
        for _ in range(3):
            await asyncio.sleep(0)
            nftables.load("table inet others {}\ndelete table inet others\n")
            nftables.load("flush ruleset\n")
            await until(lambda: nftables.tables() == [uplink_rules.table_name(INSTANCE)])
        keeping.cancel()
    await table.remove()
    return nftables.tables() == []
