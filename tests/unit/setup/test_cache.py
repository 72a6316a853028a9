"""Built things are named by what they are built from, appear whole or not at all, and are built once."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from setup.cache import ensure, entry, fingerprint, remove_tree


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKERRY_CACHE_DIR", str(tmp_path / "cache"))


def test_a_thing_is_built_once() -> None:
    calls: list[Path] = []

    def build(directory: Path) -> None:
        calls.append(directory)
        (directory / "file").write_text("content")

    first = ensure("kind", "key", build)
    second = ensure("kind", "key", build)

    assert first == second == entry("kind", "key")
    assert (first / "file").read_text() == "content"
    assert len(calls) == 1


def test_a_build_that_fails_leaves_nothing() -> None:
    def build(directory: Path) -> None:
        (directory / "half").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ensure("kind", "key", build)

    assert not entry("kind", "key").exists()
    assert [path.name for path in entry("kind", "key").parent.iterdir()] == [".lock"]


def test_what_a_killed_build_left_is_removed_by_the_next() -> None:
    leftover = entry("kind", "key").parent / ".partial-killed"
    (leftover / "read-only").mkdir(parents=True)
    (leftover / "read-only").chmod(0o500)

    ensure("kind", "key", lambda directory: None)

    assert not leftover.exists()


def test_several_set_ups_at_a_time_build_once() -> None:
    calls: list[Path] = []

    def build(directory: Path) -> None:
        calls.append(directory)
        (directory / "file").write_text("content")

    with ThreadPoolExecutor(4) as pool:
        results = set(pool.map(lambda _: ensure("kind", "key", build), range(8)))

    assert results == {entry("kind", "key")}
    assert len(calls) == 1


def test_the_fingerprint_sees_texts_contents_names_and_modes(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "a").write_text("1")
    seen = {
        fingerprint([tree]),
        fingerprint([tree, "x"]),
        fingerprint([tree, "xy"]),
        fingerprint([tree, "x", "y"]),
    }
    (tree / "a").write_text("2")
    seen.add(fingerprint([tree]))
    (tree / "a").chmod(0o755)
    seen.add(fingerprint([tree]))
    (tree / "a").rename(tree / "b")
    seen.add(fingerprint([tree]))

    assert len(seen) == 7


def test_the_fingerprint_skips_what_it_is_told_at_any_depth(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    before = fingerprint([tmp_path], skip=frozenset({"target"}))
    (tmp_path / "deep" / "target").mkdir()
    (tmp_path / "deep" / "target" / "object").write_text("1")

    assert fingerprint([tmp_path], skip=frozenset({"target"})) == before
    assert fingerprint([tmp_path]) != before


def test_removing_does_not_follow_links(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("kept")
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "link").symlink_to(outside)

    remove_tree(tree)
    remove_tree(tree)

    assert not tree.exists()
    assert (outside / "kept").read_text() == "kept"
