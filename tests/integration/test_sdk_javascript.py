"""The unmodified JavaScript SDK under Node's own test runner, against the real server: with plain processes,
and with gVisor."""

import os
import shutil
import subprocess
from collections.abc import Iterator

import pytest

from tests.conftest import REPOSITORY, Built, unavailable
from tests.harness.running_api import RunningApi, fake, gvisor, running_api

_DIRECTORY = REPOSITORY / "tests" / "js"
_FILES = sorted({path.name for path in _DIRECTORY.glob("*.test.mjs")} - {"outbound.test.mjs"})
"""All but those that `test_sdk_egress` runs."""

_TIMEOUT_S = 150


@pytest.fixture(scope="module", params=["fake", pytest.param("gvisor", marks=pytest.mark.needs_root)])
def api(
    request: pytest.FixtureRequest, built: Built, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningApi]:
    if shutil.which("node") is None or not (_DIRECTORY / "node_modules" / "@deno" / "sandbox").is_dir():
        unavailable("needs node and `npm ci` in tests/js (make setup)")
    kind = {"fake": fake, "gvisor": gvisor}[request.param](built)
    with running_api(kind, tmp_path_factory.mktemp("api")) as running:
        yield running


@pytest.mark.timeout(_TIMEOUT_S + 20)
@pytest.mark.parametrize("name", _FILES)
def test_the_javascript_sdk(api: RunningApi, name: str) -> None:
    environment = {"PATH": os.environ["PATH"], "ISOLATION": api.isolation, **api.environment()}
    result = subprocess.run(
        ["node", "--test", name],
        cwd=_DIRECTORY,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
    )
    assert result.returncode == 0, result.stdout[-20_000:] + result.stderr[-5_000:]
    assert "\n# fail 0\n" in result.stdout
    assert "\n# pass 0\n" not in result.stdout
