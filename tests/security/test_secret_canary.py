"""A secret's value goes in and is nowhere to be seen again: answers, errors, logs, rows, representations."""

import base64
import json
import traceback
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from skerry.control.steps import Order, Shape
from skerry.control.store.records import Quotas
from skerry.errors import HostUnusable, RuntimeFailed, SkerryError
from skerry.policy.deno_fields import sandbox_layer
from skerry.protocol.deno_config import SandboxConfig
from skerry.service.egress_wish import egress_wish
from skerry.service.requests import CreateRequest
from skerry.spec.ids import OwnerId, TokenId
from skerry.spec.sandbox import Capability, Isolation
from tests.conftest import Built
from tests.harness.fake_clock import FakeClock
from tests.harness.rpc_client import rpc_client
from tests.harness.running_api import RunningApi, fake_with_network, running_api
from tests.harness.scripted_egress import ScriptedEgress
from tests.harness.scripted_host import ScriptedHost
from tests.harness.world import ALICE, SESSION, serving

CANARY = "canary-Zq7wXv2LkM9pTn4RbYc8"
NEXT = "canary-Hj3dSg6FqWe1UaPo5Ixz"
FORMS = [
    form
    for value in (CANARY, NEXT)
    for form in (
        value,
        value[::-1],
        base64.b64encode(value.encode()).decode(),
        base64.b64encode(b"x" + value.encode()).decode()[2:-2],
        base64.b64encode(b"xx" + value.encode()).decode()[4:-2],
        value.encode().hex(),
    )
]
SECRETS = {"KEY": {"hosts": ["api.example"], "value": CANARY}}


def assert_clean(text: str | bytes, where: str) -> None:
    """No form of a value is there."""
    data = text if isinstance(text, bytes) else text.encode()
    assert not [form for form in FORMS if form.encode() in data], where


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("api")


@pytest.fixture(scope="module")
def api(built: Built, directory: Path) -> Iterator[RunningApi]:
    with running_api(fake_with_network(built), directory) as running:
        yield running


@pytest.fixture
async def http(api: RunningApi) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(api.url, headers={"Authorization": f"Bearer {api.alice}"}) as session:
        yield session


async def test_no_answer_row_or_log_has_it(
    api: RunningApi, http: aiohttp.ClientSession, directory: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    answers: list[str] = []
    async with rpc_client(api.url, api.alice, config={"secrets": SECRETS}) as client:
        one = f"/skerry/v1/sandboxes/{client.sandbox_id}"
        env = await client.ok("envToObject")
        assert env["KEY"].startswith("DENO_SECRET_PLACEHOLDER_")
        answers.append(json.dumps(env))
        for value in (NEXT, NEXT + "\n", NEXT[:5], NEXT * 1000):
            async with http.put(f"{one}/secrets/KEY", json={"value": value}) as response:
                answers.append(f"{response.status} {response.headers} {await response.text()}")
        for body in ({"value": [NEXT]}, {"valu": NEXT}, [NEXT], NEXT):
            async with http.put(f"{one}/secrets/KEY", json=body) as response:
                assert response.status == 400
                answers.append(await response.text())
        paths = ["", "/secrets", "/audit", "/explain?target=https://api.example/", "/processes"]
        for path in (*(one + end for end in paths), "/skerry/v1/sandboxes", "/api/v2/sandboxes"):
            async with http.get(path) as response:
                assert response.status == 200, path
                answers.append(await response.text())
        admin = {"Authorization": f"Bearer {api.admin}"}
        async with http.get("/skerry/v1/status", headers=admin) as response:
            answers.append(await response.text())
        assert api.egress.served[client.sandbox_id].values == {"KEY": NEXT.encode()}  # type: ignore[index]
    for answer in answers:
        assert_clean(answer, "an answer")
    for file in sorted(directory.iterdir()):  # noqa: ASYNC240
        assert_clean(file.read_bytes(), file.name)
    captured = capfd.readouterr()
    assert "connected" in captured.out
    assert_clean(captured.out + captured.err, "the log")


WRONG: list[Any] = [
    {"KEY": {"hosts": ["api.example"], "value": CANARY + "\n"}},
    {"KEY": {"hosts": ["api.example"], "value": CANARY, CANARY[:5]: 1}},
    {"KEY": {"hosts": [], "value": CANARY}},
    {"KEY": {"hosts": ["*.com"], "value": CANARY}},
    {"KEY": {"hosts": ["api.example"], "value": [CANARY]}},
    {"KEY": {"hosts": ["api.example"], "value": {"v": CANARY}}},
    {"KEY": {"hosts": "api.example", "value": CANARY}},
    {"KEY": CANARY},
    [CANARY],
    {"KEY": {"hosts": ["api.example"], "value": CANARY, "slots": ["nonsense"]}},
    {"KEY": {"hosts": ["api.example"], "value": CANARY, "mode": "sett"}},
    {"KEY": {"hosts": ["api.example"], "value": CANARY, "expires": "never"}},
    {"KEY": {"hosts": ["api.example"], "value": CANARY, "placeholder_prefix": "ö"}},
]


@pytest.mark.parametrize("secrets", WRONG)
async def test_no_refusal_has_it(api: RunningApi, secrets: Any, capfd: pytest.CaptureFixture[str]) -> None:
    header = base64.b64encode(json.dumps({"secrets": secrets, "timeout": "nonsense"}).encode()).decode()
    for config in (header, base64.b64encode(json.dumps({"secrets": secrets}).encode()).decode(), header[:-9]):
        headers = {
            "Authorization": f"Bearer {api.alice}",
            "x-deno-sandbox-config": config,
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
        }
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"{api.url}/api/v3/sandboxes/create", headers=headers) as response,
        ):
            assert response.status == 400
            assert_clean(await response.text(), "a refusal")
    captured = capfd.readouterr()
    assert_clean(captured.out + captured.err, "the log")


