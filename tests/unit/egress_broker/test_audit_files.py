"""Audit trails: numbered without gaps, bounded, and whole after any end."""

import os
from pathlib import Path

import pytest

from skerry.egress.broker import audit_files
from skerry.egress.broker.audit_files import MAX_LINE_BYTES, BadLine, Trail, Trails
from skerry.spec.ids import SandboxId

ID = SandboxId("sbx_ord_" + "a" * 20)
OTHER = SandboxId("sbx_ord_" + "b" * 20)
MIB = 1 << 20


def line(seq: int, size: int = 0) -> bytes:
    return b'{"seq": %d, "pad": "%s"}' % (seq, b"x" * size)


def trail_in(directory: Path, max_bytes: int = MIB) -> Trail:
    return Trail(directory, ID, max_bytes)


def numbers(trail: Trail, **asked: int) -> list[int]:
    lines, last = trail.read(**({"after": 0, "limit": 10_000, "max_bytes": MIB * 8} | asked))
    found = [int(text.split(b",")[0].rpartition(b" ")[2]) for text in lines]
    assert last == (found[-1] if found else asked.get("after", 0))
    return found


def test_what_was_appended_is_read_in_order(tmp_path: Path) -> None:
    trail = trail_in(tmp_path)
    for seq in range(1, 11):
        trail.append(seq, line(seq))
    assert numbers(trail) == list(range(1, 11))
    assert numbers(trail, after=7) == [8, 9, 10]
    assert numbers(trail, after=2, limit=3) == [3, 4, 5]
    assert numbers(trail, after=10) == []
    assert trail.next_seq == 11
    trail.close()


def test_a_large_trail_is_read_from_any_line(tmp_path: Path) -> None:
    trail = trail_in(tmp_path, max_bytes=64 * MIB)
    for seq in range(1, 4_001):
        trail.append(seq, line(seq, size=seq % 300))
    for after in (0, 1, 999, 2_500, 3_998, 3_999):
        assert numbers(trail, after=after, limit=5) == list(range(after + 1, min(after + 6, 4_001)))
    again = trail_in(tmp_path, max_bytes=64 * MIB)
    assert numbers(again, after=3_000, limit=2) == [3_001, 3_002]
    assert again.next_seq == 4_001
    trail.close()


def test_an_answer_has_only_so_many_bytes_but_never_nothing(tmp_path: Path) -> None:
    trail = trail_in(tmp_path)
    for seq in range(1, 5):
        trail.append(seq, line(seq, size=1000))
    assert numbers(trail, max_bytes=2_100) == [1, 2]
    assert numbers(trail, max_bytes=1) == [1]
    trail.close()


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{}",
        b"[1]",
        b'{"seq": 2}',
        b'{"seq": "1"}',
        b'{"seq": 1}\n{"seq": 2}',
        b'{"seq": 1',
        b'{"seq": 1, "x": "\xff"}'[:-1],
        b'{"seq": 1, "pad": "' + b"x" * MAX_LINE_BYTES + b'"}',
        b"[" * 10_000,
    ],
)
def test_a_line_that_would_break_the_trail_is_refused(tmp_path: Path, text: bytes) -> None:
    trail = trail_in(tmp_path)
    with pytest.raises(BadLine):
        trail.append(1, text)
    with pytest.raises(BadLine):
        trail.append(2, line(2))
    trail.append(1, line(1))
    assert numbers(trail) == [1]
    trail.close()


def test_numbers_go_on_over_restarts_and_rotations(tmp_path: Path) -> None:
    seq = 1
    for _ in range(6):
        trail = trail_in(tmp_path, max_bytes=8_192)
        assert trail.next_seq == seq
        for _ in range(10):
            trail.append(seq, line(seq, size=200))
            seq += 1
        trail.close()
    found = numbers(trail_in(tmp_path, max_bytes=8_192))
    assert found == list(range(found[0], seq))
    assert found[0] > 1
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= 8_192


def test_what_was_dropped_is_skipped(tmp_path: Path) -> None:
    trail = trail_in(tmp_path, max_bytes=4_096)
    for seq in range(1, 101):
        trail.append(seq, line(seq, size=200))
    found = numbers(trail)
    assert found[-1] == 100
    assert numbers(trail, after=1, limit=3) == found[:3]
    trail.close()


def test_a_line_that_was_torn_is_cut_off(tmp_path: Path) -> None:
    trail = trail_in(tmp_path)
    for seq in (1, 2):
        trail.append(seq, line(seq))
    trail.close()
    file = tmp_path / f"{ID}.jsonl"
    with file.open("ab") as torn:
        torn.write(b'{"seq": 3, "pad"')
    again = trail_in(tmp_path)
    assert again.next_seq == 3
    again.append(3, line(3))
    assert numbers(again) == [1, 2, 3]
    again.close()


def test_a_damaged_file_is_started_over(tmp_path: Path) -> None:
    (tmp_path / f"{ID}.jsonl").write_bytes(b"\xff\xff\n")
    trail = trail_in(tmp_path)
    assert trail.next_seq == 1
    trail.append(1, line(1))
    assert numbers(trail) == [1]
    trail.close()


def test_a_line_that_could_not_be_written_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trail = trail_in(tmp_path)
    trail.append(1, line(1))
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:5]))
    with pytest.raises(OSError, match="full"):
        trail.append(2, line(2))
    monkeypatch.undo()
    trail.append(2, line(2))
    assert numbers(trail) == [1, 2]
    assert numbers(trail_in(tmp_path)) == [1, 2]
    trail.close()


def test_trails_of_the_living_and_of_the_gone(tmp_path: Path) -> None:
    trails = Trails(tmp_path, max_bytes=MIB)
    trails.live(ID).append(1, line(1))
    trails.live(OTHER).append(1, line(1))
    trails.end(ID)
    trails.end(ID)
    found, goes_on = trails.find(ID)
    assert (found.next_seq, goes_on) == (2, False)
    assert trails.find(OTHER)[1] is True
    trails.live(ID).append(2, line(2))
    assert numbers(trails.find(ID)[0]) == [1, 2]
    unknown, goes_on = trails.find(SandboxId("sbx_ord_" + "c" * 20))
    assert (unknown.next_seq, goes_on) == (1, False)
    assert len(list(tmp_path.iterdir())) == 2
    trails.close()


def test_only_so_many_trails_of_the_gone_stay_open(tmp_path: Path) -> None:
    trails = Trails(tmp_path, max_bytes=MIB)
    names = [SandboxId(f"sbx_ord_{number:020d}") for number in range(audit_files.MAX_OPEN + 10)]
    for name in names:
        trails.find(name)
    assert len(trails._gone) == audit_files.MAX_OPEN


def test_all_but_those_to_keep_and_those_that_are_served_are_deleted(tmp_path: Path) -> None:
    trails = Trails(tmp_path, max_bytes=4_096)
    third = SandboxId("sbx_ord_" + "c" * 20)
    for sandbox_id in (ID, OTHER, third):
        for seq in range(1, 30):
            trails.live(sandbox_id).append(seq, line(seq, size=200))
    trails.end(OTHER)
    trails.end(third)
    (tmp_path / "unrelated.txt").write_text("stays")
    trails.forget({third})
    left = {file.name.split(".")[0] for file in tmp_path.iterdir()}
    assert left == {ID, third, "unrelated"}
    assert trails.find(OTHER)[0].next_seq == 1
    trails.close()
