"""What people type, against a whole Skerry and an internet of the tests: secrets used in their slots, rules
that change while code runs, the trail that it leaves, and the proof that `skerry doctor` gives.
"""

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from skerry.cli.outbound_check import outbound_check
from tests.conftest import Built
from tests.harness.origins.network import Internet, internet
from tests.harness.origins.skerry import skerry_on
from tests.harness.skerry_up import SkerryUp

pytestmark = [pytest.mark.needs_root, pytest.mark.timeout(180)]

DEADLINE_S = 30.0
VALUE = "sk-live-7Qv9xZk2LmN4pRt8WcYb3HdF6"
OTHER = "sk-live-9Wn3bVc6XzA1sDf4GhJk8LqEr"
SPEAK = 'curl -s -m 20 -H "Authorization: Bearer $KEY" https://api.test/'
STATUS = "curl -s -m 20 -o /dev/null -w %{http_code}"


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Internet]:
    """The internet of these tests."""
    with internet(tmp_path_factory.mktemp("internet")) as made:
        yield made


@pytest.fixture(scope="module")
def skerry(net: Internet, built: Built, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SkerryUp]:
    """A Skerry of its own; afterwards nothing may be left."""
    with skerry_on(net, tmp_path_factory.mktemp("verbs")) as made:
        yield made


@pytest.fixture
def sandbox(skerry: SkerryUp) -> Iterator[str]:
    """One with a secret for api.test, and nothing else that it may reach."""
    words = ("create", "--timeout", "10m", "--allow-net", "api.test", "--secret", "KEY@api.test")
    made = skerry.text(*words, env={"KEY": VALUE})
    yield made
    skerry.command("kill", made)


def sent(net: Internet) -> list[str]:
    """The values of Authorization that origins got, oldest first."""
    return [
        value
        for request in net.recorded("request")
        for name, value in request["fields"]
        if name.lower() == "authorization"
    ]


def until(condition: Callable[[], object], what: str) -> None:
    """Wait for a condition."""
    until_s = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < until_s, f"{what} did not come about"
        time.sleep(0.05)


def test_one_line_uses_a_secret_that_its_code_never_sees(
    skerry: SkerryUp, net: Internet, tmp_path: Path
) -> None:
    net.forget()
    (tmp_path / "agent.sh").write_text(f'echo "$KEY"; {SPEAK}; exit 5\n')
    words = ("run", "--secret", "KEY@api.test", "--allow-net", "other.test", "--copy", f"{tmp_path}/.")
    done = skerry.command(*words, "--", "bash", "agent.sh", env={"KEY": VALUE}, expect=5)
    shown, answer = done.stdout.decode().split("\n", 1)
    assert shown.startswith("DENO_SECRET_PLACEHOLDER_")
    assert sent(net) == [f"Bearer {VALUE}"]
    assert json.loads(answer)["method"] == "GET"
    assert VALUE not in answer
    assert VALUE.encode() not in done.stderr


def test_a_host_can_be_allowed_while_code_runs(skerry: SkerryUp, net: Internet, sandbox: str) -> None:
    fetch = f"{STATUS} https://other.test/"
    assert skerry.command("exec", sandbox, fetch, expect=None).stdout == b"000"
    assert b"host_not_allowed" in skerry.command("explain", sandbox, "https://other.test/", expect=1).stdout
    allowed = skerry.text("policy", "allow", sandbox, "other.test")
    assert "may be reached now" in allowed
    assert skerry.text("exec", sandbox, fetch) == "200"
    explained = skerry.json("explain", sandbox, "https://api.test/x", "--method", "POST")
    assert (explained["allowed"], explained["mode"]) == (True, "inspect")
    assert [slot["secret"] for slot in explained["slots"]]


def test_a_wildcard_that_is_allowed_live_is_trusted_at_once(skerry: SkerryUp, net: Internet) -> None:
    made = skerry.text("create", "--timeout", "10m")
    skerry.command("policy", "allow", made, "*.web.test")
    fetch = f"{STATUS} https://a.web.test/"
    assert skerry.text("exec", made, fetch) == "200"
    skerry.command("kill", made)


