"""The gateway's network itself: slots, sockets, and what arrives there; namespaces stand for sandboxes."""

import asyncio
import secrets
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from skerry.errors import Conflict, NotFound, RuntimeFailed
from skerry.hostd.network.addresses import gateway_address, guest_address
from skerry.hostd.network.gateway import GatewaySockets
from skerry.hostd.network.sandbox_networks import SandboxNetworks
from skerry.hostd.places import Places
from skerry.hostd.sys import network_namespace, rtnetlink
from skerry.hostd.sys.netlink import ROUTE, Netlink
from skerry.spec.ids import SandboxId, new_instance_id
from tests.harness import private_mounts
from tests.harness.guest import new_id
from tests.harness.namespaces import inside, original_destination

pytestmark = pytest.mark.needs_root

WAIT_S = 10.0
TRACKED = Path("/proc/sys/net/netfilter/nf_conntrack_count")


@asynccontextmanager
async def opened(places: Places, *, keep: bool = False) -> AsyncIterator[SandboxNetworks]:
    networks = await SandboxNetworks.opened(places, max_connections=64)
    try:
        yield networks
    finally:
        await networks.close(keep=keep)


@pytest.fixture
def places() -> Iterator[Places]:
    private_mounts.enter()
    directory = Path(tempfile.mkdtemp(prefix="skerry-"))
    found = Places(directory, new_instance_id(secrets.randbelow))
    found.make()
    yield found
    network_namespace.remove(found.gateway)
    for pin in found.networks.iterdir():
        network_namespace.remove(pin)
    found.remove()
    shutil.rmtree(directory)


async def duplicates(networks: SandboxNetworks, sandbox_id: SandboxId) -> GatewaySockets:
    """What egressd has: its own descriptors of the same sockets."""
    sockets = await networks.sockets(sandbox_id)
    return GatewaySockets(sockets.tcp.dup(), sockets.udp.dup())


def connected(places: Places, sandbox_id: SandboxId, address: tuple[str, int]) -> socket.socket:
    """A connection that a sandbox makes."""
    return inside(places.network(sandbox_id), partial(socket.create_connection, address, timeout=WAIT_S))


def accepted(listener: socket.socket) -> socket.socket:
    """The next connection."""
    listener.settimeout(WAIT_S)
    try:
        return listener.accept()[0]
    finally:
        listener.setblocking(False)


async def test_connections_to_anywhere_arrive_and_say_where_they_were_going(places: Places) -> None:
    one = new_id()
    async with opened(places) as networks:
        await networks.make(one)
        sockets = await networks.sockets(one)
        seen = []
        for target in (("192.0.2.1", 443), ("169.254.169.254", 80), ("8.8.8.8", 53), ("198.18.0.1", 3128)):
            client = connected(places, one, target)
            server = accepted(sockets.tcp)
            seen.append((original_destination(server), server.getpeername()[0]))
            client.sendall(b"ping")
            server.settimeout(WAIT_S)
            assert server.recv(4) == b"ping"
            server.sendall(b"pong")
            assert client.recv(4) == b"pong"
            assert client.getpeername() == target
            client.close()
            server.close()
        await networks.remove(one)

    assert [address for address, _ in seen] == [
        ("192.0.2.1", 443), ("169.254.169.254", 80), ("8.8.8.8", 53), ("198.18.0.1", 3128),
    ]  # fmt: skip
    assert {source for _, source in seen} == {str(guest_address(0))}


async def test_questions_to_any_name_server_arrive_and_are_answered_in_its_name(places: Places) -> None:
    one = new_id()

    def ask(server: tuple[str, int]) -> socket.socket:
        asking = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        asking.settimeout(WAIT_S)
        asking.connect(server)
        asking.send(b"question")
        return asking

    async with opened(places) as networks:
        await networks.make(one)
        sockets = await networks.sockets(one)
        sockets.udp.setblocking(True)
        sockets.udp.settimeout(WAIT_S)
        for server in (("198.18.0.1", 53), ("8.8.8.8", 53), (str(gateway_address(0)), 53)):
            asking = inside(places.network(one), partial(ask, server))
            data, peer = sockets.udp.recvfrom(100)
            assert (data, peer[0]) == (b"question", str(guest_address(0)))
            sockets.udp.sendto(b"answer", peer)
            assert asking.recv(100) == b"answer"
            asking.close()
        await networks.remove(one)


async def test_without_sockets_connections_are_reset_at_once(places: Places) -> None:
    one = new_id()
    async with opened(places) as networks:
        await networks.make(one)
        with pytest.raises(ConnectionRefusedError):
            connected(places, one, ("192.0.2.1", 443))
        await networks.remove(one)


async def test_sandboxes_are_found_again_and_their_sockets_made_anew(places: Places) -> None:
    kept, ended = new_id(), new_id()
    async with opened(places, keep=True) as networks:
        await networks.make(ended)
        await networks.make(kept)
        await networks.remove(ended)
        await networks.sockets(kept)
    async with opened(places) as networks:
        assert networks.present() == [kept, kept]  # its slot and its namespace
        sockets = await networks.sockets(kept)
        client = connected(places, kept, ("192.0.2.1", 443))
        server = accepted(sockets.tcp)
        assert original_destination(server) == ("192.0.2.1", 443)
        client.close()
        server.close()
        with pytest.raises(NotFound):
            await networks.sockets(ended)
        await networks.remove(kept)
        assert networks.present() == []


