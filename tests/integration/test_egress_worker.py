"""A sandbox's worker as a real process: redirected connections, its filter, its end."""

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.conftest import REPOSITORY
from tests.integration.egress_worker_child import PLACEHOLDER, VALUE

pytestmark = pytest.mark.needs_root


@pytest.fixture(scope="module")
def seen() -> dict[str, Any]:
    """What was seen in a network namespace of its own."""
    done = subprocess.run(
        ["unshare", "--net", sys.executable, "-m", "tests.integration.egress_worker_child"],
        cwd=REPOSITORY,
        capture_output=True,
        timeout=50,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_splicing_shows_the_origins_own_certificate(seen: dict[str, Any]) -> None:
    issuer, answer = seen["spliced"]
    assert issuer == "Skerry test roots"
    assert "GET /a HTTP/1.1" in answer


def test_inspecting_puts_the_secret_in_and_takes_it_out_again(seen: dict[str, Any]) -> None:
    issuer, answer = seen["inspected"]
    assert issuer.startswith("Skerry gateway of")
    assert answer.startswith("HTTP/1.1 200")
    assert VALUE.decode() not in answer
    assert PLACEHOLDER not in answer, "the origin got something else than the placeholder"
    assert seen["used"] == {"KEY": 1}


def test_a_denial_can_be_read(seen: dict[str, Any]) -> None:
    _, answer = seen["denied"]
    assert answer.startswith("HTTP/1.1 403")
    assert '"reason":"self"' in answer


def test_the_trail_has_everything_and_no_secret(seen: dict[str, Any]) -> None:
    lines = seen["lines"]
    assert [line["seq"] for line in lines] == list(range(1, len(lines) + 1))
    hosts = {line.get("host") for line in lines}
    assert {"spliced.test", "bound.test", "198.18.0.1"} <= hosts
    text = json.dumps(lines)
    assert VALUE.decode() not in text
    assert PLACEHOLDER not in text


def test_the_process_is_as_small_as_it_can_be(seen: dict[str, Any]) -> None:
    status = dict(line.split(":", 1) for line in seen["status"].splitlines())
    assert status["Seccomp"].strip() == "2"
    assert status["NoNewPrivs"].strip() == "1"
    assert status["Threads"].strip() == "1"
    assert seen["descriptors"] < 20


def test_it_ends_when_it_is_told_to(seen: dict[str, Any]) -> None:
    assert seen["exit"] == 0
