"""Two tokens with two owners, and every verb of the service: nobody sees or touches what is another's."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import msgspec
import pytest

from skerry.errors import Forbidden, InvalidRequest, NotFound, SandboxEnded
from skerry.policy.document import PolicyDocument
from skerry.service.outbound import Outbound
from skerry.service.policies import Policies
from skerry.service.requests import CreateRequest, Principal
from skerry.service.service import Service
from skerry.spec.ids import SandboxId
from skerry.spec.sandbox import EndReason
from tests.harness.fake_clock import START_MS, FakeClock
from tests.harness.scripted_host import ScriptedHost
from tests.harness.waiting import until
from tests.harness.world import ADMIN, ALICE, BOB, pool_filled, serving, settings

UNKNOWN = SandboxId("sbx_ord_00000000000000000000")
FAR_MS = START_MS + 10**10

Verb = Callable[[Service, Principal, str], Awaitable[object]]

VERBS: dict[str, Verb] = {
    "connect": lambda service, who, one: service.connect(who, one),
    "kill": lambda service, who, one: service.kill(who, one),
    "extend": lambda service, who, one: service.extend(who, one, FAR_MS),
    "get": lambda service, who, one: service.get(who, one),
    "agent": lambda service, who, one: service.agent(who, one),
    "outbound.explain": lambda service, who, one: service.outbound.explain(who, one, "https://a.example/"),
    "outbound.allow": lambda service, who, one: service.outbound.allow(who, one, "evil.example"),
    "outbound.audit": lambda service, who, one: service.outbound.audit(who, one),
    "outbound.secrets": lambda service, who, one: service.outbound.secrets(who, one),
    "outbound.rotate": lambda service, who, one: service.outbound.rotate(who, one, "KEY", "x" * 20),
    "outbound.revoke": lambda service, who, one: service.outbound.revoke(who, one, "KEY"),
}
"""Every verb that names a sandbox."""

OTHER_VERBS = {
    "authenticate",
    "create",
    "list",
    "create_token",
    "list_tokens",
    "revoke_token",
    "status",
    "in_use",
    "policies.set",
    "policies.get",
    "policies.list",
    "policies.delete",
}
NO_PRINCIPAL = {"ensure_first_token", "end_all"}
FOR_THE_SERVICE = {"policies.chosen", "policies.check_of_token"}
"""For the server itself; no adapter passes a client's request to them."""


@pytest.fixture
async def host() -> AsyncIterator[ScriptedHost]:
    made = ScriptedHost()
    yield made
    made.close()


@pytest.fixture
async def service(host: ScriptedHost, tmp_path: Path) -> AsyncIterator[Service]:
    async with serving(host, tmp_path, FakeClock()) as running:
        yield running


async def _running(service: Service) -> SandboxId:
    return (await service.create(ALICE, CreateRequest(labels={"whose": "alice"}))).sandbox_id


async def _stopped(service: Service) -> SandboxId:
    sandbox_id = await _running(service)
    await service.kill(ALICE, sandbox_id)
    return sandbox_id


def test_every_verb_is_looked_at_here() -> None:
    parts = (("", Service), ("outbound.", Outbound), ("policies.", Policies))
    verbs = {front + name for front, part in parts for name in vars(part) if not name.startswith("_")}
    assert verbs == VERBS.keys() | OTHER_VERBS | NO_PRINCIPAL | FOR_THE_SERVICE


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("stage", ["running", "stopped"])
@pytest.mark.parametrize("who", [BOB, ADMIN], ids=["another", "another admin"])
async def test_a_foreign_sandbox_looks_like_none(
    service: Service, host: ScriptedHost, verb: str, stage: str, who: Principal
) -> None:
    sandbox_id = await (_running(service) if stage == "running" else _stopped(service))
    before = await service.get(ALICE, sandbox_id)
    told = []
    for one in (sandbox_id, UNKNOWN, "", "nonsense", "sbx_ord_'; DROP TABLE sandboxes"):
        with pytest.raises(NotFound) as error:
            await VERBS[verb](service, who, one)
        told.append((error.value.code, error.value.message, error.value.detail))
    assert len(set(told)) == 1, "a foreign ID must answer exactly like an unknown one"
    assert await service.get(ALICE, sandbox_id) == before
    assert host.running() == ({sandbox_id} if stage == "running" else set())


