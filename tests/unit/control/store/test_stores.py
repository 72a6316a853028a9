"""What is stored of sandboxes and tokens."""

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from skerry.control.store.database import Database
from skerry.control.store.records import Given, Quotas, SandboxRecord, TokenRecord
from skerry.control.store.sandboxes import SandboxStore
from skerry.control.store.tokens import TokenStore
from skerry.errors import Conflict, NotFound, ResourceExhausted, RuntimeFailed
from skerry.lifecycle.events import Stage
from skerry.spec.ids import OwnerId, SandboxId, TokenId
from skerry.spec.sandbox import EndReason, Isolation

ALICE, BOB = OwnerId("alice"), OwnerId("bob")
TOKEN, OTHER = TokenId("tok_1"), TokenId("tok_2")
PLENTY = Quotas(server=100, owner=100)


def record(
    number: int, owner: OwnerId | None = ALICE, stage: Stage = Stage.RUNNING, **changes: object
) -> SandboxRecord:
    made = SandboxRecord(
        sandbox_id=SandboxId(f"sbx_ord_{number:020}"),
        owner=owner,
        token_id=TOKEN if owner else None,
        stage=stage,
        boot_id="boot",
        isolation=Isolation.FAKE,
        image="builtin:debian-13",
        image_digest="sha256:0",
        memory_mib=1280,
        cpus=0.5,
        disk_mib=1024,
        max_processes=100,
        session=True,
        stop_at_ms=None,
        labels={"k": "ü"},
        created_at_ms=number,
    )
    return msgspec.structs.replace(made, **changes)


def given(owner: OwnerId = ALICE, token_id: TokenId = TOKEN) -> Given:
    return Given(
        owner=owner, token_id=token_id, session=False, stop_at_ms=77, labels={"a": "b"}, created_at_ms=5
    )


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    opened = Database.open(tmp_path / "skerry.db")
    yield opened
    await opened.close()


@pytest.fixture
def store(database: Database) -> SandboxStore:
    return SandboxStore(database)


async def test_a_record_comes_back_as_it_went_in(store: SandboxStore) -> None:
    full = record(
        1, stop_at_ms=1 << 45, stopped_at_ms=3, end_reason=EndReason.EXITED, exit_code=7, stage=Stage.STOPPED
    )
    for one in (full, record(2, None, Stage.POOLED)):
        await store.insert(one, None)
        assert await store.get(one.sandbox_id) == one
    assert await store.get(SandboxId("sbx_ord_" + "z" * 20)) is None


async def test_saving_writes_how_a_life_went(store: SandboxStore) -> None:
    before = record(1)
    await store.insert(before, None)
    after = msgspec.structs.replace(
        before,
        stage=Stage.STOPPED,
        stop_at_ms=9,
        stopped_at_ms=8,
        end_reason=EndReason.CRASHED,
        exit_code=139,
    )
    await store.save(after)
    assert await store.get(before.sandbox_id) == after


async def test_a_claim_turns_a_pool_member_into_a_clients_sandbox(store: SandboxStore) -> None:
    member = record(1, None, Stage.POOLED)
    await store.insert(member, None)
    await store.claim(member.sandbox_id, given(), PLENTY)
    claimed = await store.get(member.sandbox_id)
    assert claimed == msgspec.structs.replace(
        member,
        owner=ALICE,
        token_id=TOKEN,
        stage=Stage.RUNNING,
        session=False,
        stop_at_ms=77,
        labels={"a": "b"},
        created_at_ms=5,
    )


@pytest.mark.parametrize("stage", [Stage.STARTING, Stage.RUNNING, Stage.ENDING, Stage.STOPPED])
async def test_only_a_pool_member_can_be_claimed(store: SandboxStore, stage: Stage) -> None:
    await store.insert(record(1, stage=stage), None)
    with pytest.raises(Conflict):
        await store.claim(record(1).sandbox_id, given(BOB), PLENTY)
    kept = await store.get(record(1).sandbox_id)
    assert kept is not None
    assert kept.owner == ALICE


@pytest.mark.parametrize(
    ("quotas", "word"),
    [
        (Quotas(server=3, owner=100), "server"),
        (Quotas(server=100, owner=2), "owner"),
        (Quotas(server=100, owner=100, token=1), "token"),
    ],
)
async def test_quotas_of_server_owner_and_token(store: SandboxStore, quotas: Quotas, word: str) -> None:
    for one in (record(1), record(2, token_id=OTHER), record(3, BOB, token_id=TokenId("tok_3"))):
        await store.insert(one, None)
    member = record(9, None, Stage.POOLED)
    await store.insert(member, None)
    with pytest.raises(ResourceExhausted, match=f"of this {word} are running, and the limit is"):
        await store.insert(record(4, stage=Stage.STARTING), quotas)
    with pytest.raises(ResourceExhausted, match=f"of this {word}"):
        await store.claim(member.sandbox_id, given(), quotas)
    assert await store.get(record(4).sandbox_id) is None
    assert await store.get(member.sandbox_id) == member


