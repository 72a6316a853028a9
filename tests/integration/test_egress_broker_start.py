"""What egressd makes of its settings when it starts, and why it does not start."""

import os
from pathlib import Path

import pytest

from skerry.daemon.launch import DaemonFailed
from skerry.spec.settings import EgressSettings
from tests.harness.certificates import certificate
from tests.harness.egress_ground import HOST, ID, grant
from tests.harness.egressd_process import EgressdProcess, client_of, egressd

pytestmark = [pytest.mark.needs_root, pytest.mark.timeout(120)]


async def test_roots_of_the_operator_go_to_workers_and_to_guests(tmp_path: Path) -> None:
    file = tmp_path / "company.pem"
    file.write_bytes(certificate("company"))
    file.chmod(0o600)
    settings = EgressSettings(extra_roots=(str(file),), trust_host_roots=True)
    async with egressd(egress=settings) as process, client_of(process) as egress:
        made = await egress.grant(grant())
        assert file.read_text().strip() in made.extra_roots_pem
        rules = await process.tell("rules")
        (readable,) = rules["settings"]["extra_roots"]
        assert readable == str(process.place.egress_roots)
        assert os.stat(readable).st_mode & 0o777 == 0o644
        assert "no resolver" in (await egress.describe()).problems[0]


async def test_the_operators_policy_bounds_everybody(tmp_path: Path) -> None:
    file = tmp_path / "policy.toml"
    file.write_text(f'[[allow]]\nhost = "{HOST}"\n')
    file.chmod(0o600)
    async with egressd(egress=EgressSettings(policy=str(file))) as process, client_of(process) as egress:
        await egress.grant(grant(hosts=(HOST, "other.example.com")))
        allowed = await egress.explain(ID, f"https://{HOST}/")
        denied = await egress.explain(ID, "https://other.example.com/")
        assert (allowed.allowed, denied.allowed) == (True, False)
        assert "operator" in denied.rule


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"policy": "/nonexistent/policy.toml"}, "egress.policy: /nonexistent/policy.toml cannot be read"),
        ({"extra_roots": ("/nonexistent/roots.pem",)}, "egress.extra_roots: /nonexistent/roots.pem cannot"),
    ],
)
async def test_settings_that_cannot_be_followed_stop_the_start(
    settings: dict[str, object], message: str, tmp_path: Path
) -> None:
    process = EgressdProcess(tmp_path, worker="stub", allowed_uid=0, egress=EgressSettings(**settings))  # type: ignore[arg-type]
    with pytest.raises(DaemonFailed, match=message):
        await process.start()
    process.gateways.stop()
    process.close()
