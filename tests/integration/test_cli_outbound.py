"""The verbs about what sandboxes may reach, as a person types them, with a gateway in memory behind the
server.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Built
from tests.harness.running_api import RunningApi, fake_with_network, running_api

pytestmark = pytest.mark.timeout(120)

VALUE = "sk-the-value-of-a-secret-0123456789"
OTHER = "sk-another-value-of-it-9876543210"
POLICY = """
default = "deny"
[[allow]]
host = "api.example"
methods = ["GET"]
"""


@pytest.fixture(scope="module")
def api(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApi]:
    with running_api(fake_with_network(built), tmp_path_factory.mktemp("api")) as running:
        yield running


class Cli:
    """The command line of one person."""

    def __init__(self, api: RunningApi, token: str) -> None:
        own = ("SKERRY_", "DENO_", "SANDBOX_ID")
        self._environment = {key: value for key, value in os.environ.items() if not key.startswith(own)}
        self._environment |= api.environment(token)

    def __call__(
        self, *words: str, stdin: str = "", expect: int = 0, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a verb to its end."""
        done = subprocess.run(
            [sys.executable, "-I", "-m", "skerry", *words],
            input=stdin,
            capture_output=True,
            text=True,
            env=self._environment | (env or {}),
            timeout=60,
            check=False,
        )
        assert done.returncode == expect, (words, done.returncode, done.stdout, done.stderr)
        return done

    def json(self, *words: str, **options: Any) -> Any:
        """What a verb prints for programs."""
        return json.loads(self(*words, "--json", **options).stdout)


@pytest.fixture
def cli(api: RunningApi) -> Cli:
    return Cli(api, api.alice)


@pytest.fixture
def admin(api: RunningApi) -> Cli:
    return Cli(api, api.admin)


@pytest.fixture
def sandbox(cli: Cli, api: RunningApi) -> Iterator[str]:
    """A sandbox with a secret."""
    words = ("create", "--timeout", "5m", "--secret", "KEY@api.example,other.example:8443")
    made = cli(*words, env={"KEY": VALUE}).stdout.strip()
    yield made
    cli("kill", made)


def _granted(api: RunningApi, sandbox_id: str) -> Any:
    return api.egress.served[sandbox_id].grant  # type: ignore[index]


def test_a_command_sees_a_placeholder_and_never_the_value(cli: Cli) -> None:
    script = 'printf "%s\\n" "$KEY"; env; cat; exit 7'
    done = cli(
        "run",
        "--secret",
        "KEY@api.example",
        "--",
        "sh",
        "-c",
        script,
        stdin="typed",
        expect=7,
        env={"KEY": VALUE},
    )
    assert done.stdout.startswith("DENO_SECRET_PLACEHOLDER_")
    assert done.stdout.endswith("typed")
    assert VALUE not in done.stdout + done.stderr
    newest = cli.json("list")[0]
    assert (newest["running"], newest["end_reason"]) == (False, "closed")


def test_a_value_comes_from_standard_input_where_there_is_no_variable(cli: Cli) -> None:
    words = ("run", "--secret", "KEY@api.example", "--allow-net", "a.example", "--", "cat")
    assert cli(*words, stdin=VALUE + "\n").stdout == "", "the command has no input then"
    cli(*words, stdin="", expect=2)
    refused = cli(
        "run", "--secret", "A@a.example", "--secret", "B@b.example", "--", "true", stdin=VALUE, expect=2
    )
    assert "only one value" in refused.stderr


@pytest.mark.parametrize("wrong", ["KEY", "@api.example", "KEY@", f"KEY={VALUE}", VALUE])
def test_a_secret_that_is_typed_wrongly_is_not_repeated(cli: Cli, wrong: str) -> None:
    refused = cli("create", "--secret", wrong, expect=2, env={"KEY": VALUE})
    assert "NAME@HOST" in refused.stderr
    assert VALUE not in refused.stdout + refused.stderr


def test_what_create_was_told_reaches_the_gateway(cli: Cli, api: RunningApi, sandbox: str) -> None:
    (secret,) = _granted(api, sandbox).secrets
    assert (secret.rule.hosts, secret.value) == (("api.example", "other.example:8443"), VALUE.encode())
    made = cli("create", "--allow-net", "a.example,*.b.example", "--allow-net", "c.example:80").stdout.strip()
    (layer,) = _granted(api, made).layers
    assert [rule.host for rule in layer.document.allow] == ["a.example", "*.b.example", "c.example"]
    cli("kill", made)
    assert "allow_net" in cli("create", "--allow-net", "http://x/", expect=2).stderr


