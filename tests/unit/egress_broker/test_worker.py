"""The line to a worker: what it says is checked, what it is told arrives, and a full disk loses nothing."""

import socket
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from skerry.egress.broker import control_channel
from skerry.egress.broker import worker as module
from skerry.egress.broker.audit_files import Trail
from skerry.egress.broker.control_channel import decode_to_worker, encode
from skerry.egress.broker.worker import Worker
from skerry.egress.messages import Adopted, Cut, FromWorker, Line, Lines, Rules, Stop, Used, Written
from skerry.spec.settings import EgressSettings
from tests.harness.egress_ground import ID, layer
from tests.harness.waiting import until


class Owner:
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.counts: list[dict[str, int]] = []
        self.cuts: list[str] = []
        self.problems: list[str] = []

    def used(self, counts: dict[str, int]) -> None:
        self.counts.append(counts)

    def cut(self, secret: str) -> None:
        self.cuts.append(secret)

    def misbehaved(self, problem: str) -> None:
        self.problems.append(problem)


class Bench:
    """A worker, and the end of the pair that a real one would have."""

    def __init__(self, directory: Path) -> None:
        self.ours, self.far = control_channel.pair()
        self.trail = Trail(directory, ID, 1 << 20)
        self.owner = Owner()
        self.worker = Worker(self.ours, self.trail, self.owner)

    def say(self, message: FromWorker) -> None:
        self.far.send(encode(message))

    def line(self, seq: int, *, confirm: bool = False) -> None:
        self.say(Line(seq, b'{"seq": %d}' % seq, confirm))

    def heard(self) -> list[object]:
        found: list[object] = []
        try:
            while data := self.far.recv(1 << 20):
                found.append(decode_to_worker(data))
        except BlockingIOError:
            pass
        return found


@pytest.fixture
def make(tmp_path: Path) -> Iterator[list[Bench]]:
    """Benches to be closed."""
    made: list[Bench] = []
    yield made
    for bench in made:
        bench.far.close()
        bench.trail.close()
        bench.worker.close()


@pytest.fixture
async def bench(make: list[Bench], tmp_path: Path) -> Bench:
    """One."""
    make.append(Bench(tmp_path))
    return make[-1]


def rules(version: int, size: int = 0) -> Rules:
    return Rules(
        sandbox_id=ID,
        version=version,
        layers=(layer("a.example", name="x" * size or "sandbox"),),
        secrets=(),
        authority=None,
        settings=EgressSettings(),
    )


async def test_lines_are_written_and_confirmed_when_that_is_asked(bench: Bench) -> None:
    for seq in range(1, 101):
        bench.line(seq, confirm=seq % 10 == 0)
    await until(lambda: bench.trail.next_seq == 101)
    confirmed = [message.seq for message in bench.heard() if isinstance(message, Written)]
    assert confirmed == sorted(confirmed)
    assert confirmed[-1] == 100
    assert bench.owner.problems == []


async def test_counts_cuts_and_versions_get_to_their_owner(bench: Bench) -> None:
    bench.say(Used({"KEY": 3}))
    bench.say(Cut("KEY"))
    bench.say(Adopted(7))
    bench.say(Adopted(5))
    assert await bench.worker.adopted(6)
    assert await bench.worker.adopted(7)
    assert (bench.owner.counts, bench.owner.cuts) == ([{"KEY": 3}], ["KEY"])


@pytest.mark.parametrize(
    "data",
    [
        b"x",
        b"\xc1",
        b"\x91" * 5_000,
        msgspec.msgpack.encode({"type": "Reboot"}),
        msgspec.msgpack.encode({"type": "Line", "seq": 1}),
        msgspec.msgpack.encode({"type": "Used", "counts": {"KEY": "many"}}),
        encode(Line(2, b'{"seq": 2}')),
        encode(Line(1, b'{"seq": 2}')),
        encode(Line(1, b"{}\n{}")),
    ],
)
async def test_a_worker_that_breaks_the_rules_is_reported_and_not_heard_any_more(
    bench: Bench, data: bytes
) -> None:
    bench.far.send(data)
    bench.line(1)
    await until(lambda: bench.owner.problems)
    assert len(bench.owner.problems) == 1
    assert bench.trail.next_seq == 1


async def test_of_rules_that_wait_only_the_last_counts(bench: Bench) -> None:
    for version in range(1, 400):
        bench.worker.tell(rules(version, size=10_000))
    bench.worker.stop()
    found: list[object] = []

    def stopped() -> bool:
        found.extend(bench.heard())
        return any(isinstance(message, Stop) for message in found)

    await until(stopped)
    versions = [message.version for message in found if isinstance(message, Rules)]
    assert versions == sorted(versions)
    assert versions[-1] == 399
    assert len(versions) < 399


async def test_a_full_disk_stops_the_reading_and_loses_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "DISK_PAUSE_S", 0.01)
    append, tries = bench.trail.append, 0

    def full(seq: int, text: bytes) -> None:
        nonlocal tries
        tries += 1
        raise OSError("no space left")

    monkeypatch.setattr(bench.trail, "append", full)
    for seq in range(1, 6):
        bench.line(seq, confirm=True)
    await until(lambda: tries >= 3)
    assert bench.heard() == []
    monkeypatch.setattr(bench.trail, "append", append)
    await until(lambda: bench.trail.next_seq == 6)
    assert Written(5) in bench.heard()


async def test_lines_that_come_together_are_confirmed_together(bench: Bench) -> None:
    lines = tuple(Line(seq, b'{"seq": %d}' % seq, confirm=seq % 2 == 0) for seq in range(1, 8))
    bench.say(Lines(lines))
    await until(lambda: bench.trail.next_seq == 8)
    assert bench.heard() == [Written(6)]


async def test_a_disk_that_fills_up_in_the_middle_of_lines_loses_none(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "DISK_PAUSE_S", 0.01)
    append, is_full = bench.trail.append, True

    def nearly_full(seq: int, text: bytes) -> None:
        if seq > 3 and is_full:
            raise OSError("no space left")
        append(seq, text)

    monkeypatch.setattr(bench.trail, "append", nearly_full)
    bench.say(Lines(tuple(Line(seq, b'{"seq": %d}' % seq, confirm=True) for seq in range(1, 6))))
    bench.line(6, confirm=True)
    await until(lambda: bench.trail.next_seq == 4)
    assert bench.heard() == [Written(3)]
    is_full = False
    await until(lambda: bench.trail.next_seq == 7)
    assert bench.heard()[-1] == Written(6)


async def test_what_it_said_before_its_end_counts(bench: Bench) -> None:
    for seq in range(1, 201):
        bench.line(seq)
    bench.far.close()
    bench.worker.ended()
    bench.worker.ended()
    assert bench.trail.next_seq == 201
    assert await bench.worker.adopted(1) is False


async def test_an_end_with_messages_unread_loses_none_of_its_own(bench: Bench) -> None:
    bench.worker.tell(rules(1))
    for seq in range(1, 11):
        bench.line(seq)
    bench.far.close()
    bench.worker.ended()
    assert bench.trail.next_seq == 11


async def test_who_waits_for_a_version_hears_of_the_end(bench: Bench) -> None:
    waiting = bench.worker.adopted(1)
    bench.worker.close()
    assert await waiting is False


def test_the_largest_message_fits() -> None:
    ours, theirs = control_channel.pair()
    with ours, theirs:
        size = control_channel.largest_message_bytes()
        assert ours.send(b"x" * size) == size
        assert isinstance(ours, socket.socket)
    assert size >= 200_000
