"""The data directory belongs to root, whoever starts it, and nobody else gets in."""

import os
import re
import stat
from pathlib import Path

import pytest

from skerry.cli.invoker import Invoker, default_data_dir
from skerry.cli.places import DataDir, read_instance
from skerry.daemon.data_dir import API_USER, DataDirLock, account, prepare
from skerry.daemon.files import tail, write_file
from skerry.errors import Conflict, HostUnusable, InvalidRequest

NOBODY = 65534
ROOT = Invoker(0, 0, Path("/root"))


def owner_and_mode(path: Path) -> tuple[int, int]:
    found = path.lstat()
    return found.st_uid, stat.S_IMODE(found.st_mode)


@pytest.mark.needs_root
def test_it_is_made_for_the_one_who_asked_and_belongs_to_root(tmp_path: Path) -> None:
    who = Invoker(NOBODY, NOBODY, tmp_path)
    place = DataDir(default_data_dir(who))
    instance = prepare(place, who)
    assert place.path == tmp_path / ".local" / "share" / "skerry"
    assert owner_and_mode(tmp_path / ".local" / "share") == (NOBODY, 0o755)
    assert owner_and_mode(place.path) == (0, 0o755)
    assert owner_and_mode(place.host) == (0, 0o700)
    assert owner_and_mode(place.state) == (account(API_USER).pw_uid, 0o700)
    assert prepare(place, who) == instance == read_instance(place.instance)


@pytest.mark.needs_root
@pytest.mark.parametrize("part", ["", "state", "host", "logs"])
def test_what_belongs_to_somebody_else_is_refused(tmp_path: Path, part: str) -> None:
    place = DataDir(tmp_path / "d")
    prepare(place, ROOT)
    os.chown(place.path / part, NOBODY, NOBODY)
    with pytest.raises(HostUnusable, match=f"belongs to uid {NOBODY}"):
        prepare(place, ROOT)


@pytest.mark.needs_root
@pytest.mark.parametrize("part", ["state", "host", "logs"])
def test_links_are_refused(tmp_path: Path, part: str) -> None:
    place = DataDir(tmp_path / "d")
    place.path.mkdir()
    (place.path / part).symlink_to("/etc")
    with pytest.raises(HostUnusable, match="cannot be the data directory"):
        prepare(place, ROOT)
    assert owner_and_mode(Path("/etc"))[0] == 0


@pytest.mark.parametrize("path", ["file", "file/below", "n" * 300])
def test_what_cannot_be_a_directory_is_refused_in_words(tmp_path: Path, path: str) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(HostUnusable, match="cannot be the data directory"):
        prepare(DataDir(tmp_path / path), ROOT)
    assert (tmp_path / "file").read_text() == "mine"


def test_what_is_printed_to_be_typed_is_quoted(tmp_path: Path) -> None:
    place = DataDir(tmp_path / "two words $(x)")
    place.path.mkdir()
    lock = DataDirLock.take(place)
    with pytest.raises(Conflict, match=re.escape(f"--data-dir '{place.path}'`")):
        DataDirLock.take(place)
    lock.release()


def test_one_lock_for_one_directory(tmp_path: Path) -> None:
    place = DataDir(tmp_path)
    lock = DataDirLock.take(place)
    assert DataDirLock.try_take(place) is None
    with pytest.raises(Conflict, match="already runs"):
        DataDirLock.take(place)
    lock.release()
    lock.release()
    again = DataDirLock.try_take(place)
    assert again is not None
    again.release()


def test_a_damaged_instance_file_is_said(tmp_path: Path) -> None:
    file = tmp_path / "instance.json"
    assert read_instance(file) is None
    for text in ("", "[]", '{"instance": "../../x"}'):
        file.write_text(text)
        with pytest.raises(InvalidRequest, match="damaged"):
            read_instance(file)


@pytest.mark.needs_root
def test_files_are_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "token"
    (tmp_path / ".token.new").symlink_to("/etc/passwd")
    for text in (b"old", b"new"):
        write_file(path, text, mode=0o600, uid=NOBODY, gid=NOBODY)
    assert path.read_bytes() == b"new"
    assert owner_and_mode(path) == (NOBODY, 0o600)
    assert [file.name for file in tmp_path.iterdir()] == ["token"]


def test_the_tail_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "log"
    assert tail(file, lines=3) == []
    file.write_text("\n".join(map(str, range(100_000))))
    assert tail(file, lines=2) == ["99998", "99999"]
