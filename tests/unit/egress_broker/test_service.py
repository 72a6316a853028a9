"""The broker with everything around it in memory: grants, changes, workers that crash, and what is kept."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from skerry.egress.broker import crash_limit, granting, sandbox, service, validation
from skerry.egress.broker.control_channel import encode
from skerry.egress.broker.service import Broker
from skerry.egress.messages import Cut, Used
from skerry.errors import InvalidRequest, NotFound, ResourceExhausted, RuntimeFailed
from skerry.policy.document import AllowRule, PolicyDocument
from skerry.protocol.egress_verbs import NamedLayer, ReadAudit, SandboxEgress
from skerry.spec.ids import SandboxId
from tests.harness.egress_ground import HOST, ID, VALUE, Scene, grant, layer, secret, seq_of
from tests.harness.waiting import until

OTHER = SandboxId("sbx_ord_" + "b" * 20)
PLACEHOLDER = "DENO_SECRET_PLACEHOLDER_" + "0" * 64


def view(broker: Broker, sandbox_id: SandboxId = ID) -> SandboxEgress:
    return next(one for one in broker.describe().sandboxes if one.sandbox_id == sandbox_id)


async def with_worker(scene: Scene, broker: Broker, sandbox_id: SandboxId = ID) -> None:
    """Let the sandbox send something, and wait until its worker goes by the rules."""
    before = len(scene.zygote.workers)
    scene.hostd.connect(sandbox_id)
    await until(lambda: len(scene.zygote.workers) > before and scene.worker.rules, what="a worker")
    await until(lambda: view(broker, sandbox_id).worker_pid == scene.worker.pid)
    scene.hostd.drain(sandbox_id)


async def test_a_grant_gives_placeholders_and_a_certificate(scene: Scene) -> None:
    async with scene.broker() as broker:
        made = await broker.grant(
            grant(secret("ONE"), secret("TWO"), secret("THREE", placeholder=PLACEHOLDER))
        )
        assert made.placeholders.keys() == {"ONE", "TWO", "THREE"}
        assert made.placeholders["THREE"] == PLACEHOLDER
        assert len(set(made.placeholders.values())) == 3
        assert made.certificate_pem is not None
        assert made.certificate_pem.startswith("-----BEGIN CERTIFICATE-----")
        assert "PRIVATE" not in repr(made)
        assert VALUE.decode() not in repr(made)
        assert view(broker) == SandboxEgress(sandbox_id=ID, version=1, worker_pid=None)


async def test_nothing_is_inspected_where_nothing_may_be_reached(scene: Scene) -> None:
    async with scene.broker() as broker:
        assert (await broker.grant(grant(hosts=()))).certificate_pem is None


@pytest.mark.parametrize("send", ["connect", "query"])
async def test_the_first_packet_starts_a_worker_and_the_next_does_not(scene: Scene, send: str) -> None:
    async with scene.broker() as broker:
        made = await broker.grant(grant(secret()))
        await until(lambda: scene.hostd.asked == 1)
        assert scene.zygote.workers == []
        getattr(scene.hostd, send)()
        await until(lambda: scene.zygote.workers and scene.worker.rules)
        getattr(scene.hostd, send)()
        rules = scene.worker.rules[0]
        assert [one.name for one in rules.layers] == ["operator", "sandbox"]
        assert rules.secrets[0].value == VALUE
        assert rules.secrets[0].placeholder == made.placeholders["KEY"]
        assert rules.authority is not None
        assert (rules.version, rules.next_seq) == (1, 1)
        await until(lambda: view(broker).worker_pid == scene.worker.pid)
        assert len(scene.zygote.workers) == 1


async def test_a_grant_may_come_before_the_sandbox(scene: Scene) -> None:
    scene.hostd.missing = 3
    async with scene.broker() as broker:
        await broker.grant(grant())
        await until(lambda: scene.hostd.asked == 2)
        assert "no such sandbox" in view(broker).problem
        await until(lambda: scene.hostd.asked == 4)
        await until(lambda: view(broker).problem == "")
        await with_worker(scene, broker)


async def test_changes_are_in_force_when_they_are_answered(scene: Scene) -> None:
    async with scene.broker() as broker:
        await broker.grant(grant(secret()))
        await with_worker(scene, broker)

        rule = AllowRule(host="other.example.com")
        assert (await broker.allow_host(ID, rule)).version == 2
        assert scene.worker.rules[-1].layers[-1].document.allow[-1] == rule
        assert (await broker.allow_host(ID, rule)).version == 2

        await broker.rotate(ID, "KEY", b"another-value-of-it-9876543210")
        assert scene.worker.rules[-1].secrets[0].value == b"another-value-of-it-9876543210"

        await broker.revoke(ID, "KEY")
        last = scene.worker.rules[-1]
        assert (last.version, last.secrets[0].value, last.secrets[0].state) == (4, None, "revoked")
        assert [one.state for one in broker.secrets(ID)] == ["revoked"]

        await broker.rotate(ID, "KEY", VALUE)
        assert [one.state for one in broker.secrets(ID)] == ["active"]

        layers = (layer("new.example.com", name="policy:new"), layer("new.example.com"))
        assert (await broker.set_layers(ID, layers)).version == 6
        assert scene.worker.rules[-1].layers[1:] == layers
        assert (await broker.set_layers(ID, layers)).version == 6


async def test_a_worker_that_does_not_adopt_a_change_is_ended(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandbox, "ADOPT_S", 0.05)
    async with scene.broker() as broker:
        await broker.grant(grant(secret()))
        await with_worker(scene, broker)
        slow = scene.worker
        slow.deaf = True
        await broker.revoke(ID, "KEY")
        assert view(broker).worker_pid is None
        await with_worker(scene, broker)
        assert scene.worker is not slow
        assert scene.worker.rules[0].secrets[0].value is None


async def test_what_the_certificate_does_not_cover_makes_another_of_the_same_key(scene: Scene) -> None:
    async with scene.broker() as broker:
        first = (await broker.grant(grant(secret()))).certificate_pem
        await with_worker(scene, broker)
        key = scene.worker.rules[-1].authority
        await broker.revoke(ID, "KEY")
        assert (await broker.set_layers(ID, (layer(HOST, HOST),))).certificate_pem is None
        wider = (await broker.allow_host(ID, AllowRule(host="*.example.org"))).certificate_pem
        assert wider is not None
        assert wider != first
        now = scene.worker.rules[-1].authority
        assert key is not None
        assert now is not None
        assert (now.key_pem, now.certificate_pem) == (key.key_pem, wider)
        # An answer may be lost, so it is said again; a new grant says it anyway.
        assert (await broker.allow_host(ID, AllowRule(host="*.example.org"))).certificate_pem == wider
        assert (await broker.grant(grant(secret(), hosts=(HOST, "*.example.org")))).certificate_pem == wider
        assert (await broker.allow_host(ID, AllowRule(host="x.example.org"))).certificate_pem is None


async def test_a_worker_that_crashes_is_started_again_until_it_is_too_often(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crash_limit, "PAUSE_S", 0.2)
    async with scene.broker() as broker:
        await broker.grant(grant())
        for count in range(crash_limit.CRASHES + 1):
            await with_worker(scene, broker)
            assert len(scene.zygote.workers) == count + 1
            scene.worker.end(-11)
        assert "crashing" in view(broker).problem
        scene.hostd.connect()
        await asyncio.sleep(0.02)
        assert len(scene.zygote.workers) == crash_limit.CRASHES + 1
        await until(lambda: len(scene.zygote.workers) == crash_limit.CRASHES + 2)
        await until(lambda: view(broker).problem == "")


async def test_a_worker_that_ends_in_peace_may_do_so_as_often_as_it_likes(scene: Scene) -> None:
    async with scene.broker() as broker:
        await broker.grant(grant())
        for _ in range(crash_limit.CRASHES * 3):
            await with_worker(scene, broker)
            scene.worker.end(0)


async def test_a_worker_that_cannot_be_started_is_tried_again(scene: Scene) -> None:
    async with scene.broker() as broker:
        await broker.grant(grant())
        scene.zygote.faults = [RuntimeFailed("no memory")] * 2
        await with_worker(scene, broker)
        assert view(broker).problem == ""


async def test_audit_lines_go_on_over_workers(scene: Scene) -> None:
    async with scene.broker() as broker:
        await broker.grant(grant())
        for _ in range(3):
            await with_worker(scene, broker)
            for _ in range(4):
                scene.worker.line(confirm=True)
            await until(lambda: scene.worker.written)
            scene.worker.end(-9)
        found = await broker.read_audit(ReadAudit(ID, after=2, limit=5))
        assert [seq_of(line) for line in found.lines] == [3, 4, 5, 6, 7]
        assert (found.last, found.ended) == (7, False)


async def test_who_waits_for_audit_lines_gets_them_when_they_come(scene: Scene) -> None:
    async with scene.broker() as broker, asyncio.TaskGroup() as group:
        await broker.grant(grant())
        await with_worker(scene, broker)
        reading = group.create_task(broker.read_audit(ReadAudit(ID, wait_ms=20_000)))
        await asyncio.sleep(0)
        scene.worker.line()
        assert [seq_of(line) for line in (await reading).lines] == [1]
        last = group.create_task(broker.read_audit(ReadAudit(ID, after=1, wait_ms=20_000)))
        await asyncio.sleep(0)
        await broker.release(ID)
        found = await last
        assert (found.lines, found.last, found.ended) == ([], 1, True)
        again = await broker.read_audit(ReadAudit(ID, wait_ms=20_000))
        assert (len(again.lines), again.ended) == (1, True)
        nothing = await broker.read_audit(ReadAudit(OTHER, wait_ms=20_000))
        assert (nothing.lines, nothing.ended) == ([], True)


async def test_only_so_many_may_wait_for_audit_lines(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "MAX_FOLLOWERS", 1)
    async with scene.broker() as broker, asyncio.TaskGroup() as group:
        await broker.grant(grant())
        reading = group.create_task(broker.read_audit(ReadAudit(ID, wait_ms=20_000)))
        await asyncio.sleep(0)
        with pytest.raises(ResourceExhausted):
            await broker.read_audit(ReadAudit(ID, wait_ms=1))
        await broker.release(ID)
        assert (await reading).ended


async def test_a_worker_that_breaks_the_rules_is_killed(scene: Scene) -> None:
    async with scene.broker() as broker:
        await broker.grant(grant())
        for breach in (b"nonsense", encode(Cut("NO_SUCH_SECRET"))):
            await with_worker(scene, broker)
            scene.worker.say_raw(breach)
            await until(lambda: view(broker).worker_pid is None)


async def test_a_cut_ends_the_network_until_another_grant(scene: Scene) -> None:
    async with scene.broker() as broker:
        await broker.grant(grant(secret()))
        await with_worker(scene, broker)
        scene.worker.say(Cut("KEY"))
        await until(lambda: view(broker).cut and view(broker).worker_pid is None)
        scene.hostd.connect()
        await until(lambda: scene.keeper.kept()[0].cut)
        assert len(scene.zygote.workers) == 1
        await broker.allow_host(ID, AllowRule(host="x.example.org"))
        assert len(scene.zygote.workers) == 1
        await broker.grant(grant(secret()))
        await until(lambda: len(scene.zygote.workers) == 2)
        assert not view(broker).cut


async def test_a_release_forgets_all_but_the_audit_trail(scene: Scene) -> None:
    async with scene.broker() as broker:
        await broker.grant(grant(secret()))
        await with_worker(scene, broker)
        scene.worker.line()
        await until(lambda: broker._ground.trails.live(ID).next_seq == 2)
        await broker.release(ID)
        await broker.release(ID)
        assert broker.describe().sandboxes == ()
        assert scene.keeper.files == {}
        assert len((await broker.read_audit(ReadAudit(ID))).lines) == 1
        for call in (broker.revoke(ID, "KEY"), broker.allow_host(ID, AllowRule(host=HOST))):
            with pytest.raises(NotFound):
                await call
        broker.forget_audit([OTHER])
        assert (await broker.read_audit(ReadAudit(ID))).lines == []


async def test_a_worker_that_does_not_stop_is_killed(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "STOP_S", 0.05)
    async with scene.broker() as broker:
        await broker.grant(grant())
        await with_worker(scene, broker)
        scene.worker.deaf = True
        await broker.release(ID)
        assert broker.describe().sandboxes == ()


async def test_everything_survives_the_broker(scene: Scene) -> None:
    async with scene.broker() as broker:
        made = await broker.grant(grant(secret("ONE"), secret("TWO")))
        await with_worker(scene, broker)
        await broker.revoke(ID, "TWO")
        scene.worker.say(Used({"ONE": 3, "NO_SUCH": 5, "TWO": -7}))
        scene.worker.line()
        await until(lambda: scene.keeper.kept()[0].secret("ONE").used == 3)
        secrets, version = broker.secrets(ID), view(broker).version
    kept = scene.keeper.kept()
    async with scene.broker(restored=kept) as broker:
        assert broker.secrets(ID) == secrets
        assert view(broker).version == version
        await with_worker(scene, broker)
        rules = scene.worker.rules[0]
        assert [(one.value, one.state, one.used) for one in rules.secrets] == [
            (VALUE, "active", 3),
            (None, "revoked", 0),
        ]
        assert rules.next_seq == 2
        assert rules.authority is not None
        assert rules.authority.certificate_pem == made.certificate_pem


async def test_granting_again_keeps_what_the_sandbox_has(scene: Scene) -> None:
    async with scene.broker() as broker:
        first = await broker.grant(grant(secret("ONE"), secret("TWO")))
        await with_worker(scene, broker)
        scene.worker.say(Used({"ONE": 2}))
        await broker.revoke(ID, "TWO")
        # As api does after its own restart: it knows placeholders, and no values.
        again = await broker.grant(
            grant(*(secret(name, None, first.placeholders[name]) for name in ("ONE", "TWO")), secret("NEW"))
        )
        assert again.placeholders.items() >= first.placeholders.items()
        assert again.certificate_pem == first.certificate_pem
        assert again.version > first.version
        states = {one.name: (one.state, one.used) for one in broker.secrets(ID)}
        assert states == {"ONE": ("active", 2), "TWO": ("revoked", 0), "NEW": ("active", 0)}
        assert scene.worker.rules[-1].secrets[0].value == VALUE
        # Another placeholder is another secret: nothing of the old one is taken over.
        await broker.grant(grant(secret("ONE", None, PLACEHOLDER)))
        assert [(one.state, one.used) for one in broker.secrets(ID)] == [("lost", 0)]
        assert view(broker).lost
        await broker.rotate(ID, "ONE", VALUE)
        assert not view(broker).lost


async def test_a_grant_that_cannot_be_put_away_is_none(scene: Scene) -> None:
    async with scene.broker() as broker:
        scene.keeper.faults = [BrokenPipeError()]
        with pytest.raises(RuntimeFailed):
            await broker.grant(grant(secret()))
        assert broker.describe().sandboxes == ()
        await broker.grant(grant(secret()))
        scene.keeper.faults = [BrokenPipeError()]
        with pytest.raises(RuntimeFailed):
            await broker.revoke(ID, "KEY")
        assert [one.state for one in broker.secrets(ID)] == ["revoked"]


async def test_one_sandbox_knows_nothing_of_another(scene: Scene) -> None:
    async with scene.broker() as broker:
        await broker.grant(grant(secret("MINE")))
        await broker.grant(grant(secret("YOURS", b"the-other-sandbox's-own-value"), sandbox_id=OTHER))
        await with_worker(scene, broker)
        await with_worker(scene, broker, OTHER)
        for worker, owner, name in zip(scene.zygote.workers, (ID, OTHER), ("MINE", "YOURS"), strict=True):
            assert worker.rules[0].sandbox_id == owner
            assert [one.rule.name for one in worker.rules[0].secrets] == [name]
        await broker.revoke(OTHER, "YOURS")
        assert len(scene.zygote.workers[0].rules) == 1


async def test_explanations_are_of_the_rules_in_force(scene: Scene) -> None:
    async with scene.broker() as broker:
        await broker.grant(grant())
        denied = broker.explain(ID, "other.example.com:443", "GET")
        assert (denied.allowed, denied.version) == (False, 1)
        await broker.allow_host(ID, AllowRule(host="other.example.com"))
        allowed = broker.explain(ID, "other.example.com:443", "GET")
        assert (allowed.allowed, allowed.version) == (True, 2)
        for target, method in (("x" * 10_000, "GET"), ("a.example:443", "get it")):
            with pytest.raises(InvalidRequest):
                broker.explain(ID, target, method)


def many(count: int) -> NamedLayer:
    return NamedLayer(
        name="sandbox",
        document=PolicyDocument(allow=tuple(AllowRule(host=f"h{n}.example.com") for n in range(count))),
    )


@pytest.mark.parametrize(
    "change",
    [
        {"sandbox_id": "sbx_ord_short"},
        {"layers": ()},
        {"layers": (layer(HOST, name="policy:x"),)},
        {"layers": (layer(HOST), layer(HOST))},
        {"layers": (layer(HOST, name="operator"), layer(HOST))},
        {"layers": (layer(HOST, name="policy:" + "x" * 200), layer(HOST))},
        {"layers": (many(validation.MAX_RULES + 1),)},
        {"layers": (layer("a b"),)},
        {"secrets": (secret("KEY"), secret("KEY"))},
        {"secrets": (secret("1KEY"),)},
        {"secrets": tuple(secret(f"KEY{n}") for n in range(validation.MAX_SECRETS + 1))},
        {"secrets": (secret(value=b"short"),)},
        {"secrets": (secret(value=b"x" * 20_000),)},
        {"secrets": (secret(value=VALUE + b"\r\nX-Evil: 1"),)},
        {"secrets": (secret(value=VALUE + b"\0"),)},
        {"secrets": (secret(placeholder="p"),)},
        {"secrets": (secret(placeholder="p" * 40 + "\n"),)},
        {"secrets": (secret("A", placeholder="p" * 40), secret("B", placeholder="p" * 41))},
    ],
)
async def test_a_grant_out_of_bounds_is_refused_and_leaves_nothing(
    scene: Scene, change: dict[str, Any]
) -> None:
    asked = grant()
    fields = {name: getattr(asked, name) for name in asked.__struct_fields__} | change
    async with scene.broker() as broker:
        with pytest.raises(InvalidRequest) as refused:
            await broker.grant(type(asked)(**fields))
        assert VALUE.decode() not in refused.value.message
        assert broker.describe().sandboxes == ()
    assert scene.keeper.files == {}
    assert list(scene.directory.iterdir()) == []


async def test_a_policy_that_does_not_fit_into_a_message_is_refused(scene: Scene) -> None:
    large = tuple(secret(f"KEY{n}", b"%02d" % n + b"v" * 16_000) for n in range(64))
    async with scene.broker() as broker:
        with pytest.raises(ResourceExhausted):
            await broker.grant(grant(*large))
        await broker.grant(grant(*large[:10]))
        with pytest.raises(ResourceExhausted):
            await broker.grant(grant(*large))
        assert len(broker.secrets(ID)) == 10


async def test_there_is_a_largest_number_of_sandboxes(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "MAX_SANDBOXES", 1)
    async with scene.broker() as broker:
        await broker.grant(grant())
        await broker.grant(grant())
        with pytest.raises(ResourceExhausted):
            await broker.grant(grant(sandbox_id=OTHER))


@pytest.mark.parametrize(
    "read",
    [
        ReadAudit(ID, limit=0),
        ReadAudit(ID, limit=1_001),
        ReadAudit(ID, after=-1),
        ReadAudit(ID, wait_ms=-1),
        ReadAudit(ID, wait_ms=30_001),
        ReadAudit(SandboxId("../../etc/passwd")),
    ],
)
async def test_reading_out_of_bounds_is_refused(scene: Scene, read: ReadAudit) -> None:
    async with scene.broker() as broker:
        with pytest.raises(InvalidRequest):
            await broker.read_audit(read)


async def test_calls_about_sandboxes_that_are_not_there(scene: Scene) -> None:
    async with scene.broker() as broker:
        calls: list[Callable[[], Any]] = [
            lambda: broker.allow_host(ID, AllowRule(host=HOST)),
            lambda: broker.set_layers(ID, (layer(HOST),)),
            lambda: broker.rotate(ID, "KEY", VALUE),
            lambda: broker.revoke(ID, "KEY"),
        ]
        for call in calls:
            with pytest.raises(NotFound):
                await call()
        for ask in (lambda: broker.secrets(ID), lambda: broker.explain(ID, "a.example:443", "GET")):
            with pytest.raises(NotFound):
                ask()
        await broker.grant(grant())
        with pytest.raises(NotFound):
            await broker.revoke(ID, "NO_SUCH")


def test_placeholders_are_made_where_none_is_given() -> None:
    made = granting.held_for(grant(secret("A"), secret("B", placeholder=PLACEHOLDER)), None)
    assert made.secrets[1].placeholder == PLACEHOLDER
    assert len(made.secrets[0].placeholder) >= 40
