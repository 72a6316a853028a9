"""Named policies: which one a sandbox goes by, and what happens when one is changed."""

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from skerry.errors import Conflict, Forbidden, HostUnusable, InvalidRequest, NotFound
from skerry.policy.document import AllowRule, PolicyDocument, SecretBinding
from skerry.service.requests import CreateRequest
from skerry.service.service import Service
from skerry.spec.ids import OwnerId
from skerry.spec.settings import EgressSettings
from tests.harness.fake_clock import FakeClock
from tests.harness.scripted_egress import ScriptedEgress, layer_names
from tests.harness.scripted_host import ScriptedHost
from tests.harness.waiting import until
from tests.harness.world import ADMIN, ALICE, BOB, MINUTE, SESSION, serving, settings

ONE = PolicyDocument(allow=(AllowRule(host="one.example"),))
TWO = PolicyDocument(allow=(AllowRule(host="two.example"),))
LABELLED = msgspec.structs.replace(SESSION, labels={"policy": "base"})
VALUE = "the-value-of-a-secret-0123456789"


@pytest.fixture
async def host() -> AsyncIterator[ScriptedHost]:
    made = ScriptedHost()
    yield made
    made.close()


@pytest.fixture
def egress() -> ScriptedEgress:
    return ScriptedEgress()


@pytest.fixture
async def service(host: ScriptedHost, egress: ScriptedEgress, tmp_path: Path) -> AsyncIterator[Service]:
    async with serving(host, tmp_path, FakeClock(), egress=egress) as running:
        yield running


async def test_the_label_comes_before_the_token_and_that_before_the_server(
    host: ScriptedHost, egress: ScriptedEgress, tmp_path: Path
) -> None:
    chosen = settings(egress=EgressSettings(default_policy="server"))
    async with serving(host, tmp_path, FakeClock(), chosen, egress=egress) as service:
        for name in ("server", "token", "base"):
            await service.policies.set(ADMIN, name, ONE, shared=True)
        limited = msgspec.structs.replace(ALICE, policy="token")
        for who, request, expected in (
            (ALICE, SESSION, "server"),
            (limited, SESSION, "token"),
            (limited, LABELLED, "base"),
        ):
            made = await service.create(who, request)
            assert layer_names(egress.served[made.sandbox_id]) == [f"policy:{expected}", "sandbox"]
            assert (await service.get(ALICE, made.sandbox_id)).policy == expected


async def test_an_unknown_label_tells_the_names_that_there_are(service: Service, host: ScriptedHost) -> None:
    await service.policies.set(ADMIN, "b", ONE, owner="alice")
    await service.policies.set(ADMIN, "a", ONE, shared=True)
    await service.policies.set(ADMIN, "hidden", ONE, owner="bob")
    for wrong in ("base", "", "x" * 100):
        with pytest.raises(InvalidRequest, match="there are: a, b") as error:
            await service.create(ALICE, msgspec.structs.replace(SESSION, labels={"policy": wrong}))
        assert "hidden" not in error.value.message
    assert not host.machines


async def test_a_default_that_is_not_there_denies(host: ScriptedHost, tmp_path: Path) -> None:
    chosen = settings(egress=EgressSettings(default_policy="server"))
    async with serving(host, tmp_path, FakeClock(), chosen) as service:
        with pytest.raises(HostUnusable, match="skerry policy set server FILE --shared"):
            await service.create(ALICE, SESSION)
        with pytest.raises(Conflict, match="'gone'"):
            await service.create(msgspec.structs.replace(ALICE, policy="gone"), SESSION)
        assert not host.machines


async def test_changing_a_policy_changes_what_runs(service: Service, egress: ScriptedEgress) -> None:
    await service.policies.set(ADMIN, "base", ONE, shared=True)
    mine, bobs = await service.create(ALICE, LABELLED), await service.create(BOB, LABELLED)
    other = await service.create(ALICE, SESSION)
    made = await service.policies.set(ADMIN, "base", TWO, shared=True)
    assert (made.sandboxes, made.policy.version) == (2, 2)
    for one in (mine, bobs):
        assert egress.served[one.sandbox_id].layers[0].document == TWO
    assert egress.served[other.sandbox_id].version == 1
    again = await service.policies.set(ADMIN, "base", ONE, owner="alice")
    assert again.sandboxes == 0, "those that run go on by the shared one"


async def test_what_could_not_be_told_is_told_later_and_after_a_restart(
    host: ScriptedHost, egress: ScriptedEgress, tmp_path: Path
) -> None:
    clock = FakeClock()
    async with serving(host, tmp_path, clock, egress=egress) as service:
        await service.policies.set(ADMIN, "base", ONE, shared=True)
        made = await service.create(ALICE, msgspec.structs.replace(MINUTE, labels={"policy": "base"}))
        served = egress.served[made.sandbox_id]
        egress.faults["set_layers"] = [HostUnusable("away"), HostUnusable("away")]
        assert (await service.policies.set(ADMIN, "base", TWO, shared=True)).sandboxes == 1
        assert served.layers[0].document == ONE
        egress.restart()
        await until(lambda: not egress.faults["set_layers"])
    async with serving(host, tmp_path, clock, egress=egress):
        await until(lambda: served.layers[0].document == TWO)