async def test_who_outlives_hostd_keeps_the_sockets_and_nobody_gets_others_meanwhile(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("skerry.hostd.network.sandbox_networks.HELD_S", 0.1)
    one = new_id()
    async with opened(places, keep=True) as networks:
        await networks.make(one)
        held = await duplicates(networks, one)
    async with opened(places) as networks:
        with pytest.raises(Conflict) as refused:
            await networks.sockets(one)
        assert refused.value.code == "GATEWAY_HELD"
        client = connected(places, one, ("192.0.2.1", 443))
        server = accepted(held.tcp)
        held.close()

        # A connection that goes on is no obstacle.
        again = await networks.sockets(one)
        client.sendall(b"still")
        server.settimeout(WAIT_S)
        assert server.recv(5) == b"still"
        other = connected(places, one, ("192.0.2.2", 443))
        newer = accepted(again.tcp)
        assert original_destination(newer) == ("192.0.2.2", 443)
        for sock in (client, server, other, newer):
            sock.close()
        await networks.remove(one)


async def test_old_sockets_get_nothing_of_the_next_sandbox_in_a_slot(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("skerry.hostd.network.slots.SLOTS", 1)
    first, second = new_id(), new_id()
    async with opened(places) as networks:
        await networks.make(first)
        old = await duplicates(networks, first)
        await networks.remove(first)

        await networks.make(second)
        new = await networks.sockets(second)
        client = connected(places, second, ("192.0.2.1", 443))
        server = accepted(new.tcp)
        with pytest.raises(BlockingIOError):
            old.tcp.accept()
        for sock in (client, server, old):
            sock.close()
        await networks.remove(second)


async def test_open_connections_of_an_ended_sandbox_do_not_count_for_the_next(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("skerry.hostd.network.slots.SLOTS", 1)
    first, second = new_id(), new_id()
    async with opened(places) as networks:
        for one in (first, second):
            await networks.make(one)
            sockets = await duplicates(networks, one)
            ends = []
            for number in range(60):
                target = (f"192.0.2.{number + 1}", 443)
                ends.append(connected(places, one, target))
                ends.append(accepted(sockets.tcp))
            await networks.remove(one)
            for end in ends:
                end.close()
            sockets.close()
            assert inside(places.gateway, TRACKED.read_text).strip() == "0"


async def test_more_connections_than_one_may_have_are_reset(places: Places) -> None:
    one, other = new_id(), new_id()
    async with opened(places) as networks:
        await networks.make(one)
        await networks.make(other)
        listeners = [(await networks.sockets(sandbox_id)).tcp for sandbox_id in (one, other)]
        held, refused = [], 0
        for number in range(100):
            try:
                held.append(connected(places, one, (f"192.0.2.{number + 1}", 80)))
            except ConnectionRefusedError:
                refused += 1
        assert (len(held), refused) == (80, 20)
        neighbour = connected(places, other, ("192.0.2.1", 80))
        server = accepted(listeners[1])
        for sock in (*held, neighbour, server):
            sock.close()
        await networks.remove(one)
        await networks.remove(other)


async def test_what_an_interrupted_start_left_is_removed(places: Places) -> None:
    one = new_id()
    async with opened(places, keep=True) as networks:
        await networks.make(one)
        # As if hostd had been killed before the alias was written.
        inside(places.gateway, lambda: _remove_alias("g0"))
    network_namespace.remove(places.network(one))
    async with opened(places) as networks:
        assert networks.present() == []
        names = inside(places.gateway, lambda: [name for _, name in socket.if_nameindex()])
    assert names == ["lo"]


def _remove_alias(interface: str) -> None:
    netlink = Netlink(ROUTE)
    netlink.ask(rtnetlink.set_alias(rtnetlink.index_of(netlink, interface), ""))
    netlink.close()


async def test_making_is_refused_where_something_is_in_the_way_and_can_be_undone(places: Places) -> None:
    one = new_id()
    async with opened(places) as networks:
        places.network(one).touch()
        with pytest.raises(RuntimeFailed):
            await networks.make(one)
        await networks.remove(one)
        await networks.make(one)
        await networks.remove(one)
        assert networks.present() == []


async def test_a_start_that_is_cancelled_can_be_undone(places: Places) -> None:
    one = new_id()
    async with opened(places) as networks:
        for _ in range(20):
            making = asyncio.get_running_loop().create_task(networks.make(one))
            await asyncio.sleep(0)
            making.cancel()
            await asyncio.wait([making])
            await networks.remove(one)
        assert networks.present() == []
        assert inside(places.gateway, lambda: [name for _, name in socket.if_nameindex()]) == ["lo"]


async def test_sandboxes_start_and_end_at_once(places: Places) -> None:
    ids = [new_id() for _ in range(40)]
    async with opened(places) as networks:
        await asyncio.gather(*map(networks.make, ids))
        assert sorted(set(networks.present())) == sorted(ids)
        await asyncio.gather(*map(networks.remove, ids))
        assert networks.present() == []
