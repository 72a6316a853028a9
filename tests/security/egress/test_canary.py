"""S1, S18, I2: a secret was used, everything died and came back: its value is only where it has to be."""

import json
import os
import secrets
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Built
from tests.harness.origins.network import Internet
from tests.harness.origins.skerry import skerry_on
from tests.harness.secret_search import Found, forms, in_file, in_memory, in_tree
from tests.harness.skerry_up import SkerryUp
from tests.harness.waiting import until_true
from tests.security.egress.processes import egress_of, worker_of

pytestmark = [pytest.mark.needs_root, pytest.mark.timeout(300)]

USE = 'curl -s -m 20 -o /dev/null -w %{http_code} -H "Authorization: Bearer $KEY" https://api.test/echo'
REFLECT = (
    'curl -s -m 20 -H "Authorization: Bearer $KEY" "https://api.test/reflect?in=authorization" > $HOME/answer'
)


@pytest.fixture
def alone(net: Internet, built: Built, tmp_path: Path) -> Iterator[SkerryUp]:
    """A Skerry that is killed part by part."""
    with skerry_on(net, tmp_path) as made:
        yield made


def all_processes_of(skerry: SkerryUp) -> dict[int, str]:
    """Every process that belongs to it, sandboxes included, by descent and by control group."""
    roots = {row.process.pid for row in skerry.processes().values()}
    instance = skerry.json("status")["instance"]
    parents: dict[int, int] = {}
    found: dict[int, str] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            status = (entry / "stat").read_text()
            group = (entry / "cgroup").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        parents[int(entry.name)] = int(status.rpartition(")")[2].split()[1])
        if instance in group:
            roots.add(int(entry.name))
    for pid in parents:
        at = pid
        while at > 1 and at not in roots:
            at = parents.get(at, 0)
        if at in roots:
            found[pid] = (
                Path(f"/proc/{pid}/comm").read_text().strip() if Path(f"/proc/{pid}").exists() else ""
            )
    found.pop(os.getpid(), None)
    return found


def restart(skerry: SkerryUp, name: str) -> None:
    """Kill a daemon, and wait until its successor serves."""
    before = skerry.processes()[name].process.pid
    skerry.kill(name)

    def serves() -> bool:
        row = skerry.processes().get(name)
        if row is None or row.process.pid == before:
            return False
        done = skerry.command("status", "--json", expect=None)
        return done.returncode == 0 and bool((json.loads(done.stdout).get("server") or {}).get("egress"))

    until_true(serves, what=f"another {name}")


def use(skerry: SkerryUp, sandbox: str) -> str:
    """The status of a request that carries the secret, or of a later one, when a restart cut that."""
    got = ""

    def works() -> bool:
        nonlocal got
        done = skerry.command("exec", sandbox, USE, expect=None)
        got = done.stdout.decode()
        return got == "200"

    until_true(works, what="a request with the secret")
    return got


def test_the_value_stays_where_it_has_to_be(alone: SkerryUp, net: Internet) -> None:
    value = f"canary-{secrets.token_hex(4)}-Xw9Qz7Lk2Mn4Pv8R-{secrets.token_hex(6)}"
    needles = forms(value.encode())
    with ExitStack() as undo:
        made = [
            alone.text("create", "--timeout", "10m", "--secret", "KEY@api.test", env={"KEY": key})
            for key in (value, f"another-{secrets.token_hex(16)}")
        ]
        sandbox, neighbour = made
        for one in made:
            undo.callback(alone.command, "kill", one, expect=None)
            assert use(alone, one) == "200"
        assert value in json.dumps(net.recorded("request"))
        for name in ("egressd", "api", "hostd"):
            restart(alone, name)
            assert use(alone, sandbox) == "200"
            assert use(alone, neighbour) == "200"
        alone.command("exec", sandbox, REFLECT)
        alone.command(
            "exec", sandbox, "env > $HOME/environment; cat /proc/self/cmdline > $HOME/line; sync", expect=None
        )

        allowed = _allowed(alone, sandbox)
        wrong: list[Found] = []
        carriers: set[int] = set()
        everything = all_processes_of(alone)
        assert len(everything) > 8
        for pid in everything:
            hits = in_memory(pid, needles)
            carriers |= {pid} if hits else set()
            wrong += [hit for hit in hits if not _may_hold(hit, pid, allowed)]
        assert wrong == [], {pid: everything[pid] for pid in carriers}
        # The search finds what is there.
        assert worker_of(alone, sandbox) in carriers

        assert in_tree(alone.data.path, needles) == []
        assert in_tree(alone.runtime.path, needles) == []
        answers = _answers(alone, sandbox)
        assert [form for form in needles if form in answers] == []
        inside = alone.command(
            "exec",
            sandbox,
            f"sudo grep -rlaF {value[:20]} / --exclude-dir=proc --exclude-dir=sys",
            expect=None,
        )
        assert inside.stdout.decode().split() == []
    until_true(lambda: not _sandboxes(alone), what="the end of the sandboxes")
    left = [
        hit for pid in all_processes_of(alone) for hit in in_memory(pid, needles) if "descriptor" in hit.place
    ]
    assert left == []


def _allowed(skerry: SkerryUp, sandbox: str) -> dict[str, int]:
    pids = {name: row.process.pid for name, row in skerry.processes().items()}
    return {
        "egressd": pids["egressd"],
        "api": pids["api"],
        "up": pids["up"],
        "worker": worker_of(skerry, sandbox),
    }


