"""Which runsc it is, and what it is told."""

from datetime import date
from pathlib import Path

import pytest

from skerry.hostd.drivers.runsc import Runsc, RunscVersion, parse_build_information, parse_version

BUILT = (
    b"\x00\xffpath\tgvisor.dev/gvisor/runsc\n"
    b"dep\tgvisor.dev/gvisor\tv0.0.0-20260905035102-160fafc42237\th1:x=\n"
)


def test_a_release_names_itself() -> None:
    found = parse_version("runsc version release-20240729.0\nspec: 1.1.0-rc.1\n")

    assert found == RunscVersion("release-20240729.0", date(2024, 7, 29))


@pytest.mark.parametrize("output", ["", "runsc version VERSION_MISSING\nspec: 1.2.1\n"])
def test_what_names_no_release_is_not_guessed(output: str) -> None:
    assert parse_version(output) is None


def test_a_binary_built_from_the_module_is_recognised_by_its_build_information() -> None:
    found = parse_build_information(BUILT)

    assert found == RunscVersion("v0.0.0-20260905035102-160fafc42237", date(2026, 9, 5))
    assert parse_build_information(b"nothing of the kind") is None


@pytest.mark.parametrize(
    ("released", "wastes"), [(date(2026, 2, 24), True), (date(2026, 9, 5), False), (None, False)]
)
def test_old_versions_are_known_to_waste_cpu(released: date | None, wastes: bool) -> None:
    assert RunscVersion("x", released).wastes_cpu_when_idle is wastes


def test_the_root_is_not_hidden_in_memory_and_only_opening_sockets_is_allowed() -> None:
    flags = Runsc(Path("/opt/runsc"), Path("/run/skerry/abc123/runsc")).flags

    assert "--overlay2=none" in flags
    assert "--host-uds=open" in flags
    assert "--network=sandbox" in flags
    assert not [flag for flag in flags if "debug" in flag or "strace" in flag]


def test_forgetting_removes_only_the_files_of_one_container(tmp_path: Path) -> None:
    name, other = "skerry-abc123-ord-" + "a" * 20, "skerry-abc123-ord-" + "b" * 20
    for file in (
        f"{name}_sandbox:{name}.state",
        f"{name}_sandbox:{name}.lock",
        f"runsc-{name}.sock",
        f"{other}.state",
    ):
        (tmp_path / file).touch()
    runsc = Runsc(Path("/opt/runsc"), tmp_path)

    runsc.forget(name)
    runsc.forget(name)

    assert [file.name for file in tmp_path.iterdir()] == [f"{other}.state"]
