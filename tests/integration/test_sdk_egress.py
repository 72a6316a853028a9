"""Both unmodified SDKs and what a sandbox may reach: the fields arrive as they were said, further keys too.

The gateway is in memory; what it really does with packets has tests of its own.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from deno_sandbox import DenoDeploy
from websockets.exceptions import InvalidStatus

from skerry.policy.document import SecretRule
from skerry.protocol.egress_verbs import Grant
from tests.conftest import REPOSITORY, Built, unavailable
from tests.harness.running_api import RunningApi, fake_with_network, running_api

VALUE = "sk-the-value-of-a-secret-0123456789"
_DIRECTORY = REPOSITORY / "tests" / "js"


@pytest.fixture(scope="module")
def api(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApi]:
    with running_api(fake_with_network(built), tmp_path_factory.mktemp("api")) as running:
        yield running


@pytest.fixture
def sdk(api: RunningApi, monkeypatch: pytest.MonkeyPatch) -> Iterator[DenoDeploy]:
    for name, value in api.environment().items():
        monkeypatch.setenv(name, value)
    sdk = DenoDeploy()
    yield sdk
    bridge = sdk.sandbox._bridge
    bridge.run(sdk.sandbox._client.close())
    bridge.stop()


@pytest.fixture
def grants(api: RunningApi, monkeypatch: pytest.MonkeyPatch) -> list[Grant]:
    """What the gateway is told meanwhile."""
    told: list[Grant] = []
    grant = api.egress.grant

    async def note(asked: Grant) -> Any:
        told.append(asked)
        return await grant(asked)

    monkeypatch.setattr(api.egress, "grant", note)
    return told


def further(**members: object) -> Any:
    """A secret with keys that the SDK's own types do not know."""
    return {"API_KEY": {"hosts": ["api.example"], "value": VALUE, **members}}


def check_rule(rule: SecretRule) -> None:
    """What both SDKs say here."""
    assert (rule.hosts, rule.slots) == (("api.example",), ("header:x-token", "query:key"))
    assert (rule.methods, rule.paths, rule.scrub) == (("POST",), ("/v1/**",), "always")
    assert (rule.budget.requests_per_min, rule.placeholder_prefix) == (7, "sk-")
    assert rule.expires_at_ms is not None


def test_python(sdk: DenoDeploy, grants: list[Grant]) -> None:
    secrets = further(
        slots=["header:x-token", "query:key"],
        methods=["POST"],
        paths=["/v1/**"],
        scrub="always",
        expires="2h",
        budget={"requests_per_min": 7},
        placeholder_prefix="sk-",
    )
    with sdk.sandbox.create(allow_net=["a.example:443"], secrets=secrets) as sandbox:
        assert sandbox.env.get("API_KEY") == grants[0].secrets[0].placeholder
    (secret,) = grants[0].secrets
    check_rule(secret.rule)
    assert secret.value == VALUE.encode()
    first = grants[0].layers[0].document.allow[0]
    assert (first.host, first.ports) == ("a.example", (443,))


def test_python_without_the_fields_and_with_an_empty_list(sdk: DenoDeploy, grants: list[Grant]) -> None:
    with sdk.sandbox.create():
        pass
    with sdk.sandbox.create(allow_net=[]):
        pass
    documents = [grant.layers[0].document for grant in grants]
    assert [(one.default, one.allow) for one in documents] == [("public", ()), ("deny", ())]


@pytest.mark.parametrize(
    "options",
    [
        {"allow_net": [], "secrets": further()},
        {"secrets": further(slotz=[])},
        {"secrets": further(value="short")},
        {"allow_net": ["*.com"]},
        {"labels": {"policy": "unknown"}},
    ],
)
def test_python_is_refused_with_400(sdk: DenoDeploy, grants: list[Grant], options: Any) -> None:
    with pytest.raises(InvalidStatus, match="HTTP 400"):
        sdk.sandbox.create(**options).__enter__()
    assert not grants


def test_javascript(api: RunningApi, grants: list[Grant]) -> None:
    if shutil.which("node") is None or not (_DIRECTORY / "node_modules" / "@deno" / "sandbox").is_dir():
        unavailable("needs node and `npm ci` in tests/js (make setup)")
    result = subprocess.run(
        ["node", "--test", "outbound.test.mjs"],
        cwd=_DIRECTORY,
        env={"PATH": os.environ["PATH"], **api.environment()},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert result.returncode == 0, result.stdout[-20_000:] + result.stderr[-5_000:]
    assert "\n# pass 2\n" in result.stdout
    (grant,) = grants
    check_rule(grant.secrets[0].rule)
    assert VALUE not in result.stdout