def _may_hold(hit: Found, pid: int, allowed: dict[str, int]) -> bool:
    if pid == allowed["up"]:
        # It keeps the sealed memory of egressd, and does not map it.
        return hit.place.startswith("descriptor")
    return pid in allowed.values()


def _answers(skerry: SkerryUp, sandbox: str) -> bytes:
    commands: list[tuple[str, ...]] = [
        ("status", "--json"), ("status",), ("list", "--json"), ("audit", sandbox, "--json"), ("audit",
        sandbox),
        ("secrets", "list", sandbox, "--json"), ("explain", sandbox, "https://api.test/", "--json"), ("logs",
        ),
        ("exec", sandbox, "cat $HOME/answer $HOME/environment $HOME/line; env; sudo dmesg"),
    ]  # fmt: skip
    return b"".join(
        done.stdout + done.stderr for words in commands if (done := skerry.command(*words, expect=None))
    )


def _sandboxes(skerry: SkerryUp) -> list[Any]:
    return list(egress_of(skerry)["sandboxes"])


def test_the_trail_names_places_and_no_values(alone: SkerryUp, net: Internet) -> None:
    """G58, G59, S18: no values, placeholders or header values, no gaps over restarts of the worker."""
    value = "trail-value-7Hq2Xc5Vb8Nm1Kl4"
    sandbox = alone.text(
        "create",
        "--timeout",
        "10m",
        "--secret",
        "KEY@api.test",
        "--allow-net",
        "other.test",
        env={"KEY": value},
    )
    placeholder = alone.text("exec", sandbox, "printenv KEY")
    ask = f"curl -s -m 20 https://api.test/echo?q=query-{value[-9:]} -H 'X-Note: {placeholder}'"
    ask += " -H 'X-Mark: unseen-mark'"
    for words in (
        USE, ask, f"curl -s -m 9 https://other.test/{placeholder}", f"curl -s -m 9 http://{placeholder[:50].lower().replace('_','-')}.test/",
        f"curl -s -m 9 -d body-{placeholder} https://api.test/echo?q={value}", "curl -s -m 9 https://evil.example/",
        f"curl -s -m 9 https://other.test/ -H 'Authorization: Bearer {placeholder}' -A unseen-mark",
    ):  # fmt: skip
        alone.command("exec", sandbox, words, expect=None)
    os.kill(worker_of(alone, sandbox), 9)
    assert use(alone, sandbox) == "200"
    text = alone.command("audit", sandbox, "--json").stdout.decode()
    lines = [json.loads(line) for line in text.splitlines()]
    numbers = [line["seq"] for line in lines]
    assert numbers == list(range(1, len(numbers) + 1))
    assert placeholder not in text
    assert "unseen-mark" not in text
    assert f"query-{value[-9:]}" not in text
    assert value not in text
    carried = [line for line in lines if line.get("secrets")]
    assert carried
    assert all(one["name"] == "KEY" for line in carried for one in line["secrets"])
    assert {"decision", "host"} <= carried[0].keys()
    # Nobody but its owner sees it.
    other = subprocess.run(
        ["runuser", "-u", "nobody", "--", "ls", "-R", str(alone.data.path)], capture_output=True, check=False
    )
    assert b".jsonl" not in other.stdout
    alone.command("kill", sandbox)


def test_worker_is_hardened(alone: SkerryUp, net: Internet) -> None:
    """G68, S18, S22: no root, core dumps, tracing or new privileges; filtered calls, nothing opened."""
    sandbox = alone.text(
        "create", "--timeout", "10m", "--secret", "KEY@api.test", env={"KEY": "hardened-7Hq2Xc5Vb8Nm1Kl4"}
    )
    assert use(alone, sandbox) == "200"
    for pid in (worker_of(alone, sandbox), alone.processes()["egressd"].process.pid):
        status = dict(
            line.split(":\t", 1)
            for line in Path(f"/proc/{pid}/status").read_text().splitlines()
            if ":\t" in line
        )
        assert set(status["Uid"].split()) == {status["Uid"].split()[0]} != {"0"}
        assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 0
        assert status["NoNewPrivs"] == "1"
        limits = Path(f"/proc/{pid}/limits").read_text()
        (core,) = [line.split() for line in limits.splitlines() if line.startswith("Max core file size")]
        assert core[4:6] == ["0", "0"]
        environment = Path(f"/proc/{pid}/environ").read_bytes()
        assert b"SSLKEYLOGFILE" not in environment
        # Its files belong to root when it is not dumpable (proc_pid(5)).
        assert Path(f"/proc/{pid}/environ").stat().st_uid == 0
    worker = Path(f"/proc/{worker_of(alone, sandbox)}")
    assert "Seccomp:\t2" in (worker / "status").read_text()
    opened = [os.readlink(one) for one in (worker / "fd").iterdir()]
    assert not [one for one in opened if one.startswith("/") and not one.startswith("/dev/")], opened
    alone.command("kill", sandbox)


def test_the_search_finds_what_is_there(tmp_path: Path) -> None:
    value = b"search-me-1234567890"
    file = tmp_path / "sparse"
    with file.open("wb") as writing:
        writing.seek(1 << 30)
        writing.write(b"x" + value)
    assert in_file(file, forms(value)) == [Found(str(file), 0)]
    assert Found("x", 0) not in in_memory(os.getpid(), [b"never-here" + b"!" * 40])
