"""egressd for real, one for all these tests: workers that start at the first packet, crash, misbehave, and
what they can see. They are stand-ins that do what they are told.
"""

import asyncio
import os
import secrets
import signal
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from skerry.control.egress_client import EgressdClient
from skerry.daemon.data_dir import EGRESS_USER, account
from skerry.policy.document import AllowRule
from skerry.protocol.egress_verbs import SandboxEgress
from skerry.spec.ids import SandboxId, egress_group, new_sandbox_id
from tests.harness.egress_ground import VALUE, grant, secret
from tests.harness.egressd_process import EgressdProcess, children_of, client_of, egressd
from tests.harness.waiting import until

pytestmark = [
    pytest.mark.needs_root,
    pytest.mark.timeout(120),
    pytest.mark.asyncio(loop_scope="module"),
]

NEW_VALUE = b"the-value-after-a-rotation-0123"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def process() -> AsyncIterator[EgressdProcess]:
    async with egressd() as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def egress(process: EgressdProcess) -> AsyncIterator[EgressdClient]:
    async with client_of(process) as client:
        yield client


@pytest_asyncio.fixture(loop_scope="module")
async def box(process: EgressdProcess, egress: EgressdClient) -> AsyncIterator[SandboxId]:
    """A sandbox that hostd knows; nothing of it is left afterwards."""
    made = new_sandbox_id("ord", secrets.randbelow)
    process.gateways.known.add(made)
    yield made
    await egress.release(made)
    assert children_of(process.zygote) == []


async def view(egress: EgressdClient, sandbox_id: SandboxId) -> SandboxEgress:
    (found,) = [one for one in (await egress.describe()).sandboxes if one.sandbox_id == sandbox_id]
    return found


async def test_the_first_packet_starts_the_worker(
    process: EgressdProcess, egress: EgressdClient, box: SandboxId
) -> None:
    made = await egress.grant(grant(secret(), sandbox_id=box))
    assert (await view(egress, box)).worker_pid is None
    assert children_of(process.zygote) == []
    rules = await process.tell("rules", box)
    assert rules["secrets"] == {"KEY": [VALUE.decode(), "active", 0]}
    assert rules["layers"] == ["operator", "sandbox"]
    assert rules["authority"] == made.certificate_pem
    assert rules["settings"]["resolvers"] == ["192.0.2.53:53"]
    assert "127.0.0.1" in rules["own"]["addresses"]
    assert children_of(process.zygote) == [rules["pid"]]
    assert (await view(egress, box)).worker_pid == rules["pid"]
    peer = process.gateways.peers[-1]
    assert peer == (process.pid, account(EGRESS_USER).pw_uid, egress_group(process.instance))


async def test_a_dns_query_starts_it_too(
    process: EgressdProcess, egress: EgressdClient, box: SandboxId
) -> None:
    await egress.grant(grant(sandbox_id=box))
    address = process.gateways.hostd.of(box).udp.getsockname()
    loop = asyncio.get_running_loop()
    answered: asyncio.Future[bytes] = loop.create_future()

    class Asker(asyncio.DatagramProtocol):
        def datagram_received(self, data: bytes, addr: object) -> None:
            answered.set_result(data)

    transport, _ = await loop.create_datagram_endpoint(Asker, remote_addr=address)
    transport.sendto(b"query")
    async with asyncio.timeout(15):
        assert await answered == b"answer"
    transport.close()


async def test_workers_have_given_up_everything(
    process: EgressdProcess, egress: EgressdClient, box: SandboxId
) -> None:
    await egress.grant(grant(secret(), sandbox_id=box))
    facts = await process.tell("facts", box)
    uid, gid = str(account(EGRESS_USER).pw_uid), str(egress_group(process.instance))
    status = facts["status"]
    assert status["Uid"] == [uid] * 4
    assert status["Gid"] == [gid] * 4
    assert status["Groups"] == []
    assert status["NoNewPrivs"] == ["1"]
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert status[name] == ["0" * 16]
    # Besides the three: the stub's own selector, the connection, and the directory that is listed.
    assert len(facts["fds"]) <= 9
    assert set(facts["environment"]) <= {"PATH", "LANG", "LC_ALL", "TZ"}
    for attempt in ("broker's descriptors", "broker's memory", "root again"):
        assert facts[attempt], attempt
    for pid in (process.pid, process.zygote, *children_of(process.zygote)):
        assert os.stat(f"/proc/{pid}/mem").st_uid == 0, "it is dumpable"


