"""Whole answers: heads, trailers, and bodies with content codings."""

import gzip
import random
import zlib
from collections.abc import Callable, Iterable

import pytest

from skerry.egress.http1.model import Framing, ResponseHead, Trailers
from skerry.egress.scrub import (
    AnswerScrubber,
    Decoder,
    Needles,
    SecretFound,
    Undecodable,
    codings,
    scrub_head,
    scrub_trailers,
)
from skerry.spec.settings import EgressLimits
from tests.unit.egress.secrets_for_tests import VALUE, secret

NEEDLES = Needles([secret()])
LIMITS = EgressLimits()
BODY = b'{"echo": "Bearer ' + VALUE + b'", "n": [' + b"1, " * 3_000 + b"1]}"
MASKED = BODY.replace(VALUE, b"*" * len(VALUE))


def _raw_deflate(data: bytes) -> bytes:
    return zlib.compress(data, wbits=-15)


CODED: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzip.compress),
    "x-gzip": ("X-GZIP", gzip.compress),
    "zlib": ("deflate", zlib.compress),
    "raw": ("deflate", _raw_deflate),
    "members": (
        "gzip",
        lambda data: gzip.compress(data[:50]) + gzip.compress(b"") + gzip.compress(data[50:]),
    ),
    "padded": ("gzip", lambda data: gzip.compress(data) + bytes(500)),
    "twice": ("gzip, gzip", lambda data: gzip.compress(gzip.compress(data))),
    "both": ("deflate,gzip", lambda data: gzip.compress(zlib.compress(data))),
    "stored": ("gzip", lambda data: gzip.compress(data, compresslevel=0)),
}


def _head(*fields: tuple[bytes, bytes], framing: Framing = Framing.LENGTH, length: int = 9) -> ResponseHead:
    return ResponseHead(200, b"OK", 1, list(fields), framing, length)


def _read(head: ResponseHead, parts: Iterable[bytes], *, client_minor: int = 1) -> bytes:
    scrubber = AnswerScrubber(head, NEEDLES, LIMITS, client_minor=client_minor)
    return b"".join(out for part in parts for out in scrubber.feed(part)) + scrubber.end()


