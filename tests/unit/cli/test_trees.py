"""Copies: names and links from a sandbox never lead outside of the target."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from skerry.cli.trees import Found, Kind, LocalTree, Names, Report, checked_name, copy_tree
from skerry.errors import Conflict, InvalidRequest, NotFound


class HostileTree:
    """A sandbox's side that answers whatever it likes."""

    def __init__(self, listings: dict[Names, list[tuple[str, Kind]]], content: bytes = b"content") -> None:
        self._listings = listings
        self._content = content

    async def look(self, names: Names) -> Found | None:
        return Found("dir") if names in self._listings else Found("file", len(self._content), 0o7755 & 0o777)

    async def entries(self, names: Names) -> list[tuple[str, Kind]]:
        return self._listings[names]

    @asynccontextmanager
    async def read(self, names: Names, found: Found) -> AsyncIterator[AsyncIterator[bytes]]:
        async def chunks() -> AsyncIterator[bytes]:
            if names[-1:] == ("broken",):
                yield b"half"
                raise NotFound("gone")
            yield self._content

        yield chunks()

    async def make_directory(self, names: Names) -> None:
        raise NotImplementedError

    async def write(self, names: Names, chunks: AsyncIterator[bytes], mode: int) -> None:
        raise NotImplementedError


def everything_below(root: Path) -> dict[str, bytes | None]:
    """Files and directories by relative path."""
    return {
        str(path.relative_to(root)): None if path.is_dir() else path.read_bytes() for path in root.rglob("*")
    }


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/etc/passwd", "../x", "a\0b", "x" * 256, "ü" * 128])
def test_names_that_are_no_single_component(name: str) -> None:
    with pytest.raises(InvalidRequest, match="no usable file name"):
        checked_name(name)


@pytest.mark.parametrize("name", ["a", "..a", "-rf", "a b", "a\nb", "ü" * 127, "\udcff"])
def test_strange_names_that_are_fine(name: str) -> None:
    assert checked_name(name) == name


async def test_hostile_names_and_links_stay_out(tmp_path: Path) -> None:
    source = HostileTree(
        {
            (): [
                ("../escape", "file"),
                ("..", "dir"),
                ("good", "file"),
                ("link", "symlink"),
                ("pipe", "other"),
            ],
        }
    )
    target, report = tmp_path / "target", Report("sbx:/src")
    await copy_tree(source, LocalTree(target), report)
    assert everything_below(tmp_path) == {"target": None, "target/good": b"content"}
    assert report.files == 1
    assert report.bytes == 7
    assert report.left_out == ["sbx:/src/link: a symbolic link", "sbx:/src/pipe: not a regular file"]
    assert len(report.problems) == 2


async def test_a_link_that_waits_in_the_target_is_not_followed(tmp_path: Path) -> None:
    outside, target = tmp_path / "outside", tmp_path / "target"
    outside.mkdir()
    (outside / "file").write_text("mine")
    target.mkdir()
    (target / "dir").symlink_to(outside)
    (target / "file").symlink_to(outside / "file")
    source = HostileTree({(): [("dir", "dir"), ("file", "file")], ("dir",): [("file", "file")]})
    report = Report("src")
    await copy_tree(source, LocalTree(target), report)
    assert everything_below(outside) == {"file": b"mine"}
    assert not (target / "file").is_symlink()
    assert (target / "file").read_bytes() == b"content"
    assert len(report.problems) == 1
    assert report.problems[0].startswith("src/dir:")


async def test_what_fails_leaves_the_old_file_and_the_rest_goes_on(tmp_path: Path) -> None:
    (tmp_path / "broken").write_text("old")
    report = Report("src")
    await copy_tree(HostileTree({(): [("broken", "file"), ("fine", "file")]}), LocalTree(tmp_path), report)
    assert everything_below(tmp_path) == {"broken": b"old", "fine": b"content"}
    assert report.problems == ["src/broken: gone"]


async def test_an_endless_tree_ends(tmp_path: Path) -> None:
    class Endless(HostileTree):
        async def entries(self, names: Names) -> list[tuple[str, Kind]]:
            return [("d", "dir")]

        async def look(self, names: Names) -> Found | None:
            return Found("dir")

    report = Report("src")
    await copy_tree(Endless({}), LocalTree(tmp_path), report, max_depth=5)
    assert (tmp_path / "d/d/d/d/d").is_dir()
    assert not (tmp_path / "d/d/d/d/d/d").exists()
    assert len(report.problems) == 1


async def test_here_to_here_keeps_contents_and_modes(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "sub" / "empty").mkdir(parents=True)
    (source / "sub" / "run").write_bytes(os.urandom(700_000))
    (source / "sub" / "run").chmod(0o755)
    (source / "link").symlink_to("sub/run")
    os.mkfifo(source / "pipe")
    report = Report("source")
    await copy_tree(LocalTree(source), LocalTree(tmp_path / "copy"), report)
    copied = tmp_path / "copy" / "sub" / "run"
    assert copied.read_bytes() == (source / "sub" / "run").read_bytes()
    assert copied.stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "copy" / "sub" / "empty").is_dir()
    assert sorted(report.left_out) == ["source/link: a symbolic link", "source/pipe: not a regular file"]


async def test_one_file_under_its_new_name(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    await copy_tree(LocalTree(tmp_path / "a"), LocalTree(tmp_path / "b"), Report("a"))
    assert everything_below(tmp_path) == {"a": b"x", "b": b"x"}


async def test_what_is_neither_file_nor_directory(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name, problem in (("none", NotFound), ("pipe", Conflict)):
        with pytest.raises(problem):
            await copy_tree(LocalTree(tmp_path / name), LocalTree(tmp_path / "b"), Report(name))