def test_secrets_of_a_running_sandbox(cli: Cli, api: RunningApi, sandbox: str) -> None:
    (row,) = cli.json("secrets", "list", sandbox)
    assert (row["name"], row["state"], row["used"]) == ("KEY", "active", 0)
    assert "credential headers" in cli("secrets", "list", sandbox).stdout
    cli("secrets", "revoke", sandbox, "KEY")
    assert "revoked" in cli("secrets", "list", env={"SANDBOX_ID": sandbox}).stdout
    rotated = cli.json("secrets", "rotate", sandbox, "KEY", stdin=OTHER + "\n")
    assert rotated == {"sandbox_id": sandbox, "rotated": "KEY"}
    assert api.egress.served[sandbox].values == {"KEY": OTHER.encode()}  # type: ignore[index]
    cli("secrets", "rotate", sandbox, "KEY", stdin="", expect=2)
    cli("secrets", "rotate", sandbox, "KEY", stdin="short\n", expect=2)
    cli("secrets", "rotate", sandbox, "OTHER", stdin=OTHER, expect=4)
    cli("secrets", "revoke", "KEY", expect=2)


def test_explain_and_allow(cli: Cli, api: RunningApi, sandbox: str) -> None:
    assert (
        cli.json("explain", sandbox, "https://api.example/", "--method", "POST")["why"] == "POST is allowed"
    )
    assert cli("explain", sandbox, "https://api.example/").stdout.startswith(
        "allowed  https://api.example/\n"
    )
    (allowed,) = cli.json("policy", "allow", sandbox, "new.example:8443")
    assert (allowed["rule"]["host"], allowed["explanation"]["allowed"]) == ("new.example", True)
    assert api.egress.served[sandbox].added[-1].ports == (8443,)  # type: ignore[index]
    assert "may be reached now" in cli("policy", "allow", sandbox, "*.wild.example", "203.0.113.7").stdout
    cli("policy", "allow", sandbox, "http://x/", expect=2)
    cli("explain", sandbox, expect=2)
    cli("explain", "sbx_ord_" + "0" * 20, "https://x/", expect=4)


def test_the_audit_trail(cli: Cli, api: RunningApi, sandbox: str) -> None:
    lines: list[dict[str, Any]] = [
        {"seq": 1, "time_ms": 1, "event": "connection", "decision": "deny", "host": "x.example", "port": 443}
        | {"reason": "host_not_allowed", "rule": "sandbox.default"},
        {
            "seq": 2,
            "time_ms": 2,
            "event": "request",
            "decision": "allow",
            "method": "GET",
            "path": "/\x1b[31m",
        }
        | {"host": "api.example", "port": 443, "secrets": [{"name": "KEY", "slot": "header:authorization"}]},
    ]
    api.egress.audit[sandbox] = [json.dumps(line) for line in lines]  # type: ignore[index]
    shown = cli("audit", sandbox).stdout.splitlines()
    assert "deny   connection  x.example:443 reason=host_not_allowed rule=sandbox.default" in shown[0]
    assert "KEY in header:authorization" in shown[1]
    assert "\x1b" not in shown[1]
    printed = cli("audit", sandbox, "--json").stdout.splitlines()
    assert [json.loads(line) for line in printed] == lines


def test_policies(cli: Cli, admin: Cli, api: RunningApi, tmp_path: Path) -> None:
    file = tmp_path / "ci.toml"
    file.write_text(POLICY)
    assert admin("policy", "lint", str(file)).stdout
    assert "no running sandbox" in admin("policy", "set", "ci", str(file), "--shared").stdout
    as_json = json.dumps({"allow": [{"host": "one.example"}]})
    assert admin.json("policy", "set", "mine", "-", "--owner", "alice", stdin=as_json)["sandboxes"] == 0
    assert {row["name"] for row in cli.json("policy", "list")} == {"ci", "mine"}
    assert "(shared)" in cli("policy", "list").stdout
    assert json.loads(cli("policy", "show", "ci").stdout)["allow"][0]["methods"] == ["GET"]
    made = cli("create", "--label", "policy=ci").stdout.strip()
    assert [layer.name for layer in _granted(api, made).layers] == ["policy:ci", "sandbox"]
    assert admin.json("policy", "set", "ci", str(file), "--shared")["sandboxes"] == 1
    admin("policy", "delete", "ci", "--shared", expect=5)
    cli("kill", made)
    admin("policy", "delete", "ci", "--shared")
    admin("policy", "delete", "mine", "--owner", "alice")
    cli("policy", "show", "ci", expect=4)
    assert "there are none yet" in cli("create", "--label", "policy=ci", expect=2).stderr
    cli("policy", "set", "ci", str(file), expect=3)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("allow = 7", "allow"),
        ('[[allow]]\nhost = "*.com"', "allow[0].host"),
        ("nonsense = 1", "nonsense"),
        ("{", "TOML"),
    ],
)
def test_a_policy_that_is_wrong_says_where(admin: Cli, tmp_path: Path, text: str, named: str) -> None:
    file = tmp_path / "wrong.toml"
    file.write_text(text)
    for words in (("policy", "lint", str(file)), ("policy", "set", "wrong", str(file))):
        assert named in admin(*words, expect=2).stderr
    assert "cannot be read" in admin("policy", "lint", str(tmp_path / "missing"), expect=2).stderr