def test_a_secret_is_rotated_and_revoked_while_code_runs(
    skerry: SkerryUp, net: Internet, sandbox: str
) -> None:
    net.forget()
    skerry.command("exec", sandbox, SPEAK)
    skerry.command("secrets", "rotate", sandbox, "KEY", stdin=f"{OTHER}\n".encode())
    skerry.command("exec", sandbox, SPEAK)
    assert sent(net) == [f"Bearer {VALUE}", f"Bearer {OTHER}"]
    until(lambda: skerry.json("secrets", "list", sandbox)[0]["used"] == 2, "the count of its uses")
    skerry.command("secrets", "revoke", sandbox, "KEY")
    refused = json.loads(skerry.text("exec", sandbox, SPEAK))
    assert (refused["error"], refused["reason"]) == ("egress_denied", "secret_revoked")
    assert len(sent(net)) == 2


def test_the_trail_is_followed_to_the_end_and_readable_after_it(skerry: SkerryUp, net: Internet) -> None:
    words = ("create", "--timeout", "10m", "--secret", "KEY@api.test")
    made = skerry.text(*words, env={"KEY": VALUE})
    with skerry.begin("audit", made, "--follow", "--json", stdout=subprocess.PIPE) as following:
        skerry.command("exec", made, SPEAK)
        assert following.stdout is not None
        first = json.loads(following.stdout.readline())
        assert (first["host"], first["decision"]) == ("api.test", "allow")
        skerry.command("kill", made)
        rest = [json.loads(line) for line in following.stdout]
        assert following.wait(DEADLINE_S) == 0
    lines = [first, *rest]
    assert [line["seq"] for line in lines] == list(range(1, len(lines) + 1))
    carried = [line["secrets"] for line in lines if line.get("secrets")]
    assert carried[0][0]["name"] == "KEY"
    printed = skerry.command("audit", made, "--json").stdout.decode()
    assert [json.loads(line) for line in printed.splitlines()] == lines
    assert VALUE not in printed
    assert "api.test:443" in skerry.text("audit", made)


def test_a_named_policy_narrows_what_runs(skerry: SkerryUp, net: Internet, tmp_path: Path) -> None:
    file = tmp_path / "reading.toml"
    file.write_text('[[allow]]\nhost = "api.test"\nmethods = ["GET"]\n')
    skerry.command("policy", "set", "reading", str(file))
    made = skerry.text("create", "--timeout", "10m", "--allow-net", "api.test", "--label", "policy=reading")
    assert skerry.text("exec", made, f"{STATUS} https://api.test/") == "200"
    assert skerry.text("exec", made, f"{STATUS} -d x https://api.test/") == "403"
    file.write_text('[[allow]]\nhost = "api.test"\nmethods = ["GET", "POST"]\n')
    skerry.command("policy", "set", "reading", str(file))
    assert skerry.text("exec", made, f"{STATUS} -d x https://api.test/") == "200"
    file.write_text('default = "deny"\n')
    skerry.command("policy", "set", "reading", str(file))
    assert skerry.command("exec", made, f"{STATUS} https://api.test/", expect=None).stdout == b"000"
    skerry.command("kill", made)
    skerry.command("policy", "delete", "reading")


def test_status_names_the_gateway_and_the_worker_of_each_sandbox(skerry: SkerryUp, sandbox: str) -> None:
    assert _egress(skerry, sandbox)["worker_pid"] is None, "it has sent nothing yet"
    skerry.command("exec", sandbox, SPEAK)
    worker = _egress(skerry, sandbox)["worker_pid"]
    assert Path(f"/proc/{worker}/status").read_text().splitlines()[8].split()[1] != "0", "no root"
    server = skerry.json("status")["server"]
    assert server["egress"]["pid"] == skerry.processes()["egressd"].process.pid
    assert server["egress_problem"] is None
    os.kill(worker, 9)
    until(lambda: _egress(skerry, sandbox)["worker_pid"] != worker, "the news of its end")
    assert skerry.text("exec", sandbox, f"{STATUS} https://api.test/") == "200"


def _egress(skerry: SkerryUp, sandbox_id: str) -> dict[str, Any]:
    found = skerry.json("status")["server"]["egress"]["sandboxes"]
    return next(one for one in found if one["sandbox_id"] == sandbox_id)


def test_the_doctor_proves_the_way_out(skerry: SkerryUp, net: Internet) -> None:
    net.forget()
    check = outbound_check(skerry.data.path, host="web.test")
    assert (check.state, check.fix) == ("ok", ""), check
    assert [request["host"] for request in net.recorded("request")] == ["web.test"]
    assert sent(net) == []
    refused = outbound_check(skerry.data.path, host="badcert.test")
    assert refused.state in ("warning", "missing")
    assert "upstream_certificate" in refused.detail
