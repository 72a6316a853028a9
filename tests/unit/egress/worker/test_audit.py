"""The trail: numbers without gaps, what repeats, what is lost, what is confirmed, what stays out."""

import json
from typing import Any

from skerry.egress.messages import Line
from skerry.egress.worker.audit import CONFIRM_S, MAX_TEXT, AuditTrail, Entry, Event, SecretUse
from skerry.egress.worker.repeats import MAX_KINDS, TOLD_ONE_BY_ONE, WINDOW_S
from skerry.policy.verdict import Mode, Reason
from tests.unit.egress.worker.test_limits import Time


class Channel:
    """Keeps what is sent."""

    def __init__(self, most: int = 10_000) -> None:
        self.most = most
        self.sent: list[Line] = []

    def room(self) -> int:
        return self.most - len(self.sent)

    def send(self, message: Line) -> None:
        assert self.room() > 0
        self.sent.append(message)

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line.text) for line in self.sent]


def trail(channel: Channel, time: Time) -> AuditTrail:
    return AuditTrail(
        channel, sandbox="sbx_1", next_seq=7, clock=time, now_ms=lambda: 1_700_000_000_000, version=lambda: 3
    )


def test_a_line_says_what_is_known_and_nothing_else() -> None:
    channel = Channel()
    trail(channel, Time()).record(
        Entry(
            event=Event.REQUEST,
            decision="allow",
            host="api.example.com",
            port=443,
            mode=Mode.INSPECT,
            secrets=(SecretUse("KEY", "header:authorization"),),
        )
    )
    assert channel.lines == [
        {
            "seq": 7,
            "time_ms": 1_700_000_000_000,
            "sandbox": "sbx_1",
            "version": 3,
            "event": "request",
            "decision": "allow",
            "host": "api.example.com",
            "port": 443,
            "mode": "inspect",
            "secrets": [{"name": "KEY", "slot": "header:authorization"}],
        }
    ]
    assert channel.sent[0].seq == 7


def denial(host: str = "evil.example") -> Entry:
    return Entry(event=Event.CONNECTION, decision="deny", reason=Reason.HOST_NOT_ALLOWED, host=host, port=443)


def test_the_same_refusals_are_told_a_hundred_times_and_then_as_a_number() -> None:
    channel, time = Channel(), Time()
    lines = trail(channel, time)
    for _ in range(TOLD_ONE_BY_ONE + 250):
        lines.record(denial())
    assert len(channel.sent) == TOLD_ONE_BY_ONE
    lines.tick()
    assert len(channel.sent) == TOLD_ONE_BY_ONE
    time.now_s += WINDOW_S
    lines.tick()
    assert channel.lines[-1]["event"] == "repeated"
    assert channel.lines[-1]["count"] == 250
    assert channel.lines[-1]["host"] == "evil.example"
    assert [line.seq for line in channel.sent] == list(range(7, 7 + TOLD_ONE_BY_ONE + 1))


def test_kinds_of_refusals_are_bounded() -> None:
    channel, time = Channel(), Time()
    lines = trail(channel, time)
    for number in range(MAX_KINDS + 300):
        lines.record(denial(f"x{number}.example"))
    assert len(channel.sent) == MAX_KINDS
    time.now_s += WINDOW_S
    lines.tick()
    assert channel.lines[-1]["count"] == 300


def test_what_finds_no_room_is_counted_and_the_count_is_told() -> None:
    channel = Channel(most=3)
    lines = trail(channel, Time())
    for _ in range(5):
        lines.record(Entry(event=Event.CONNECTION, decision="allow"))
    channel.most = 100
    lines.record(Entry(event=Event.CLOSED))
    assert [line["event"] for line in channel.lines] == ["connection", "connection", "lost", "closed"]
    assert channel.lines[2]["count"] == 3
    assert [line["seq"] for line in channel.lines] == [7, 8, 9, 10]


def test_a_line_is_confirmed_when_it_is_in_the_file() -> None:
    channel = Channel()
    lines = trail(channel, Time())
    told: list[bool] = []
    lines.when_written(Entry(event=Event.REQUEST), told.append)
    assert channel.sent[0].confirm
    lines.written(6)
    assert not told
    lines.written(7)
    lines.written(8)
    assert told == [True]


def test_a_line_is_given_up_without_an_answer() -> None:
    time = Time()
    lines = trail(Channel(), time)
    told: list[bool] = []
    lines.when_written(Entry(event=Event.REQUEST), told.append)
    lines.tick()
    assert not told
    time.now_s += CONFIRM_S
    lines.tick()
    lines.written(7)
    assert told == [False]


def test_a_line_for_which_there_is_no_room_is_given_up_at_once() -> None:
    told: list[bool] = []
    trail(Channel(most=1), Time()).when_written(Entry(event=Event.REQUEST), told.append)
    assert told == [False]


def test_paths_have_no_query_values_and_no_placeholders() -> None:
    lines = trail(Channel(), Time())
    lines.know_placeholders([("PLACEHOLDER_1", "TOKEN")])
    assert lines.path(b"/a/b?key=secret&x&y=1=2") == "/a/b?key&x&y"
    assert lines.path(b"/botPLACEHOLDER_1/get") == "/bot{TOKEN}/get"
    assert len(lines.path(b"/" + b"a" * 5000)) == MAX_TEXT
    assert lines.path(b"/\xff") == "/\\xff"