async def test_a_foreign_sandbox_that_is_ending_looks_like_none(service: Service, host: ScriptedHost) -> None:
    sandbox_id = await _running(service)
    host.stalled["destroy"] = asyncio.Event()
    ending = asyncio.create_task(service.kill(ALICE, sandbox_id))
    await until(lambda: host.called["destroy"])
    for verb in VERBS.values():
        with pytest.raises(NotFound):
            await verb(service, BOB, sandbox_id)
    with pytest.raises(SandboxEnded):
        await service.connect(ALICE, sandbox_id)
    host.stalled["destroy"].set()
    await ending


@pytest.mark.parametrize("verb", VERBS)
async def test_a_pool_member_is_nobodys(tmp_path: Path, host: ScriptedHost, verb: str) -> None:
    clock = FakeClock()
    async with serving(host, tmp_path, clock, settings(pool=1)) as service:
        await pool_filled(service, clock, 1)
        (member,) = host.frozen()
        for who in (ALICE, ADMIN):
            with pytest.raises(NotFound):
                await VERBS[verb](service, who, member)
        assert host.frozen() == {member}


async def test_a_listing_shows_only_ones_own(service: Service) -> None:
    alices, stopped = await _running(service), await _stopped(service)
    bobs = (await service.create(BOB, CreateRequest())).sandbox_id
    assert {view.sandbox_id for view in await service.list(ALICE)} == {alices, stopped}
    assert {view.sandbox_id for view in await service.list(BOB)} == {bobs}
    assert await service.list(BOB, labels={"whose": "alice"}) == []
    assert await service.list(ADMIN) == []
    with pytest.raises(Forbidden):
        await service.list(BOB, all_owners=True)
    everybodys = {view.sandbox_id: view.owner for view in await service.list(ADMIN, all_owners=True)}
    assert everybodys == {alices: "alice", stopped: "alice", bobs: "bob"}


async def test_another_token_of_the_same_owner_has_the_same_rights(service: Service) -> None:
    mate = msgspec.structs.replace(ALICE, token_id=BOB.token_id)
    sandbox_id = await _running(service)
    assert not (await service.connect(mate, sandbox_id)).primary
    await service.kill(mate, sandbox_id)
    assert (await service.get(ALICE, sandbox_id)).end_reason is EndReason.KILLED


@pytest.mark.parametrize("scopes", [frozenset(), frozenset({"admin"})])
async def test_a_token_without_the_scope_may_do_nothing_with_sandboxes(
    service: Service, host: ScriptedHost, scopes: frozenset[str]
) -> None:
    sandbox_id = await _running(service)
    who = msgspec.structs.replace(ALICE, scopes=scopes)
    for verb in VERBS.values():
        with pytest.raises(Forbidden, match="sandbox"):
            await verb(service, who, sandbox_id)
    for asked in (service.create(who, CreateRequest()), service.list(who)):
        with pytest.raises(Forbidden):
            await asked
    assert host.running() == {sandbox_id}


PUBLIC = PolicyDocument(default="public")
DENY = PolicyDocument()


async def test_policies_are_seen_by_their_owner_and_set_by_admins_only(service: Service) -> None:
    policies = service.policies
    alices = (await policies.set(ADMIN, "base", DENY, owner="alice")).policy
    for who in (ALICE, BOB):
        for ask in (
            policies.set(who, "base", PUBLIC),
            policies.delete(who, "base"),
            policies.list(who, all_owners=True),
        ):
            with pytest.raises(Forbidden):
                await ask
    assert await policies.get(ALICE, "base") == alices
    assert await policies.list(ALICE) == [alices]
    assert await policies.list(BOB) == []
    with pytest.raises(NotFound) as foreign:
        await policies.get(BOB, "base")
    with pytest.raises(NotFound) as unknown:
        await policies.get(BOB, "never-was")
    assert (foreign.value.code, foreign.value.message) == (unknown.value.code, unknown.value.message)
    with pytest.raises(Forbidden):
        await policies.get(BOB, "base", owner="alice")
    with pytest.raises(InvalidRequest) as refused:
        await service.create(BOB, CreateRequest(labels={"policy": "base"}))
    assert "there are none yet" in refused.value.message
    shared = (await policies.set(ADMIN, "base", PUBLIC, shared=True)).policy
    assert (await policies.get(BOB, "base"), await policies.get(ALICE, "base")) == (shared, alices)
    assert shared.owner is None