def _cut(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


def test_the_whole_head_is_searched() -> None:
    head = ResponseHead(
        400,
        b"invalid token " + VALUE,
        1,
        [
            (b"Content-Length", b"12"),
            (b"Location", b"https://x.example/?k=sk-live-9fQ2xLw0ZtR7%2Fb%2BVnEjK4mYpA1sUdG8h%3Dc"),
            (b"X-" + VALUE.hex().encode(), b"1"),
            (b"Set-Cookie", b"a=" + VALUE[::-1]),
            (b"Plain", b"stays"),
        ],
        Framing.LENGTH,
        12,
    )
    hits = scrub_head(head, NEEDLES)
    assert head.reason == b"invalid token " + b"*" * len(VALUE)
    assert head.fields[0] == (b"Content-Length", b"12")
    assert head.fields[1] == (b"Location", b"https://x.example/?k=" + b"*" * (len(VALUE) + 6))
    assert head.fields[2] == (b"X-" + b"*" * 2 * len(VALUE), b"1")
    assert head.fields[3] == (b"Set-Cookie", b"a=" + b"*" * len(VALUE))
    assert head.fields[4] == (b"Plain", b"stays")
    assert [(hit.place, hit.encoding, hit.offset) for hit in hits] == [
        ("status", "raw", 14),
        ("header:location", "percent", 21),
        ("header-name", "hex", 2),
        ("header:set-cookie", "reversed", 2),
    ]


def test_a_clean_head_stays_as_it_is() -> None:
    head = _head((b"A", b"b"))
    fields = head.fields
    assert scrub_head(head, NEEDLES) == []
    assert head.fields is fields


def test_a_value_does_not_count_across_two_fields() -> None:
    head = _head((b"A", VALUE[:10]), (VALUE[10:20], b"b"))
    assert scrub_head(head, NEEDLES) == []


def test_trailers() -> None:
    trailers = Trailers([(b"Grpc-Message", b"bad key " + VALUE)])
    assert [hit.place for hit in scrub_trailers(trailers, NEEDLES)] == ["trailer:grpc-message"]
    assert trailers.fields == [(b"Grpc-Message", b"bad key " + b"*" * len(VALUE))]


@pytest.mark.parametrize("size", [1, 1_000, 1 << 20])
def test_an_uncoded_body_keeps_its_framing(size: int) -> None:
    head = _head(length=len(BODY))
    assert _read(head, _cut(BODY, size)) == MASKED
    assert (head.framing, head.length) == (Framing.LENGTH, len(BODY))


@pytest.mark.parametrize("name", CODED)
@pytest.mark.parametrize("size", [1, 7, 1 << 20])
def test_a_coded_body_goes_on_decoded_in_chunks(name: str, size: int) -> None:
    coding, encode = CODED[name]
    head = _head((b"Content-Encoding", coding.encode()), (b"Content-Length", b"9"), (b"ETag", b'"x"'))
    assert _read(head, _cut(encode(BODY), size)) == MASKED
    assert head.fields == [(b"ETag", b'"x"')]
    assert head.framing is Framing.CHUNKED
    assert head.keep_alive


def test_a_client_without_chunks_gets_the_end_by_closing() -> None:
    head = _head((b"Content-Encoding", b"gzip"))
    assert _read(head, [gzip.compress(BODY)], client_minor=0) == MASKED
    assert head.framing is Framing.CLOSE
    assert not head.keep_alive


def test_coded_events_are_not_delayed() -> None:
    compressor = zlib.compressobj(wbits=31)
    scrubber = AnswerScrubber(_head((b"Content-Encoding", b"gzip")), NEEDLES, LIMITS, client_minor=1)
    for number in range(5):
        event = b"data: %d\n\n" % number
        coded = compressor.compress(event) + compressor.flush(zlib.Z_SYNC_FLUSH)
        assert b"".join(scrubber.feed(coded)) == event


@pytest.mark.parametrize(
    "value", [b"br", b"zstd", b"compress", b"gzip, br", b"aes128gcm", b"gzip,gzip,gzip", b"gzip;q=1"]
)
def test_codings_that_are_refused(value: bytes) -> None:
    with pytest.raises(Undecodable):
        AnswerScrubber(_head((b"Content-Encoding", value)), NEEDLES, LIMITS, client_minor=1)


def test_codings_of_several_fields_add_up() -> None:
    fields = [(b"Content-Encoding", b"deflate, identity"), (b"content-encoding", b"GZIP,")]
    assert codings(fields) == ("deflate", "gzip")
    with pytest.raises(Undecodable):
        codings([*fields, (b"Content-Encoding", b"gzip")])


def test_an_answer_without_a_body_keeps_its_coding() -> None:
    head = _head((b"Content-Encoding", b"br"), framing=Framing.NONE)
    assert _read(head, []) == b""
    assert head.fields == [(b"Content-Encoding", b"br")]


GZIPPED = gzip.compress(BODY)


@pytest.mark.parametrize(
    ("coding", "data"),
    [
        ("gzip", GZIPPED[:-1]),
        ("gzip", GZIPPED[:100]),
        ("gzip", GZIPPED[:1]),
        ("gzip", GZIPPED[:-8] + bytes(8)),
        ("gzip", b"not gzip"),
        ("gzip", GZIPPED + b"garbage"),
        ("gzip", GZIPPED + GZIPPED[:20]),
        ("gzip", GZIPPED + b"\x1f"),
        ("deflate", zlib.compress(BODY)[:-1]),
        ("deflate", zlib.compress(BODY) + b"x"),
        ("deflate", b"\x78"),
        ("deflate", b"\xff\xff\xff"),
    ],
)
@pytest.mark.parametrize("size", [1, 1 << 20])
def test_damaged_and_cut_bodies_have_no_clean_end(coding: str, data: bytes, size: int) -> None:
    with pytest.raises(Undecodable):
        _read(_head((b"Content-Encoding", coding.encode())), _cut(data, size))


def test_empty_coded_bodies_are_complete() -> None:
    for coding in (b"gzip", b"deflate"):
        assert _read(_head((b"Content-Encoding", coding)), []) == b""


def test_what_is_decoded_at_once_is_bounded() -> None:
    decoder = Decoder(("gzip",), EgressLimits(scrub_ratio=100_000))
    parts = list(decoder.feed(gzip.compress(bytes(3 << 20))))
    assert sum(map(len, parts)) == 3 << 20
    assert max(map(len, parts)) <= 65_536


def _until_refused(decoder: Decoder, parts: Iterable[bytes]) -> tuple[int, int]:
    """How much was taken and given until the decoder refused."""
    taken = given = 0
    try:
        for part in parts:
            taken += len(part)
            for out in decoder.feed(part):
                given += len(out)
    except Undecodable:
        return taken, given
    raise AssertionError("not refused")


@pytest.mark.parametrize(("coding", "times"), [("gzip", 1), ("gzip, gzip", 2)])
def test_bombs_are_stopped_early(coding: str, times: int) -> None:
    bomb = bytes(64 << 20)
    for _ in range(times):
        bomb = gzip.compress(bomb, compresslevel=1)
    decoder = Decoder(codings([(b"Content-Encoding", coding.encode())]), LIMITS)
    taken, given = _until_refused(decoder, _cut(bomb, 4_096))
    assert given <= max(1 << 20, taken * LIMITS.scrub_ratio)


def test_one_input_gives_at_most_a_window() -> None:
    bomb = gzip.compress(bytes(8 << 20), compresslevel=1)
    decoder = Decoder(("gzip",), EgressLimits(scrub_ratio=1_000_000, scrub_window_bytes=1 << 20))
    assert _until_refused(decoder, [bomb])[1] <= 1 << 20


def test_many_small_members_cost_little_each() -> None:
    members = gzip.compress(b"x") * 5_000
    decoder = Decoder(("gzip",), LIMITS)
    assert b"".join(decoder.feed(members)) == b"x" * 5_000
    decoder.end()


def test_random_data_pass_through_every_coding() -> None:
    data = random.Random(5).randbytes(300_000)  # noqa: S311 - repeatable
    for coding, encode in CODED.values():
        decoder = Decoder(codings([(b"Content-Encoding", coding.encode())]), LIMITS)
        assert b"".join(out for part in _cut(encode(data), 1_460) for out in decoder.feed(part)) == data
        decoder.end()


@pytest.mark.parametrize("where", ["head", "body", "trailers"])
def test_abort(where: str) -> None:
    fields = [(b"X-Echo", VALUE)] if where == "head" else []

    def read() -> None:
        scrubber = AnswerScrubber(_head(*fields), NEEDLES, LIMITS, client_minor=1, action="abort")
        list(scrubber.feed(BODY if where == "body" else b"clean"))
        scrubber.end(Trailers([(b"X-Echo", VALUE)] if where == "trailers" else []))

    with pytest.raises(SecretFound):
        read()


def test_hits_of_all_parts() -> None:
    scrubber = AnswerScrubber(_head((b"X-Echo", VALUE)), NEEDLES, LIMITS, client_minor=1)
    list(scrubber.feed(VALUE))
    scrubber.end(Trailers([(b"X-Late", VALUE)]))
    assert [hit.place for hit in scrubber.hits] == ["header:x-echo", "trailer:x-late", "body"]
