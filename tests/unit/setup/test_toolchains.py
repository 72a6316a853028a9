"""Which toolchains and which runsc are recent enough."""

import os
from pathlib import Path

import pytest

from setup import runsc
from setup.commands import SetupError
from setup.needs import missing
from setup.toolchains import RUST_BUILDERS, parse_version, rust_packages, versioned_rust


@pytest.mark.parametrize(
    ("printed", "version"),
    [
        ("rustc 1.95.0 (59807616e 2026-04-14)", (1, 95, 0)),
        ("1.96.0+dfsg1-1~deb12u2", (1, 96, 0)),
        ("go1.26.8", (1, 26, 8)),
        ("v20.20.2", (20, 20, 2)),
        ("", ()),
        ("none", ()),
    ],
)
def test_versions_are_read_from_what_programs_print(printed: str, version: tuple[int, ...]) -> None:
    assert parse_version(printed) == version


def fake_program(path: Path, printed: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho '{printed}'\n")
    path.chmod(0o755)


def test_the_newest_versioned_rust_that_is_whole_is_taken(tmp_path: Path) -> None:
    for version in ("1.75", "1.89", "1.91"):
        fake_program(tmp_path / f"rust-{version}" / "bin" / "rustc", f"rustc {version}.0")
    for version in ("1.75", "1.89"):
        fake_program(tmp_path / f"rust-{version}" / "bin" / "cargo", f"cargo {version}.0")
    found = versioned_rust(tmp_path, RUST_BUILDERS)
    assert found is not None
    assert found.directory == tmp_path / "rust-1.89" / "bin"


def test_an_old_versioned_rust_is_none(tmp_path: Path) -> None:
    for program in RUST_BUILDERS:
        fake_program(tmp_path / "rust-1.75" / "bin" / program, f"{program} 1.75.0")
    assert versioned_rust(tmp_path, RUST_BUILDERS) is None


def test_versioned_packages_serve_where_the_default_is_too_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    apt = """#!/bin/sh
case "$1 $2" in
"pkgnames rustc-1.") printf 'rustc-1.75\\nrustc-1.80\\nrustc-1.91\\nrustc-1.91-src\\n' ;;
"policy rustc") echo '  Candidate: 1.75.0+dfsg0ubuntu1' ;;
"policy rustc-web") echo '  Candidate: (none)' ;;
"policy rustc-"*) echo "  Candidate: ${2#rustc-}.1+dfsg0ubuntu1" ;;
esac
"""
    (tmp_path / "apt-cache").write_text(apt)
    (tmp_path / "apt-cache").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert rust_packages(("rustc", "cargo", "cargo-clippy")) == [
        "rustc-1.91",
        "cargo-1.91",
        "rust-clippy-1.91",
    ]


def fake_runsc(directory: Path, version: str) -> Path:
    program = directory / "runsc"
    program.write_text(f"#!/bin/sh\necho 'runsc version {version}'\necho 'spec: 1.2.1'\n")
    program.chmod(0o755)
    return program


@pytest.mark.parametrize(
    ("version", "recent"),
    [
        ("release-20260914.0", True),
        ("module-20260905035102-160fafc42237", True),
        ("release-20260223.0", False),
        ("0.0~20240729.0-4", False),
        ("VERSION_MISSING", False),
    ],
)
def test_an_old_runsc_is_not_used(tmp_path: Path, version: str, recent: bool) -> None:
    assert runsc.is_recent(fake_runsc(tmp_path, version)) is recent


def test_a_recent_runsc_on_the_path_is_used_where_it_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = tmp_path / "release"
    (release / "gvisor-bin").mkdir(parents=True)
    program = fake_runsc(release, "release-20260914.0")
    links = tmp_path / "bin"
    links.mkdir()
    (links / "runsc").symlink_to(program)
    monkeypatch.delenv("SKERRY_RUNSC_PATH", raising=False)
    monkeypatch.setenv("PATH", f"{links}:{os.environ['PATH']}")

    assert runsc.existing_runsc() == program


def test_a_setting_that_names_an_old_runsc_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SKERRY_RUNSC_PATH", str(fake_runsc(tmp_path, "release-20260223.0")))

    with pytest.raises(SetupError, match="SKERRY_RUNSC_PATH"):
        runsc.existing_runsc()


def test_a_runsc_that_does_not_end_is_no_runsc(tmp_path: Path) -> None:
    program = tmp_path / "runsc"
    program.write_text("#!/bin/sh\nexit 1\n")
    program.chmod(0o755)

    assert not runsc.is_recent(program)
    assert not runsc.is_recent(tmp_path / "absent")


def test_missing_names_only_what_is_not_met() -> None:
    from setup.needs import Need

    assert missing(
        [Need("zeta", lambda: False), Need("met", lambda: True), Need("alpha", lambda: False)]
    ) == [
        "alpha",
        "zeta",
    ]
