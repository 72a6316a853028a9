"""Logs have a bound."""

import json
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from skerry.daemon.journal import Journal, readable
from skerry.daemon.log_files import KEPT_FILES, MAX_LINE_BYTES, LineSplitter, RotatingFile


def test_files_rotate_and_old_ones_go(tmp_path: Path) -> None:
    log = RotatingFile(tmp_path / "x.log", max_bytes=100)
    for number in range(100):
        log.write(b"%029d\n" % number)
    log.close()
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert sorted(files) == ["x.log", "x.log.1", "x.log.2"]
    assert len(files) == KEPT_FILES
    assert all(len(data) <= 100 for data in files.values())
    assert (files["x.log.2"] + files["x.log.1"] + files["x.log"]).endswith(b"98\n%029d\n" % 99)


def test_a_restart_goes_on_in_the_same_file(tmp_path: Path) -> None:
    for text in (b"one\n", b"two\n"):
        log = RotatingFile(tmp_path / "x.log")
        log.write(text)
        log.close()
    assert (tmp_path / "x.log").read_bytes() == b"one\ntwo\n"


def test_a_line_larger_than_a_file_is_kept(tmp_path: Path) -> None:
    log = RotatingFile(tmp_path / "x.log", max_bytes=10)
    log.write(b"x" * 50 + b"\n")
    log.close()
    assert (tmp_path / "x.log").stat().st_size == 51


@given(st.lists(st.binary(max_size=40)))
def test_lines_arrive_whole_however_they_are_cut(pieces: list[bytes]) -> None:
    splitter = LineSplitter()
    lines = [line for piece in pieces for line in splitter.feed(piece)] + splitter.end()
    text = b"".join(pieces)
    assert b"".join(lines) == (text if text.endswith(b"\n") or not text else text + b"\n")


def test_an_endless_line_is_cut() -> None:
    splitter = LineSplitter()
    lines = splitter.feed(b"x" * (3 * MAX_LINE_BYTES)) + splitter.feed(b"y\n")
    assert max(map(len, lines)) <= MAX_LINE_BYTES + 1
    assert b"".join(line.rstrip(b"\n") for line in lines) == b"x" * (3 * MAX_LINE_BYTES) + b"y"


def test_the_journal_stores_and_shows(tmp_path: Path) -> None:
    shown: list[tuple[str, bytes]] = []
    journal = Journal(tmp_path, lambda name, line: shown.append((name, line)))
    journal.relay("api", b'{"event": "hello"}\n')
    journal.event("info", "started", pid=7)
    journal.close()
    assert (tmp_path / "api.log").read_bytes() == b'{"event": "hello"}\n'
    stored = json.loads((tmp_path / "up.log").read_bytes())
    assert (stored["event"], stored["pid"], stored["process"]) == ("started", 7, "up")
    assert [name for name, _ in shown] == ["api", "up"]


def test_lines_as_people_read_them() -> None:
    line = b'{"event": "lost", "level": "warning", "timestamp": "2026-01-02T03:04:05Z", "pid": 7}'
    assert readable("api", line) == "03:04:05 api   warning lost pid=7"
    assert readable("api", b"Traceback\n") == "api   Traceback"
    assert readable("api", b"[1]") == "api   [1]"
    assert len(readable("api", b"x" * 10_000)) == 2000
