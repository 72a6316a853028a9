"""What sandboxes may reach after restarts of every process, under a whole Skerry: nothing is lost but values
that nobody held any more.
"""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Built
from tests.harness.skerry_up import SkerryUp

pytestmark = [pytest.mark.needs_root, pytest.mark.timeout(180)]

DEADLINE_S = 30.0
VALUE = "the-value-of-a-secret-0123456789"
OTHER = "another-value-of-it-9876543210"
EVERY_DAEMON = ("up", "api", "egressd", "hostd")


@pytest.fixture
def skerry(tmp_path: Path, built: Built) -> Iterator[SkerryUp]:
    """One that is taken down at the end, and must leave nothing."""
    made = SkerryUp(tmp_path / "data")
    made.environment |= {"SKERRY_POOL_SIZE": "1"}
    made.up()
    yield made
    made.command("down", expect=None)
    assert made.leftovers() == []


def until(condition: Callable[[], object], what: str) -> None:
    """Wait for a condition."""
    until_s = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < until_s, f"{what} did not come about"
        time.sleep(0.05)


def gateway(skerry: SkerryUp) -> dict[str, Any] | None:
    """What the server says of egressd; None when it does not answer now."""
    done = skerry.command("status", "--json", expect=None)
    found: dict[str, Any] = json.loads(done.stdout)
    server = found.get("server") or {}
    egress: dict[str, Any] | None = server.get("egress")
    return egress


def served(skerry: SkerryUp) -> dict[str, dict[str, Any]]:
    """By sandbox, what egressd has of it."""
    return {one["sandbox_id"]: one for one in (gateway(skerry) or {"sandboxes": ()})["sandboxes"]}


def verdicts(skerry: SkerryUp, sandbox_id: str) -> list[bool]:
    """May it reach what was allowed at its create, what was allowed since, and anything else?"""
    hosts = ("one.example.com", "two.example.com", "three.example.com")
    found = [
        skerry.command("explain", sandbox_id, f"https://{host}/", "--json", expect=None) for host in hosts
    ]
    return [bool(json.loads(one.stdout)["allowed"]) for one in found]


def kill(skerry: SkerryUp, *names: str) -> None:
    """Kill processes and wait until others have taken their place."""
    before = {name: row.process for name, row in skerry.processes().items()}
    skerry.kill(*names)

    def back() -> bool:
        skerry.ensure_up()
        now = {name: row.process for name, row in skerry.processes().items()}
        return set(EVERY_DAEMON) <= now.keys() and all(now[name] != before[name] for name in names)

    until(back, "the restart")
    until(lambda: gateway(skerry) is not None, "an answer of egressd")


@pytest.mark.parametrize(
    "names",
    [
        pytest.param(("api",), marks=pytest.mark.soak),
        ("egressd",),
        pytest.param(("hostd",), marks=pytest.mark.soak),
        pytest.param(EVERY_DAEMON, marks=pytest.mark.soak),
    ],
    ids=" ".join,
)
def test_what_may_be_reached_survives(skerry: SkerryUp, names: tuple[str, ...]) -> None:
    made = skerry.text("create", "--timeout", "10m", "--allow-net", "one.example.com")
    public = skerry.text("create", "--timeout", "10m")
    skerry.command("policy", "allow", made, "two.example.com")
    assert verdicts(skerry, made) == [True, True, False]
    kill(skerry, *names)
    until(lambda: served(skerry).keys() == {made, public}, "both grants")
    assert verdicts(skerry, made) == [True, True, False]
    assert verdicts(skerry, public) == [True, True, True]
    skerry.command("kill", made)
    assert served(skerry).keys() == {public}


def test_a_value_outlives_every_daemon_but_not_all_of_them(skerry: SkerryUp) -> None:
    words = ("create", "--timeout", "10m", "--secret", "KEY@api.example.com")
    made = skerry.text(*words, env={"KEY": VALUE})
    placeholder = skerry.text("exec", made, 'echo "$KEY"')
    for name in ("egressd", "api", "hostd"):
        kill(skerry, name)
        assert _state(skerry, made) == "active"
        assert served(skerry)[made]["lost"] is False
    kill(skerry, *EVERY_DAEMON)
    until(lambda: served(skerry).get(made, {}).get("lost"), "the loss to be known")
    assert _state(skerry, made) == "lost"
    assert made in skerry.text("status")
    skerry.command("secrets", "rotate", made, "KEY", stdin=OTHER.encode())
    assert _state(skerry, made) == "active"
    assert skerry.text("exec", made, 'echo "$KEY"') == placeholder
    for file in skerry.data.path.glob("logs/*"):
        text = file.read_text()
        assert VALUE not in text
        assert OTHER not in text


def _state(skerry: SkerryUp, sandbox_id: str) -> str:
    (row,) = skerry.json("secrets", "list", sandbox_id)
    return str(row["state"])


def test_policies_survive_and_running_sandboxes_follow(skerry: SkerryUp, tmp_path: Path) -> None:
    file = tmp_path / "base.toml"
    file.write_text('[[allow]]\nhost = "one.example.com"\n')
    skerry.command("policy", "set", "base", str(file))
    made = skerry.text("create", "--timeout", "10m", "--label", "policy=base")
    assert verdicts(skerry, made) == [True, False, False]
    kill(skerry, *EVERY_DAEMON)
    until(lambda: made in served(skerry), "the grant")
    assert verdicts(skerry, made) == [True, False, False]
    file.write_text('[[allow]]\nhost = "two.example.com"\n')
    assert skerry.json("policy", "set", "base", str(file))["sandboxes"] == 1
    assert verdicts(skerry, made) == [False, True, False]
    skerry.command("policy", "allow", made, "three.example.com", expect=1)
    skerry.command("policy", "delete", "base", expect=5)
