"""What is stored of named policies, and when one may be deleted."""

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from skerry.control.store.database import Database
from skerry.control.store.policies import PolicyStore
from skerry.control.store.records import SHARED, EgressIntent, PolicyRef, Quotas, SecretIntent
from skerry.control.store.sandboxes import SandboxStore
from skerry.control.store.tokens import TokenStore
from skerry.errors import Conflict, InvalidRequest, NotFound, ResourceExhausted
from skerry.lifecycle.events import Stage
from skerry.policy.document import AllowRule, PolicyDocument, SecretRule
from skerry.spec.ids import OwnerId, SandboxId, TokenId
from tests.unit.control.store.test_stores import PLENTY, given, record, token

ALICE, BOB = OwnerId("alice"), OwnerId("bob")
MINE, THEIRS = PolicyRef(ALICE, "base"), PolicyRef(SHARED, "base")
DOCUMENT = PolicyDocument(allow=(AllowRule(host="a.example", ports=(443,)),))
OTHER = PolicyDocument(default="public")


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    opened = Database.open(tmp_path / "skerry.db")
    yield opened
    await opened.close()


@pytest.fixture
def policies(database: Database) -> PolicyStore:
    return PolicyStore(database)


def going_by(ref: PolicyRef | None) -> EgressIntent:
    secret = SecretIntent(SecretRule(name="K", hosts=("a.example",)), "PLACEHOLDER")
    return EgressIntent(layer=PolicyDocument(default="public"), secrets=(secret,), policy=ref)


async def test_a_policy_comes_back_as_it_went_in_and_counts_its_versions(policies: PolicyStore) -> None:
    assert await policies.get(MINE) is None
    first = await policies.put(MINE, DOCUMENT, now_ms=5)
    assert (first.version, first.document, first.updated_at_ms) == (1, DOCUMENT, 5)
    assert await policies.get(MINE) == first
    second = await policies.put(MINE, OTHER, now_ms=6)
    assert (second.version, await policies.get(MINE)) == (2, second)


async def test_one_s_own_comes_before_the_shared_one(policies: PolicyStore) -> None:
    shared = await policies.put(THEIRS, OTHER, now_ms=1)
    assert await policies.find(ALICE, "base") == shared
    mine = await policies.put(MINE, DOCUMENT, now_ms=1)
    assert await policies.find(ALICE, "base") == mine
    assert await policies.find(BOB, "base") == shared
    assert await policies.of_owner(BOB) == [shared]
    assert await policies.of_owner(ALICE) == [shared, mine]
    assert await policies.of_owner(None) == [shared, mine]


async def test_an_owner_has_a_bounded_number(policies: PolicyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skerry.control.store.policies.MAX_POLICIES", 1)
    await policies.put(MINE, DOCUMENT, now_ms=1)
    await policies.put(MINE, OTHER, now_ms=1)
    await policies.put(PolicyRef(BOB, "base"), DOCUMENT, now_ms=1)
    with pytest.raises(ResourceExhausted, match="limit"):
        await policies.put(PolicyRef(ALICE, "second"), DOCUMENT, now_ms=1)


async def test_a_policy_that_a_sandbox_goes_by_is_kept(database: Database, policies: PolicyStore) -> None:
    sandboxes = SandboxStore(database)
    await policies.put(MINE, DOCUMENT, now_ms=1)
    await policies.put(THEIRS, DOCUMENT, now_ms=1)
    one = record(1, egress=going_by(MINE))
    await sandboxes.insert(one, PLENTY)
    assert await sandboxes.get(one.sandbox_id) == one
    with pytest.raises(Conflict, match="1 running"):
        await policies.delete(MINE)
    await policies.delete(THEIRS)
    await sandboxes.save(msgspec.structs.replace(one, stage=Stage.STOPPED, stopped_at_ms=1))
    await policies.delete(MINE)
    with pytest.raises(NotFound):
        await policies.delete(MINE)


async def test_a_policy_that_a_token_names_is_kept(database: Database, policies: PolicyStore) -> None:
    tokens = TokenStore(database)
    await policies.put(THEIRS, DOCUMENT, now_ms=1)
    await tokens.insert(token(1, owner=ALICE, policy="base"))
    with pytest.raises(Conflict, match="tok"):
        await policies.delete(THEIRS)
    await policies.put(MINE, DOCUMENT, now_ms=1)
    await policies.delete(THEIRS)
    with pytest.raises(Conflict, match="tok"):
        await policies.delete(MINE)
    await tokens.revoke(TokenId("tok_1"), now_ms=1)
    await policies.delete(MINE)


async def test_nothing_begins_to_go_by_a_policy_that_was_deleted(database: Database) -> None:
    sandboxes = SandboxStore(database)
    with pytest.raises(InvalidRequest, match="deleted"):
        await sandboxes.insert(record(1, egress=going_by(MINE)), PLENTY)
    await sandboxes.insert(record(2, None, Stage.POOLED), None)
    with pytest.raises(InvalidRequest, match="deleted"):
        await sandboxes.claim(
            SandboxId(f"sbx_ord_{2:020}"),
            msgspec.structs.replace(given(), egress=going_by(MINE)),
            Quotas(server=9, owner=9),
        )
    assert [one.stage for one in await sandboxes.active()] == [Stage.POOLED]


async def test_a_claim_records_what_may_be_reached_and_a_change_replaces_it(database: Database) -> None:
    sandboxes = SandboxStore(database)
    await sandboxes.insert(record(2, None, Stage.POOLED), None)
    one = SandboxId(f"sbx_ord_{2:020}")
    await sandboxes.claim(one, msgspec.structs.replace(given(), egress=going_by(None)), PLENTY)
    found = await sandboxes.get(one)
    assert found is not None
    assert found.egress == going_by(None)
    changed = EgressIntent(layer=DOCUMENT)
    await sandboxes.save_egress(one, changed)
    await sandboxes.save(found)
    again = await sandboxes.get(one)
    assert again is not None
    assert again.egress == changed
