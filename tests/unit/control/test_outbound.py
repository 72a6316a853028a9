"""What a sandbox may reach: from the create to the gateway, and back at its end."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from skerry.control.store.database import Database
from skerry.control.store.sandboxes import SandboxStore
from skerry.control.trust import ADDING, TRUST_VARIABLES
from skerry.errors import Conflict, HostUnusable, InvalidRequest, NotFound, RuntimeFailed, SandboxEnded
from skerry.policy.document import PolicyDocument
from skerry.service.requests import CreateRequest
from skerry.service.service import Service
from skerry.spec.ids import SandboxId
from skerry.spec.sandbox import EndReason
from tests.harness.fake_clock import FakeClock
from tests.harness.scripted_egress import ScriptedEgress, layer_names
from tests.harness.scripted_host import ScriptedHost
from tests.harness.waiting import until, until_awaited
from tests.harness.world import ALICE, MINUTE, SESSION, pool_filled, serving, settings

VALUE = "the-value-of-a-secret-0123456789"
SECRETS = {"API_KEY": {"hosts": ["api.example"], "value": VALUE}}
WITH_SECRET = msgspec.structs.replace(SESSION, secrets=SECRETS)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def host() -> AsyncIterator[ScriptedHost]:
    made = ScriptedHost()
    yield made
    made.close()


@pytest.fixture
def egress() -> ScriptedEgress:
    return ScriptedEgress()


@pytest.fixture(params=[0, 1], ids=["cold", "warm"])
async def service(
    host: ScriptedHost,
    egress: ScriptedEgress,
    clock: FakeClock,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> AsyncIterator[Service]:
    async with serving(host, tmp_path, clock, settings(pool=request.param), egress=egress) as running:
        await pool_filled(running, clock, request.param)
        yield running


def _allowed(**changes: object) -> CreateRequest:
    return msgspec.structs.replace(SESSION, **changes)


async def test_absent_the_field_means_the_public_internet(service: Service, egress: ScriptedEgress) -> None:
    made = await service.create(ALICE, SESSION)
    served = egress.served[made.sandbox_id]
    assert layer_names(served) == ["sandbox"]
    assert served.layers[0].document.default == "public"
    assert served.grant.owner == "alice"
    assert await made.agent.env_all() == {}


async def test_a_list_denies_the_rest(service: Service, egress: ScriptedEgress) -> None:
    made = await service.create(ALICE, _allowed(allow_net=["example.com:443"]))
    document = egress.served[made.sandbox_id].layers[0].document
    assert document.default == "deny"
    assert [(rule.host, rule.ports) for rule in document.allow] == [("example.com", (443,))]


async def test_an_empty_list_is_granted_too_so_that_denials_are_answered(
    service: Service, egress: ScriptedEgress
) -> None:
    made = await service.create(ALICE, _allowed(allow_net=[]))
    assert egress.served[made.sandbox_id].layers[0].document == PolicyDocument(default="deny")


async def test_a_secret_is_a_placeholder_inside_and_its_authority_is_trusted(
    service: Service, host: ScriptedHost, egress: ScriptedEgress
) -> None:
    made = await service.create(ALICE, msgspec.structs.replace(WITH_SECRET, env={"SSL_CERT_FILE": "/mine"}))
    served = egress.served[made.sandbox_id]
    (secret,) = served.grant.secrets
    assert (secret.rule.name, secret.value) == ("API_KEY", VALUE.encode())
    env = await made.agent.env_all()
    assert env["API_KEY"] == secret.placeholder
    assert str(env["API_KEY"]).startswith("DENO_SECRET_PLACEHOLDER_")
    assert env["SSL_CERT_FILE"] == "/mine", "the client's own variables win"
    assert env["NODE_EXTRA_CA_CERTS"] == TRUST_VARIABLES["NODE_EXTRA_CA_CERTS"]
    calls = host.agent(made.sandbox_id).calls
    assert (calls["trust.install"], calls["env.update"]) == (1, 1)


async def test_roots_of_the_operator_are_trusted_even_where_nothing_is_inspected(
    service: Service, host: ScriptedHost, egress: ScriptedEgress
) -> None:
    egress.extra_roots_pem = "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"
    made = await service.create(ALICE, SESSION)
    assert host.agent(made.sandbox_id).calls["trust.install"] == 1
    assert "SSL_CERT_FILE" in await made.agent.env_all()


async def test_an_image_without_authorities_gets_no_list_of_only_the_added_ones(
    host: ScriptedHost, egress: ScriptedEgress, clock: FakeClock, tmp_path: Path
) -> None:
    host.has_authorities = False
    async with serving(host, tmp_path, clock, egress=egress) as service:
        made = await service.create(ALICE, WITH_SECRET)
        env = await made.agent.env_all()
        assert {name for name in TRUST_VARIABLES if name in env} == set(ADDING)
        trusted = host.agent(made.sandbox_id).trusted
        assert [set(variables) for _, _, variables in trusted] == [set(TRUST_VARIABLES), set(ADDING)]


async def test_the_record_comes_first_and_has_no_value(
    service: Service, egress: ScriptedEgress, tmp_path: Path
) -> None:
    egress.stalled["grant"] = asyncio.Event()
    creating = asyncio.create_task(service.create(ALICE, WITH_SECRET))
    await until(lambda: egress.called["grant"])
    stored = await _stored(tmp_path)
    egress.stalled["grant"].set()
    made = await creating
    (secret,) = egress.served[made.sandbox_id].grant.secrets
    assert str(secret.placeholder) in stored
    assert "api.example" in stored
    assert VALUE not in stored


async def _stored(directory: Path) -> str:
    """All that the database has of sandboxes."""
    database = Database.open(directory / "skerry.db")
    try:
        return repr(await SandboxStore(database).of_owner(None))
    finally:
        await database.close()


async def test_nothing_is_handed_over_before_the_gateway_has_said_yes(
    service: Service, egress: ScriptedEgress
) -> None:
    egress.stalled["grant"] = asyncio.Event()
    creating = asyncio.create_task(service.create(ALICE, SESSION))
    await until(lambda: egress.called["grant"])
    done, _ = await asyncio.wait({creating}, timeout=0.05)
    assert not done
    egress.stalled["grant"].set()
    await creating


@pytest.mark.parametrize("error", [HostUnusable("egressd is away"), InvalidRequest("too large")])
async def test_a_refusal_of_the_gateway_ends_the_create_and_leaves_nothing(
    service: Service, host: ScriptedHost, egress: ScriptedEgress, error: Exception
) -> None:
    egress.faults["grant"] = [error]
    with pytest.raises(type(error), match=str(error)):
        await service.create(ALICE, SESSION)
    await until(lambda: not egress.served)
    await until(lambda: not host.running())
    assert egress.called["grant"] == 1, "another sandbox would have been refused as well"


async def test_a_guest_that_cannot_be_set_up_costs_the_grant(
    service: Service, host: ScriptedHost, egress: ScriptedEgress, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: object, **__: object) -> None:
        raise RuntimeFailed("no room")

    monkeypatch.setattr("skerry.control.agent.AgentClient.install_trust", refuse)
    with pytest.raises(RuntimeFailed, match="no room"):
        await service.create(ALICE, WITH_SECRET)
    await until(lambda: not egress.served and not host.running())
    assert egress.called["release"]


async def test_a_create_that_is_cancelled_costs_the_grant(
    host: ScriptedHost, egress: ScriptedEgress, clock: FakeClock, tmp_path: Path
) -> None:
    async with serving(host, tmp_path, clock, settings(pool=1), egress=egress) as service:
        await pool_filled(service, clock, 1)
        host.stalled["resume"] = asyncio.Event()
        creating = asyncio.create_task(service.create(ALICE, SESSION))
        await until(lambda: egress.served)
        creating.cancel()
        with pytest.raises(asyncio.CancelledError):
            await creating
        await until(lambda: not egress.served and not host.running())


@pytest.mark.parametrize("request_", [SESSION, MINUTE], ids=["session", "duration"])
async def test_the_end_of_a_sandbox_releases_it(
    service: Service, egress: ScriptedEgress, request_: CreateRequest
) -> None:
    made = await service.create(ALICE, request_)
    await service.kill(ALICE, made.sandbox_id)
    assert not egress.served


async def test_a_gateway_that_does_not_answer_holds_up_no_end(
    service: Service,
    host: ScriptedHost,
    egress: ScriptedEgress,
    clock: FakeClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("skerry.control.outbound.RELEASE_S", 0.05)
    made = await service.create(ALICE, SESSION)
    egress.stalled["release"] = asyncio.Event()
    await service.kill(ALICE, made.sandbox_id)
    assert (await service.get(ALICE, made.sandbox_id)).end_reason is EndReason.KILLED
    assert egress.served.keys() == {made.sandbox_id}
    del egress.stalled["release"]
    egress.restart()
    await until(lambda: not egress.served, what="the release at the next comparison")


async def test_pool_members_have_no_grant(
    service: Service, host: ScriptedHost, egress: ScriptedEgress
) -> None:
    assert not egress.served
    assert not egress.called["grant"]


async def test_allowing_live_is_recorded_and_survives_everything(
    host: ScriptedHost, egress: ScriptedEgress, clock: FakeClock, tmp_path: Path
) -> None:
    async with serving(host, tmp_path, clock, egress=egress) as service:
        made = await service.create(ALICE, msgspec.structs.replace(MINUTE, allow_net=["a.example"]))
        allowed = await service.outbound.allow(ALICE, made.sandbox_id, "b.example:8443")
        assert (allowed.version, allowed.rule.host, allowed.rule.ports) == (2, "b.example", (8443,))
        again = await service.outbound.allow(ALICE, made.sandbox_id, "b.example:8443")
        assert again.rule == allowed.rule
        with pytest.raises(InvalidRequest, match="host"):
            await service.outbound.allow(ALICE, made.sandbox_id, "http://b.example/")
    egress.forget_all()
    async with serving(host, tmp_path, clock, egress=egress):
        await until(lambda: egress.served)
        document = egress.served[made.sandbox_id].layers[-1].document
        assert [rule.host for rule in document.allow] == ["a.example", "b.example"]


async def test_what_the_gateway_could_not_be_told_is_told_later(
    host: ScriptedHost, egress: ScriptedEgress, clock: FakeClock, tmp_path: Path
) -> None:
    async with serving(host, tmp_path, clock, egress=egress) as service:
        made = await service.create(ALICE, msgspec.structs.replace(MINUTE, allow_net=[]))
        egress.faults["allow_host"] = [HostUnusable("away")]
        with pytest.raises(HostUnusable):
            await service.outbound.allow(ALICE, made.sandbox_id, "b.example")
        egress.restart()
        served = egress.served[made.sandbox_id]
        await until(lambda: [rule.host for rule in served.layers[-1].document.allow] == ["b.example"])


async def test_a_change_that_needs_another_authority_installs_it(
    service: Service, host: ScriptedHost, egress: ScriptedEgress
) -> None:
    made = await service.create(ALICE, _allowed(allow_net=["a.example"], env={"PIP_CERT": "/mine"}))
    agent = host.agent(made.sandbox_id)
    assert agent.calls["trust.install"] == 0
    egress.next_certificate = "a new one"
    await service.outbound.allow(ALICE, made.sandbox_id, "*.b.example")
    assert agent.calls["trust.install"] == 1
    env = await made.agent.env_all()
    assert (env["PIP_CERT"], env["SSL_CERT_FILE"]) == ("/mine", TRUST_VARIABLES["SSL_CERT_FILE"])


async def test_too_many_rules_are_refused(
    host: ScriptedHost,
    egress: ScriptedEgress,
    clock: FakeClock,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("skerry.control.outbound.MAX_OWN_RULES", 2)
    async with serving(host, tmp_path, clock, egress=egress) as service:
        made = await service.create(ALICE, _allowed(allow_net=["a.example"]))
        await service.outbound.allow(ALICE, made.sandbox_id, "b.example")
        with pytest.raises(Conflict, match="limit"):
            await service.outbound.allow(ALICE, made.sandbox_id, "c.example")


async def test_secrets_are_listed_rotated_and_revoked(service: Service, egress: ScriptedEgress) -> None:
    made = await service.create(ALICE, WITH_SECRET)
    outbound, one = service.outbound, made.sandbox_id
    assert [(state.name, state.state) for state in await outbound.secrets(ALICE, one)] == [
        ("API_KEY", "active")
    ]
    await outbound.revoke(ALICE, one, "API_KEY")
    assert (await outbound.secrets(ALICE, one))[0].state == "revoked"
    await outbound.rotate(ALICE, one, "API_KEY", "another-value-0123456789")
    assert egress.served[one].values == {"API_KEY": b"another-value-0123456789"}
    for bad in ("", "short", "with\nline-end-0123456789", "x" * 16_385):
        with pytest.raises(InvalidRequest) as error:
            await outbound.rotate(ALICE, one, "API_KEY", bad)
        assert not bad or bad not in error.value.message
    for ask in (outbound.revoke(ALICE, one, "OTHER"), outbound.rotate(ALICE, one, "OTHER", VALUE)):
        with pytest.raises(NotFound):
            await ask


async def test_the_audit_trail_can_be_read_after_the_end(service: Service, egress: ScriptedEgress) -> None:
    made = await service.create(ALICE, SESSION)
    egress.audit[made.sandbox_id] = ['{"seq":1}', '{"seq":2}', '{"seq":3}']
    await service.kill(ALICE, made.sandbox_id)
    found = await service.outbound.audit(ALICE, made.sandbox_id, after=1, limit=1)
    assert (found.lines, found.last, found.ended) == (['{"seq":2}'], 2, True)
    for wrong in ({"after": -1}, {"limit": 0}, {"limit": 1001}, {"wait_ms": 30_001}):
        with pytest.raises(InvalidRequest):
            await service.outbound.audit(ALICE, made.sandbox_id, **wrong)
    with pytest.raises(SandboxEnded):
        await service.outbound.explain(ALICE, made.sandbox_id, "https://example.com/")


async def test_forgotten_sandboxes_lose_their_audit_trails(
    host: ScriptedHost, egress: ScriptedEgress, clock: FakeClock, tmp_path: Path
) -> None:
    egress.audit[SandboxId("sbx_ord_" + "9" * 20)] = ["left of an earlier run"]
    async with serving(host, tmp_path, clock, egress=egress) as service:
        await until(lambda: not egress.audit)
        made = await service.create(ALICE, SESSION)
        await service.kill(ALICE, made.sandbox_id)
        egress.audit[made.sandbox_id] = ["{}"]
        clock.jump(23 * 3600)
        await clock.advance(61)
        assert egress.audit
        clock.jump(3600)

        async def forgotten() -> bool:
            await clock.advance(61)
            return not egress.audit

        await until_awaited(forgotten)