async def test_what_does_not_run_for_anybody_takes_no_quota(store: SandboxStore) -> None:
    await store.insert(record(1, stage=Stage.STOPPED), None)
    await store.insert(record(2, stage=Stage.ENDING), None)
    await store.insert(record(3, None, Stage.POOLED), None)
    await store.insert(record(4, None, Stage.STARTING), None)
    await store.insert(record(5, stage=Stage.STARTING), Quotas(server=1, owner=1, token=1))
    with pytest.raises(ResourceExhausted, match="1 sandboxes of this token"):
        await store.insert(record(6, stage=Stage.STARTING), Quotas(server=1, owner=1, token=1))


async def test_a_listing_is_newest_first_and_knows_its_owner(store: SandboxStore) -> None:
    for number, owner in ((1, ALICE), (3, BOB), (2, ALICE), (4, None)):
        await store.insert(record(number, owner, Stage.RUNNING if owner else Stage.POOLED), None)
    assert [one.created_at_ms for one in await store.of_owner(ALICE)] == [2, 1]
    assert [one.created_at_ms for one in await store.of_owner(None)] == [3, 2, 1]


async def test_active_ones_include_the_pool_but_nothing_that_stopped(store: SandboxStore) -> None:
    stages = dict(enumerate(Stage))
    for number, stage in stages.items():
        await store.insert(record(number, stage=stage), None)
    assert {one.stage for one in await store.active()} == set(Stage) - {Stage.STOPPED}


async def test_stopped_ones_are_forgotten_by_age_and_number(store: SandboxStore) -> None:
    for number in range(6):
        await store.insert(record(number, stage=Stage.STOPPED, stopped_at_ms=number), None)
    await store.insert(record(9), None)
    await store.prune(before_ms=1, keep=3)
    assert [one.created_at_ms for one in await store.of_owner(ALICE)] == [9, 5, 4, 3]
    await store.prune(before_ms=5, keep=3)
    assert [one.created_at_ms for one in await store.of_owner(ALICE)] == [9, 5]


async def test_an_id_is_used_once(store: SandboxStore) -> None:
    await store.insert(record(1), None)
    with pytest.raises(RuntimeFailed):
        await store.insert(record(1, BOB), None)


def token(number: int, **changes: object) -> TokenRecord:
    made = TokenRecord(
        token_id=TokenId(f"tok_{number}"),
        sha256=f"{number:064}",
        owner=ALICE,
        name="ci",
        scopes=("sandbox", "admin"),
        created_at_ms=number,
        expires_at_ms=None,
        revoked_at_ms=None,
        max_running=5,
    )
    return msgspec.structs.replace(made, **changes)


async def test_tokens_are_found_by_their_hash_only(database: Database) -> None:
    tokens = TokenStore(database)
    await tokens.insert(token(1))
    await tokens.insert(token(2, expires_at_ms=99, max_running=None))
    assert await tokens.by_hash(token(1).sha256) == token(1)
    assert await tokens.by_hash("tok_1") is None
    assert await tokens.all() == [token(2, expires_at_ms=99, max_running=None), token(1)]


async def test_revoking_is_final_and_keeps_its_first_time(database: Database) -> None:
    tokens = TokenStore(database)
    await tokens.insert(token(1))
    await tokens.revoke(TokenId("tok_1"), now_ms=50)
    await tokens.revoke(TokenId("tok_1"), now_ms=60)
    assert await tokens.by_hash(token(1).sha256) == token(1, revoked_at_ms=50)
    with pytest.raises(NotFound):
        await tokens.revoke(TokenId("tok_7"), now_ms=50)


async def test_the_first_token_is_made_once(database: Database) -> None:
    tokens = TokenStore(database)
    assert await tokens.insert_first(token(1))
    assert not await tokens.insert_first(token(2))
    assert await tokens.all() == [token(1)]


async def test_the_number_of_tokens_is_bounded(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skerry.control.store.tokens.MAX_TOKENS", 1)
    tokens = TokenStore(database)
    await tokens.insert(token(1))
    with pytest.raises(ResourceExhausted):
        await tokens.insert(token(2))