async def test_a_policy_that_is_set_while_a_create_goes_on_counts(
    service: Service, egress: ScriptedEgress
) -> None:
    import asyncio

    await service.policies.set(ADMIN, "base", ONE, shared=True)
    egress.stalled["grant"] = asyncio.Event()
    creating = asyncio.create_task(service.create(ALICE, LABELLED))
    await until(lambda: egress.called["grant"])
    setting = asyncio.create_task(service.policies.set(ADMIN, "base", TWO, shared=True))
    await asyncio.sleep(0.05)
    egress.stalled["grant"].set()
    made, told = await asyncio.gather(creating, setting)
    assert told.sandboxes == 1
    assert egress.served[made.sandbox_id].layers[0].document == TWO


async def test_a_policy_in_use_is_kept(service: Service) -> None:
    policies = service.policies
    await policies.set(ADMIN, "base", ONE, shared=True)
    made = await service.create(ALICE, LABELLED)
    with pytest.raises(Conflict, match="1 running"):
        await policies.delete(ADMIN, "base", shared=True)
    await service.kill(ALICE, made.sandbox_id)
    view, _ = await service.create_token(ADMIN, name="ci", owner="alice", policy="base")
    assert view.policy == "base"
    with pytest.raises(Conflict, match=view.token_id):
        await policies.delete(ADMIN, "base", shared=True)
    await service.revoke_token(ADMIN, view.token_id)
    await policies.delete(ADMIN, "base", shared=True)
    with pytest.raises(NotFound):
        await policies.get(ADMIN, "base")


async def test_the_servers_default_is_kept(host: ScriptedHost, tmp_path: Path) -> None:
    chosen = settings(egress=EgressSettings(default_policy="server"))
    async with serving(host, tmp_path, FakeClock(), chosen) as service:
        await service.policies.set(ADMIN, "server", ONE, shared=True)
        with pytest.raises(Conflict, match="default_policy"):
            await service.policies.delete(ADMIN, "server", shared=True)


async def test_a_token_s_policy_must_be_there(service: Service) -> None:
    await service.policies.set(ADMIN, "base", ONE, owner="bob")
    with pytest.raises(InvalidRequest, match="for alice; there are none yet"):
        await service.create_token(ADMIN, name="ci", owner="alice", policy="base")
    _, value = await service.create_token(ADMIN, name="ci", owner="bob", policy="base")
    assert (await service.authenticate(value)).policy == "base"


@pytest.mark.parametrize("name", ["", "A", "a b", "../x", "a/b", "-a", "a" * 65, "ä"])
async def test_names_are_plain(service: Service, name: str) -> None:
    with pytest.raises(InvalidRequest, match="name"):
        await service.policies.set(ADMIN, name, ONE)


async def test_a_shared_policy_has_no_owner(service: Service) -> None:
    with pytest.raises(InvalidRequest):
        await service.policies.set(ADMIN, "base", ONE, owner="alice", shared=True)
    with pytest.raises(Forbidden):
        await service.policies.set(ALICE, "base", ONE)


async def test_a_secret_must_be_within_what_the_policy_has(service: Service, egress: ScriptedEgress) -> None:
    binding = SecretBinding(name="KEY", hosts=("api.example",), slots=("header:x-token",), methods=("GET",))
    document = PolicyDocument(default="public", secrets=(binding,))
    await service.policies.set(ADMIN, "base", document, owner="alice")

    def asking(name: str, **members: object) -> CreateRequest:
        secret = {"hosts": ["api.example"], "value": VALUE, **members}
        return msgspec.structs.replace(LABELLED, secrets={name: secret})

    made = await service.create(ALICE, asking("KEY"))
    (secret,) = egress.served[made.sandbox_id].grant.secrets
    assert (secret.rule.slots, secret.rule.methods) == (("header:x-token",), ("GET",))
    for wrong in (
        asking("OTHER"),
        asking("KEY", hosts=["elsewhere.example"]),
        asking("KEY", methods=["POST"]),
    ):
        with pytest.raises(InvalidRequest, match='the policy "base"') as error:
            await service.create(ALICE, wrong)
        assert VALUE not in error.value.message


async def test_owners_names_do_not_matter_to_the_default(service: Service) -> None:
    await service.policies.set(ADMIN, "base", ONE)
    listed = await service.policies.list(ADMIN)
    assert [(one.owner, one.shared) for one in listed] == [(OwnerId("root"), False)]
