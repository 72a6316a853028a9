"""Random secrets in random texts, cut anywhere, compared with a search for every needle the slow way; and
damaged compressed data, compared with what the standard library makes of them at once."""

import base64
import gzip
import zlib
from collections.abc import Callable
from contextlib import suppress

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from skerry.egress.http1.model import Framing, ResponseHead
from skerry.egress.scrub import Decoder, Needles, Scrubber, Undecodable, scrub_head
from skerry.egress.scrub.encodings import per_byte
from skerry.spec.settings import EgressLimits
from tests.unit.egress.secrets_for_tests import secret

FUZZ = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
LIMITS = EgressLimits()

few = st.text("ab", min_size=8, max_size=60)
many = st.text([chr(code) for code in range(0x21, 0x7F)], min_size=8, max_size=60)
international = st.text("ab\u00e9\u20ac\U0001f511", min_size=8, max_size=30)
values = st.one_of(few, many, international).map(str.encode)
junk = st.binary(max_size=12)
cuts = st.lists(st.integers(1, 90), min_size=1, max_size=30)


@st.composite
def texts(draw: st.DrawFn, found: list[bytes], needles: Needles) -> bytes:
    """Values in all forms, parts of needles, and junk."""
    parts = []
    for _ in range(draw(st.integers(1, 6))):
        value = draw(st.sampled_from(found))
        needle = draw(st.sampled_from(needles._texts)) if needles._texts else b""
        begin, end = sorted((draw(st.integers(0, len(needle))), draw(st.integers(0, len(needle)))))
        forms = [text for _, text in per_byte(value)]
        parts.append(
            draw(
                st.one_of(
                    junk,
                    st.sampled_from([value, value.upper(), needle, needle[begin:end], needle[:end]]),
                    st.sampled_from(forms),
                    junk.map(lambda front, value=value: base64.b64encode(front + value)),  # type: ignore[misc]
                )
            )
        )
    return b"".join(parts)


def _expected(data: bytes, needles: Needles) -> bytes:
    folded, out = data.lower(), bytearray(data)
    for text in needles._texts:
        at = folded.find(text)
        while at >= 0:
            out[at : at + len(text)] = b"*" * len(text)
            at = folded.find(text, at + 1)
    return bytes(out)


def _longest_prefix(data: bytes, needles: Needles) -> int:
    folded = data.lower()
    for size in range(min(len(folded), needles.longest - 1), 0, -1):
        if any(len(text) > size and text.startswith(folded[-size:]) for text in needles._texts):
            return size
    return 0


@FUZZ
@given(st.data(), st.lists(values, min_size=1, max_size=4), cuts)
def test_scrubbing_is_the_same_however_data_are_cut(
    data: st.DataObject, found: list[bytes], sizes: list[int]
) -> None:
    needles = Needles([secret(value, name=f"S{at}") for at, value in enumerate(found)])
    text = data.draw(texts(found, needles))
    scrubber = Scrubber(needles)
    out, at = b"", 0
    while at < len(text):
        size = sizes[at % len(sizes)]
        out += scrubber.feed(text[at : at + size])
        at += size
        assert min(at, len(text)) - len(out) == _longest_prefix(text[:at], needles)
    out += scrubber.end()
    assert len(out) == len(text)
    assert all(got in (want, ord("*")) for got, want in zip(out, _expected(text, needles), strict=True))
    assert bool(scrubber.hits) == (out != text) or b"*" in text


@FUZZ
@given(values, junk, junk)
def test_no_form_of_a_value_passes(value: bytes, front: bytes, back: bytes) -> None:
    needles = Needles([secret(value)])
    for name, form in per_byte(value):
        scrubber = Scrubber(needles)
        out = scrubber.feed(front + form + back) + scrubber.end()
        assert len(out) == len(front + form + back)
        assert form.lower() not in out.lower() or not form, name


@FUZZ
@given(values, st.lists(st.tuples(st.binary(max_size=40), st.binary(max_size=80)), max_size=5))
def test_heads_of_any_bytes(value: bytes, fields: list[tuple[bytes, bytes]]) -> None:
    needles = Needles([secret(value)])
    head = ResponseHead(200, value, 1, [*fields, (b"X", value)], Framing.NONE)
    scrub_head(head, needles)
    assert len(head.fields) == len(fields) + 1
    for (name, text), (old_name, old_text) in zip(head.fields, fields, strict=False):
        assert len(name) == len(old_name)
        assert len(text) == len(old_text)
    assert value.lower() not in head.reason.lower()


def _deflated(data: bytes) -> bytes:
    return zlib.compress(data, wbits=-15)


ENCODERS: list[tuple[str, Callable[[bytes], bytes]]] = [
    ("gzip", gzip.compress),
    ("deflate", zlib.compress),
    ("deflate", _deflated),
]


@st.composite
def coded(draw: st.DrawFn) -> tuple[str, bytes]:
    """Compressed data, mostly damaged."""
    body = draw(st.binary(max_size=300))
    coding, encode = draw(st.sampled_from(ENCODERS))
    wire = bytearray(encode(body) + (encode(body) if draw(st.booleans()) else b""))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(wire)))
        if draw(st.booleans()):
            wire[at : at + 1] = draw(st.binary(max_size=2))
        else:
            del wire[at : at + draw(st.integers(1, 9))]
    return coding, bytes(wire)


@FUZZ
@given(coded(), cuts)
def test_damaged_compressed_data(made: tuple[str, bytes], sizes: list[int]) -> None:
    coding, wire = made
    decoder = Decoder((coding,), LIMITS)
    out, at = b"", 0
    with suppress(Undecodable):
        while at < len(wire):
            size = sizes[at % len(sizes)]
            out += b"".join(decoder.feed(wire[at : at + size]))
            at += size
        decoder.end()
        assert not wire or out == _at_once(coding, wire)


def _at_once(coding: str, wire: bytes) -> bytes:
    if coding == "gzip":
        return gzip.decompress(wire)
    framed = wire[0] & 15 == 8 and int.from_bytes(wire[:2], "big") % 31 == 0
    return zlib.decompress(wire, wbits=15 if framed else -15)
