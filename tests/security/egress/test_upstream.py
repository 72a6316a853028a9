"""The way out of the host: address families, other people's firewall rules, origins that are not there."""

import json
import secrets
import subprocess
from collections.abc import Iterator

import pytest

from skerry.policy.verdict import Reason
from tests.harness.origins.network import Internet
from tests.harness.skerry_up import SkerryUp
from tests.security.egress.conftest import VALUE, Create

pytestmark = [pytest.mark.needs_root, pytest.mark.timeout(120)]

STRICT_RULES = """
table inet NAME {
  chain forward {
    type filter hook forward priority filter; policy drop;
  }
  chain input {
    type filter hook input priority filter; policy drop;
    iif lo accept
    ct state established,related accept
  }
}
"""


@pytest.fixture
def strict_firewall() -> Iterator[None]:
    """Rules of the kind that ufw, firewalld and Docker bring."""
    name = f"test_{secrets.token_hex(4)}"
    rules = STRICT_RULES.replace("NAME", name).encode()
    subprocess.run(["nft", "-f", "-"], input=rules, check=True, timeout=20)
    yield
    subprocess.run(["nft", "delete", "table", "inet", name], check=True, timeout=20)


def test_an_origin_that_has_only_ipv6_is_reached(create: Create, net: Internet) -> None:
    net.forget()
    with create(allow_net=["six6.test"], secrets={"KEY": {"hosts": ["six6.test"], "value": VALUE}}) as guest:
        status, printed = guest.shell(
            'curl -sS -o /dev/null -w "%{http_code}" -H "Authorization: Bearer $KEY" https://six6.test/echo'
        )
    assert (status, printed) == (0, "200")
    (got,) = net.recorded("request")
    assert ":" in got["local"]


@pytest.mark.usefixtures("strict_firewall")
def test_it_works_beside_strict_rules(create: Create) -> None:
    with create(allow_net=["other.test"]) as guest:
        status, printed = guest.shell("curl -sS -o /dev/null -w '%{http_code}' https://other.test/echo")
    assert (status, printed) == (0, "200")


def test_an_origin_that_is_not_there_is_told_at_once(create: Create) -> None:
    with create(secrets={"KEY": {"hosts": ["api.test"], "value": VALUE}}, allow_net=["gone.test"]) as guest:
        _, refused = guest.shell('curl -sS -m 20 -w "%{http_code}" https://api.test:444/')
        _, unknown = guest.shell("curl -sS -m 20 http://gone.test/")
    assert Reason.UPSTREAM_UNREACHABLE in refused
    assert Reason.NAME_NOT_FOUND in unknown


def test_the_worker_is_named_and_is_nobody(create: Create, skerry: SkerryUp) -> None:
    """G68: its user, no rights, no core files, not dumpable, a filter of system calls, nothing in its
    environment."""
    with create(allow_net=["other.test"]) as guest:
        assert guest.shell("curl -sS -o /dev/null https://other.test/echo")[0] == 0
        pid = next(
            int(one["worker_pid"])
            for one in skerry.json("status")["server"]["egress"]["sandboxes"]
            if one["sandbox_id"] == guest.id
        )
        with open(f"/proc/{pid}/status") as file:
            status = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
        with open(f"/proc/{pid}/environ", "rb") as file:
            environment = file.read()
        with open(f"/proc/{pid}/limits") as file:
            limits = file.read()
    uids = set(status["Uid"].split())
    assert len(uids) == 1
    assert uids != {"0"}
    assert {status[name] for name in ("CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    assert "SECRET" not in environment.decode(errors="replace").upper()
    assert [line.split()[4:6] for line in limits.splitlines() if line.startswith("Max core")] == [["0", "0"]]
    assert json.dumps(VALUE) not in environment.decode(errors="replace")