async def test_no_secret_is_seen_from_outside(
    process: EgressdProcess, egress: EgressdClient, box: SandboxId
) -> None:
    made = await egress.grant(grant(secret(), sandbox_id=box))
    await process.tell("rules", box)
    assert await process.tell("raise quoting", box) is None
    await until(lambda: b"worker failed: ValueError" in process.printed)
    await egress.rotate(box, "KEY", NEW_VALUE)
    await process.tell("line text", box)
    seen = process.printed + await asyncio.to_thread(process.visible)
    seen += repr(made).encode() + repr(await egress.secrets(box)).encode()
    for value in (VALUE, NEW_VALUE, b"PRIVATE KEY"):
        assert value not in seen
    assert made.placeholders["KEY"].encode() not in process.printed


async def test_a_worker_that_crashed_is_back_at_the_next_packet(
    process: EgressdProcess, egress: EgressdClient, box: SandboxId
) -> None:
    await egress.grant(grant(secret(), sandbox_id=box))
    first = await process.tell("rules", box)
    await process.tell("line one", box)
    os.kill(first["pid"], signal.SIGKILL)
    second = await process.tell("rules", box)
    assert second["pid"] != first["pid"]
    assert second["secrets"] == first["secrets"]
    assert (first["next_seq"], second["next_seq"]) == (1, 2)
    assert await process.tell("crash", box) is None
    assert (await process.tell("rules", box))["next_seq"] == 2
    assert b"worker_crashed" in process.printed


async def test_changes_are_in_force_when_they_are_answered(
    process: EgressdProcess, egress: EgressdClient, box: SandboxId
) -> None:
    await egress.grant(grant(secret(), sandbox_id=box))
    assert (await process.tell("rules", box))["version"] == 1
    version = await egress.allow_host(box, AllowRule(host="more.example.com"))
    assert (await process.tell("rules", box))["version"] == version.version == 2
    await egress.rotate(box, "KEY", NEW_VALUE)
    assert (await process.tell("rules", box))["secrets"]["KEY"] == [NEW_VALUE.decode(), "active", 0]
    await egress.revoke(box, "KEY")
    assert (await process.tell("rules", box))["secrets"]["KEY"] == [None, "revoked", 0]


async def test_a_worker_that_will_not_hear_is_ended(
    process: EgressdProcess, egress: EgressdClient, box: SandboxId
) -> None:
    await egress.grant(grant(secret(), sandbox_id=box))
    deaf = await process.tell("rules", box)
    await process.tell("deaf", box)
    await egress.revoke(box, "KEY")
    after = await process.tell("rules", box)
    assert after["pid"] != deaf["pid"]
    assert after["secrets"]["KEY"] == [None, "revoked", 0]
    await process.tell("deaf", box)
    await egress.release(box)
    assert children_of(process.zygote) == []


@pytest.mark.parametrize("how", ["garbage", "cut NO_SUCH"])
async def test_a_worker_that_breaks_the_rules_is_ended(
    process: EgressdProcess, egress: EgressdClient, box: SandboxId, how: str
) -> None:
    await egress.grant(grant(secret(), sandbox_id=box))
    first = await process.tell("rules", box)
    await process.tell(how, box)
    await until(lambda: first["pid"] not in children_of(process.zygote))
    assert (await process.tell("rules", box))["pid"] != first["pid"]


async def test_two_sandboxes_have_two_workers_that_know_nothing_of_each_other(
    process: EgressdProcess, egress: EgressdClient, box: SandboxId
) -> None:
    other = new_sandbox_id("ord", secrets.randbelow)
    process.gateways.known.add(other)
    await egress.grant(grant(secret("MINE"), sandbox_id=box))
    await egress.grant(grant(secret("YOURS", NEW_VALUE), sandbox_id=other))
    mine, yours = await process.tell("rules", box), await process.tell("rules", other)
    assert mine["pid"] != yours["pid"]
    assert (list(mine["secrets"]), list(yours["secrets"])) == (["MINE"], ["YOURS"])
    assert mine["authority"] != yours["authority"]
    os.kill(mine["pid"], signal.SIGKILL)
    assert (await process.tell("rules", other))["pid"] == yours["pid"]
    await egress.release(other)
