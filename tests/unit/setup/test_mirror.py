"""Which archives the base image is built from, by what apt is configured with."""

from pathlib import Path

import pytest

from setup.mirror import (
    Source,
    configured_sources,
    parse_deb822,
    parse_one_line,
    sources_of_release,
)

MIRROR = "http://mirror.example/debian"


def test_one_line_sources_with_and_without_options() -> None:
    text = f"""\
# deb {MIRROR} bookworm main
deb {MIRROR}/ bookworm main contrib
deb [arch=amd64 signed-by=/k.gpg] {MIRROR} bookworm-updates main
deb-src {MIRROR} bookworm main
"""
    assert list(parse_one_line(text)) == [Source(MIRROR, "bookworm"), Source(MIRROR, "bookworm-updates")]


def test_deb822_sources_with_several_values_continuation_lines_and_disabled_stanzas() -> None:
    text = f"""\
Types: deb deb-src
# a comment inside
URIs: {MIRROR}/
Suites: bookworm
 bookworm-updates
Components: main

Types: deb-src
URIs: {MIRROR}
Suites: trixie

Enabled: no
Types: deb
URIs: {MIRROR}
Suites: sid
"""
    assert list(parse_deb822(text)) == [Source(MIRROR, "bookworm"), Source(MIRROR, "bookworm-updates")]


def test_both_formats_are_read_and_others_are_not(tmp_path: Path) -> None:
    folder = tmp_path / "sources.list.d"
    folder.mkdir()
    (tmp_path / "sources.list").write_text("deb http://one.example/debian trixie main\n")
    (folder / "two.list").write_text("deb http://two.example/debian trixie main\n")
    (folder / "three.sources").write_text(
        "Types: deb\nURIs: http://three.example/debian\nSuites: trixie\nComponents: main\n"
    )
    (folder / "four.list.disabled").write_text("deb http://four.example/debian trixie main\n")

    hosts = [source.uri.split("/")[2] for source in configured_sources(tmp_path)]

    assert hosts == ["one.example", "two.example", "three.example"]


def test_another_release_lies_where_the_machine_has_its_own() -> None:
    own = [
        Source("http://mirror.example/debian-security", "bookworm-security"),
        Source("http://tools.example/apt", "nodistro"),
        Source(MIRROR, "bookworm"),
        Source("http://slow.example/debian", "bookworm"),
        Source(MIRROR, "bookworm-updates"),
        Source(MIRROR, "bookworm-backports"),
    ]
    assert sources_of_release(own, "trixie") == [
        Source(MIRROR, "trixie"),
        Source(MIRROR, "trixie-updates"),
        Source("http://mirror.example/debian-security", "trixie-security"),
    ]


@pytest.mark.parametrize("suite", ["noble", "noble-security", "jammy-updates"])
def test_ubuntu_has_no_debian_mirror(suite: str) -> None:
    assert sources_of_release([Source("http://mirror.example/ubuntu", suite)], "trixie") == []


@pytest.mark.parametrize(
    ("uri", "public"),
    [
        ("http://ftp.debian.org/debian", True),
        ("https://FTP.DEBIAN.ORG/debian", True),
        ("http://debian.org.example/debian", False),
        ("http://notdebian.org/debian", False),
        ("http://user:secret@ftp.debian.org/debian", False),
        ("file:///srv/debian", False),
    ],
)
def test_only_an_address_of_the_debian_project_may_stay_in_the_image(uri: str, public: bool) -> None:
    assert Source(uri, "trixie").is_public is public
