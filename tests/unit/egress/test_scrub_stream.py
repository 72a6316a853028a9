"""Scrubbing a stream: no worse however it is cut, and nothing held back without need."""

import base64
import random

import pytest

from skerry.egress.scrub import Needles, Scrubber, SecretFound
from skerry.egress.scrub.pieces import SLICE_BYTES
from tests.unit.egress.secrets_for_tests import VALUE, secret

SECRETS = [
    secret(),
    secret(b"ghp_ababababcdababababcd0123", name="REPEATING"),
    secret(b"Pa55word", name="SHORT"),
]
NEEDLES = Needles(SECRETS)


def _expected(data: bytes, needles: Needles) -> bytes:
    """Mask every needle the slow way."""
    folded = data.lower()
    out = bytearray(data)
    for text in needles._texts:
        at = folded.find(text)
        while at >= 0:
            out[at : at + len(text)] = b"*" * len(text)
            at = folded.find(text, at + 1)
    return bytes(out)


def _longest_prefix(data: bytes, needles: Needles) -> int:
    folded = data.lower()
    for size in range(min(len(folded), needles.longest - 1), 0, -1):
        tail = folded[-size:]
        if any(len(text) > size and text.startswith(tail) for text in needles._texts):
            return size
    return 0


def _sample(dice: random.Random) -> bytes:
    parts = []
    for _ in range(dice.randint(1, 8)):
        text = dice.choice(NEEDLES._texts)
        parts.append(
            dice.choice(
                [
                    text,
                    text[: dice.randrange(len(text) + 1)],
                    text[dice.randrange(len(text)) :],
                    text.upper(),
                    VALUE,
                    base64.b64encode(dice.randbytes(dice.randrange(4)) + VALUE),
                    b"ababab" * 4,
                    dice.randbytes(dice.randrange(9)),
                    b"\n\n",
                ]
            )
        )
    return b"".join(parts)


@pytest.mark.parametrize("seed", range(150))
def test_cutting_a_stream_hides_nothing_from_it(seed: int) -> None:
    dice = random.Random(seed)  # noqa: S311 - repeatable
    data = _sample(dice)
    scrubber = Scrubber(NEEDLES)
    out = b""
    at = 0
    while at < len(data):
        size = dice.choice([1, 2, 7, 40, 1_000])
        out += scrubber.feed(data[at : at + size])
        at += size
        assert min(at, len(data)) - len(out) == _longest_prefix(data[:at], NEEDLES)
    out += scrubber.end()
    # More may be masked where slices of base64 come whole, for which nothing is held back.
    assert len(out) == len(data)
    assert all(got in (want, ord("*")) for got, want in zip(out, _expected(data, NEEDLES), strict=True))


def test_a_value_that_arrives_byte_by_byte_never_gets_out() -> None:
    scrubber = Scrubber(NEEDLES)
    out = b"".join(scrubber.feed(bytes([byte])) for byte in b"token=" + VALUE + b"\n")
    assert out == b"token=" + b"*" * len(VALUE) + b"\n"
    assert [hit.secret for hit in scrubber.hits] == ["KEY"]


@pytest.mark.parametrize("size", range(8, 44))
def test_line_ends_in_base64_hide_little(size: int) -> None:
    """MIME cuts base64 into lines, wherever that is in the value (RFC 2045, section 6.8)."""
    text = base64.b64encode(b"x" * 9 + VALUE)
    lines = b"\r\n".join(text[at : at + size] for at in range(0, len(text), size))
    out = Scrubber(NEEDLES)
    scrubbed = (out.feed(lines) + out.end()).replace(b"\r\n", b"")[12:]
    left = max(map(len, scrubbed.split(b"*")))
    assert left < SLICE_BYTES or size < SLICE_BYTES


def test_events_are_not_delayed() -> None:
    scrubber = Scrubber(NEEDLES)
    for event in (b"data: s\n\n", b": ping\n\n", b'data: {"a": "sk-live-9f"}\r\n\r\n'):
        assert scrubber.feed(event) == event


def test_held_bytes_leave_with_the_next_data_or_at_the_end() -> None:
    scrubber = Scrubber(NEEDLES)
    assert scrubber.feed(b"a sk-live") == b"a "
    assert scrubber.feed(b" !") == b"sk-live !"
    assert scrubber.feed(b"sk-li") == b""
    assert scrubber.end() == b"sk-li"
    assert scrubber.end() == b""


def test_what_is_held_is_bounded() -> None:
    scrubber = Scrubber(NEEDLES)
    data = b"".join(NEEDLES._texts)
    fed = given = most = 0
    for at in range(0, len(data), 3):
        fed += len(data[at : at + 3])
        given += len(scrubber.feed(data[at : at + 3]))
        most = max(most, fed - given)
    assert most < NEEDLES.longest < 200


def test_hits_say_where_and_not_what() -> None:
    scrubber = Scrubber(NEEDLES)
    scrubber.feed(b"x" * 10 + VALUE + b" " + VALUE.hex().encode() + b" Pa55word\n")
    assert [(hit.secret, hit.encoding, hit.offset) for hit in scrubber.hits] == [
        ("KEY", "raw", 10),
        ("KEY", "hex", 11 + len(VALUE)),
        ("SHORT", "raw", 12 + 3 * len(VALUE)),
    ]
    assert VALUE.decode() not in repr(scrubber.hits)


def test_hits_are_the_same_byte_by_byte() -> None:
    data = b"x" * 10 + VALUE + b" " + VALUE.hex().encode() + b" Pa55word\n"
    scrubber = Scrubber(NEEDLES)
    for byte in data:
        scrubber.feed(bytes([byte]))
    assert [(hit.secret, hit.encoding, hit.offset) for hit in scrubber.hits] == [
        ("KEY", "raw", 10),
        ("KEY", "hex", 11 + len(VALUE)),
        ("SHORT", "raw", 12 + 3 * len(VALUE)),
    ]


def test_the_list_of_hits_is_bounded() -> None:
    scrubber = Scrubber(NEEDLES)
    for _ in range(1_000):
        scrubber.feed(b"Pa55word ")
    assert len(scrubber.hits) == 64
    assert scrubber.hit_count == 1_000


def test_abort_raises_before_anything_of_the_value_gets_out() -> None:
    scrubber = Scrubber(NEEDLES, action="abort")
    assert scrubber.feed(b"first " + VALUE[:8]) == b"first "
    with pytest.raises(SecretFound) as caught:
        scrubber.feed(VALUE[8:])
    assert caught.value.hit.secret == "KEY"
    assert VALUE.decode() not in str(caught.value)


def test_data_without_needles_are_not_copied() -> None:
    data = b"nothing here\n" * 100
    assert Scrubber(NEEDLES).feed(data) is data
