"""Tokens: minting, verification, revocation, expiry, scopes."""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from skerry.control.store.database import Database
from skerry.control.store.tokens import TokenStore
from skerry.errors import Forbidden, InvalidRequest, NotFound, Unauthenticated
from skerry.service import tokens as tokens_module
from skerry.service.requests import Principal
from skerry.service.service import Service
from skerry.service.tokens import Tokens
from skerry.spec.ids import OwnerId, TokenId
from tests.harness.fake_clock import FakeClock
from tests.harness.scripted_host import ScriptedHost
from tests.harness.world import ADMIN, ALICE, serving


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def tokens(tmp_path: Path, clock: FakeClock) -> AsyncIterator[Tokens]:
    database = Database.open(tmp_path / "skerry.db")
    yield Tokens(TokenStore(database), clock)
    await database.close()


@pytest.fixture
async def service(tmp_path: Path, clock: FakeClock) -> AsyncIterator[Service]:
    host = ScriptedHost()
    async with serving(host, tmp_path, clock) as running:
        yield running
    host.close()


async def _made(tokens: Tokens, **changes: object) -> tuple[TokenId, str]:
    wanted = {"name": "ci", "owner": None, "scopes": ("sandbox",), "expires_in_s": None, "max_running": None}
    view, value = await tokens.create(ADMIN, **(wanted | changes))  # type: ignore[arg-type]
    return view.token_id, value


async def test_a_token_has_the_form_that_the_sdks_want_and_no_two_are_alike(tokens: Tokens) -> None:
    values = {(await _made(tokens))[1] for _ in range(20)}
    assert len(values) == 20
    assert all(re.fullmatch(r"ddo_[0-9a-hjkmnp-z]{40}", value) for value in values)


async def test_a_token_says_who_its_holder_is(tokens: Tokens) -> None:
    token_id, value = await _made(tokens, owner="team-a", scopes=("admin", "sandbox"), max_running=3)
    for _ in range(2):
        assert await tokens.authenticate(value) == Principal(
            token_id=token_id,
            owner=OwnerId("team-a"),
            scopes=frozenset({"sandbox", "admin"}),
            max_running=3,
        )


async def test_an_owner_is_inherited_if_none_is_named(tokens: Tokens) -> None:
    _, value = await _made(tokens)
    assert (await tokens.authenticate(value)).owner == ADMIN.owner


@pytest.mark.parametrize(
    ("bearer", "code"),
    [
        (None, "NOT_AUTHENTICATED"),
        ("", "NOT_AUTHENTICATED"),
        ("ddo_wrong", "INVALID_TOKEN"),
        ("x" * 100_000, "INVALID_TOKEN"),
        ("\ud800", "INVALID_TOKEN"),
        ("ddo_\0", "INVALID_TOKEN"),
    ],
)
async def test_what_is_no_token(tokens: Tokens, bearer: str | None, code: str) -> None:
    with pytest.raises(Unauthenticated) as error:
        await tokens.authenticate(bearer)
    assert error.value.code == code


async def test_the_file_holds_no_token(tokens: Tokens, tmp_path: Path) -> None:
    _, value = await _made(tokens)
    written = b"".join((tmp_path / name).read_bytes() for name in ("skerry.db", "skerry.db-wal"))
    assert b"ci" in written
    assert value.encode() not in written
    assert value.removeprefix("ddo_").encode() not in written


async def test_revoking_holds_at_once_although_the_token_was_verified_before(tokens: Tokens) -> None:
    token_id, value = await _made(tokens)
    await tokens.authenticate(value)
    await tokens.revoke(token_id)
    with pytest.raises(Unauthenticated) as error:
        await tokens.authenticate(value)
    assert error.value.code == "INVALID_TOKEN"
    await tokens.revoke(token_id)


async def test_a_token_that_is_revoked_while_it_is_being_verified_is_not_remembered(
    tokens: Tokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    token_id, value = await _made(tokens)
    read, go_on = asyncio.Event(), asyncio.Event()
    by_hash = TokenStore.by_hash

    async def slow(store: TokenStore, sha256: str) -> object:
        found = await by_hash(store, sha256)
        read.set()
        await go_on.wait()
        return found

    monkeypatch.setattr(TokenStore, "by_hash", slow)
    verifying = asyncio.create_task(tokens.authenticate(value))
    await read.wait()
    await tokens.revoke(token_id)
    go_on.set()
    await verifying
    with pytest.raises(Unauthenticated):
        await tokens.authenticate(value)


async def test_expiry_holds_although_the_token_was_verified_before(tokens: Tokens, clock: FakeClock) -> None:
    _, value = await _made(tokens, expires_in_s=60)
    await clock.advance(59)
    await tokens.authenticate(value)
    await clock.advance(1)
    with pytest.raises(Unauthenticated) as error:
        await tokens.authenticate(value)
    assert error.value.code == "TOKEN_EXPIRED"


async def test_the_memory_of_verified_tokens_is_bounded(
    tokens: Tokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens_module, "MAX_CACHED", 2)
    values = [(await _made(tokens))[1] for _ in range(5)]
    for value in (*values, *values):
        await tokens.authenticate(value)
    assert len(tokens._cache) == 2


async def test_the_first_token_may_do_everything_and_is_made_once(service: Service) -> None:
    value = await service.ensure_first_token()
    assert value is not None
    who = await service.authenticate(value)
    assert who.scopes == {"sandbox", "admin"}
    assert await service.ensure_first_token() is None
    (view,) = await service.list_tokens(who)
    assert (view.owner, view.revoked_at_ms) == (who.owner, None)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": ""}, ["name"]),
        ({"name": "a\nb"}, ["name"]),
        ({"name": "ü" * 65}, ["name"]),
        ({"owner": ""}, ["owner"]),
        ({"owner": "a b"}, ["owner"]),
        ({"owner": "a" * 65}, ["owner"]),
        ({"scopes": ()}, ["scopes"]),
        ({"scopes": ("root",)}, ["scopes"]),
        ({"scopes": ("admin", "admin")}, ["scopes"]),
        ({"expires_in_s": 0}, ["expires_in_s"]),
        ({"expires_in_s": 10**12}, ["expires_in_s"]),
        ({"max_running": 0}, ["max_running"]),
        ({"name": "", "owner": "/", "max_running": -1}, ["name", "owner", "max_running"]),
    ],
)
async def test_what_a_token_cannot_be(tokens: Tokens, changes: dict[str, object], words: list[str]) -> None:
    with pytest.raises(InvalidRequest) as error:
        await _made(tokens, **changes)
    assert all(word in error.value.message for word in words)
    assert await tokens.list() == []


async def test_tokens_are_for_admins_only(service: Service) -> None:
    view, _ = await service.create_token(ADMIN, name="ci")
    for asked in (
        service.create_token(ALICE, name="mine", scopes=("admin",)),
        service.list_tokens(ALICE),
        service.revoke_token(ALICE, view.token_id),
        service.status(ALICE),
    ):
        with pytest.raises(Forbidden, match="admin"):
            await asked
    with pytest.raises(NotFound):
        await service.revoke_token(ADMIN, "tok_unknown")
