"""Whether a driver works is found out by running a sandbox, not by looking."""

from pathlib import Path
from typing import Any

import pytest

from skerry.spec.sandbox import DriverReport, Isolation
from tests.conftest import Built
from tests.harness.hostd_process import IMAGE, client_of, instance

pytestmark = [pytest.mark.needs_root, pytest.mark.timeout(120)]


async def report_of(built: Built, **changes: Any) -> DriverReport:
    async with instance(built, **changes) as hostd, client_of(hostd) as host:
        found = await host.describe()
        assert found.images == {IMAGE: built.image_digest}
        assert await host.inspect() == []
        (report,) = [one for one in found.drivers if one.isolation is Isolation.GVISOR]
        return report


async def test_a_host_that_works_is_usable_and_names_the_version(built: Built) -> None:
    report = await report_of(built)

    assert report.usable, report.missing
    assert report.version
    assert report.warnings == ()


async def test_a_runsc_that_runs_but_cannot_start_a_sandbox_is_not_usable(
    built: Built, tmp_path: Path
) -> None:
    broken = tmp_path / "runsc"
    broken.write_text(
        '#!/bin/sh\n[ "$1" = --version ] && exec echo release-20990101.0\necho "no such luck" >&2; exit 1\n'
    )
    broken.chmod(0o755)

    report = await report_of(built, runsc_path=str(broken))

    assert not report.usable
    assert "no such luck" in report.missing[0]


@pytest.mark.parametrize(
    ("changes", "named"),
    [({"runsc_path": ""}, "runsc"), ({"runsc_path": "/nonexistent"}, "runsc"), ({"agent_path": ""}, "agent")],
)
async def test_what_is_missing_is_named(built: Built, changes: dict[str, Any], named: str) -> None:
    report = await report_of(built, **changes)

    assert not report.usable
    assert any(named in sentence for sentence in report.missing)