@pytest.mark.parametrize("method", ["grant", "rotate"])
@pytest.mark.parametrize("error", [HostUnusable("away"), RuntimeFailed("broken"), RuntimeError("a defect")])
async def test_no_failure_has_it(
    method: str, error: Exception, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    host, egress = ScriptedHost(), ScriptedEgress()
    async with serving(host, tmp_path, FakeClock(), egress=egress) as service:
        told = ""
        try:
            if method == "rotate":
                made = await service.create(
                    ALICE, msgspec.structs.replace(SESSION, secrets=SECRETS, allow_net=None)
                )
                egress.faults[method] = [error]
                await service.outbound.rotate(ALICE, made.sandbox_id, "KEY", NEXT)
            else:
                egress.faults[method] = [error]
                await service.create(ALICE, msgspec.structs.replace(SESSION, secrets=SECRETS))
        except (SkerryError, RuntimeError) as caught:
            told = "".join(traceback.TracebackException.from_exception(caught, capture_locals=False).format())
            told += f"{caught!r} {caught} {getattr(caught, 'detail', '')}"
        assert told
        assert_clean(told, "an exception")
    host.close()
    captured = capfd.readouterr()
    assert_clean(captured.out + captured.err, "the log")


def test_nothing_that_carries_it_shows_it() -> None:
    request = CreateRequest(secrets=SECRETS, env={"E": CANARY})
    fields = sandbox_layer(None, SECRETS, now_ms=1)
    wish = egress_wish(
        fields, None, isolation=Isolation.GVISOR, capabilities=frozenset({Capability.OWN_NETWORK})
    )
    shape = Shape(
        isolation=Isolation.GVISOR,
        image="i",
        image_digest="d",
        memory_mib=1,
        cpus=1,
        disk_mib=1,
        max_processes=1,
    )
    order = Order(
        owner=OwnerId("alice"),
        token_id=TokenId("tok"),
        quotas=Quotas(1, 1),
        shape=shape,
        session=True,
        stop_at_ms=None,
        duration_s=None,
        labels={},
        env={"E": CANARY},
        egress=wish.intent,
        secret_values=wish.values,
    )
    assert wish.values == {"KEY": CANARY.encode()}
    config = SandboxConfig(secrets=SECRETS, env={"E": CANARY})
    for carrier in (request, fields, wish, order, config):
        for text in (repr(carrier), str(carrier), f"{carrier}", repr([carrier])):
            assert_clean(text, type(carrier).__name__)
    assert_clean(msgspec.json.encode(wish.intent), "what is stored")
