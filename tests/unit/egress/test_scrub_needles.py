"""Every encoding of a value that is looked for, and what is not mistaken for one."""

import base64
import codecs
import html
import itertools
import json
import quopri
import random
import urllib.parse

import pytest

from skerry.egress.broker import validation as broker_validation
from skerry.egress.scrub import Needles, Scrubber
from skerry.egress.scrub.needles import MAX_NEEDLES, MIN_VALUE_BYTES
from skerry.egress.scrub.pieces import SLICE_BYTES, cut, public_length, slice_starts
from skerry.policy import deno_fields
from skerry.policy.values import MAX_BYTES, MIN_BYTES
from tests.unit.egress.secrets_for_tests import VALUE, secret

TEXT = VALUE.decode()
NEEDLES = Needles([secret()])

WRITTEN = {
    "raw": VALUE,
    "upper": VALUE.upper(),
    "lower": VALUE.lower(),
    "swapped case": VALUE.swapcase(),
    "reversed": VALUE[::-1],
    "hex": VALUE.hex().encode(),
    "hex upper": VALUE.hex().upper().encode(),
    "percent minimal": urllib.parse.quote(TEXT, safe="").encode(),
    "percent minimal lower": urllib.parse.quote(TEXT, safe="").lower().encode(),
    "percent path": urllib.parse.quote(TEXT).encode(),
    "percent form": urllib.parse.urlencode({"k": TEXT}).encode(),
    "percent full": "".join(f"%{byte:02X}" for byte in VALUE).encode(),
    "percent full lower": "".join(f"%{byte:02x}" for byte in VALUE).encode(),
    "json": json.dumps(TEXT).encode(),
    "json with slashes": json.dumps(TEXT).replace("/", "\\/").encode(),
    "unicode escapes": "".join(f"\\u{byte:04x}" for byte in VALUE).encode(),
    "unicode escapes upper": "".join(f"\\u{byte:04X}" for byte in VALUE).encode(),
    "hex escapes": "".join(f"\\x{byte:02x}" for byte in VALUE).encode(),
    "html": html.escape(TEXT).encode(),
    "html decimal": "".join(f"&#{byte};" for byte in VALUE).encode(),
    "html hex": "".join(f"&#x{byte:x};" for byte in VALUE).encode(),
    "html hex upper": "".join(f"&#X{byte:X};" for byte in VALUE).encode(),
    "utf-16 le": TEXT.encode("utf-16-le"),
    "utf-16 be": TEXT.encode("utf-16-be"),
    "utf-32": TEXT.encode("utf-32-be"),
    "quoted-printable": VALUE.replace(b"=", b"=3D"),
    "quoted-printable full": "".join(f"={byte:02X}" for byte in VALUE).encode(),
    "rot13": codecs.encode(TEXT, "rot13").encode(),
    "bearer": b"Bearer " + VALUE,
    "xml cdata": b"<a><![CDATA[" + VALUE + b"]]></a>",
}
PREFIXES = (b"", b"x", b"xy", b"user:", b"longer user:", b"Bearer ", b"any:")
SUFFIXES = (b"", b":", b":x", b" and more")


def _scrubbed(data: bytes, needles: Needles = NEEDLES) -> bytes:
    scrubber = Scrubber(needles)
    return scrubber.feed(data) + scrubber.end()


@pytest.mark.parametrize("name", WRITTEN)
def test_an_encoding_is_masked_wholly(name: str) -> None:
    data = b'{"before": "' + WRITTEN[name] + b'", "after": 1}'
    out = _scrubbed(data)
    assert len(out) == len(data)
    assert out.startswith(b'{"before": "')
    assert out.endswith(b'", "after": 1}')
    inner = out[12:-14]
    for mark in (b'"', b"Bearer ", b"k=", b"<a><![CDATA[", b"]]></a>"):
        inner = inner.replace(mark, b"")
    assert set(inner) <= set(b"*\0"), inner
    assert set(inner) & set(b"*")


@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("value", [VALUE, b"short-8b", b"nine-byte", b"ten-bytes-", VALUE * 3])
def test_base64_is_masked_at_every_alignment(
    encode: object, prefix: bytes, suffix: bytes, value: bytes
) -> None:
    assert callable(encode)
    coded = encode(prefix + value + suffix)
    out = _scrubbed(b'"' + coded + b'"', Needles([secret(value)]))[1:-1]
    begin = len(prefix) * 4 // 3
    if not prefix.endswith(b":"):
        begin += 1 if len(prefix) % 3 else 0  # its bits are mixed with those of what stands before
    end = (len(prefix) + len(value)) * 4 // 3
    assert set(out[begin:end]) == set(b"*")
    before = max(0, len(prefix) * 4 // 3 - 1)
    assert out[:before] == coded[:before]


def test_base64_of_basic_credentials_leaves_no_bit_of_the_value() -> None:
    coded = base64.b64encode(b"user:" + VALUE).rstrip(b"=")
    out = _scrubbed(coded + b"\n")[:-1]
    assert out.rstrip(b"*") == base64.b64encode(b"user:")[:6]


@pytest.mark.parametrize("start", range(len(VALUE) - SLICE_BYTES + 1))
def test_each_slice_is_masked(start: int) -> None:
    part = VALUE[start : start + SLICE_BYTES]
    assert _scrubbed(b"<" + part + b">") == b"<" + b"*" * SLICE_BYTES + b">"


def test_halves_are_masked() -> None:
    half = len(VALUE) // 2
    assert _scrubbed(VALUE[:half] + b"|" + VALUE[half:]) == b"*" * half + b"|" + b"*" * (len(VALUE) - half)


def test_what_is_shorter_than_a_slice_passes() -> None:
    data = VALUE[: SLICE_BYTES - 1] + b" " + VALUE[-SLICE_BYTES + 1 :]
    assert _scrubbed(data) == data


def test_several_secrets_with_equal_beginnings() -> None:
    first, second = b"sk-proj-shared-1A" + b"x1Y2z3" * 4, b"sk-proj-shared-1A" + b"q7W8e9" * 4
    needles = Needles([secret(first, name="A"), secret(second, name="B")])
    for value in (first, second):
        assert _scrubbed(b"[" + value + b"]", needles) == b"[" + b"*" * len(value) + b"]"
        assert set(_scrubbed(base64.b64encode(value), needles)) <= set(b"*=")


@pytest.mark.parametrize("size", [8, 9, 11, 12, 13, 23, 24, 100, 1_000, 5_000, 16_384])
def test_values_of_every_length_are_masked(size: int) -> None:
    dice = random.Random(size)  # noqa: S311 - repeatable
    value = bytes(dice.choices(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.", k=size))
    needles = Needles([secret(value)])
    assert needles.count <= MAX_NEEDLES
    for coded in (value, value.hex().encode(), base64.b64encode(value).rstrip(b"="), value[::-1]):
        assert _scrubbed(b"\n" + coded + b"\n", needles) == b"\n" + b"*" * len(coded) + b"\n"


def test_needles_stay_below_their_cap_with_many_secrets() -> None:
    dice = random.Random(1)  # noqa: S311 - repeatable
    values = [dice.randbytes(30).hex().encode() for _ in range(100)]
    needles = Needles([secret(value, name=f"S{at}") for at, value in enumerate(values)])
    assert needles.count <= MAX_NEEDLES
    for value in values:
        assert set(_scrubbed(value, needles)) == {ord("*")}
        assert set(_scrubbed(base64.b64encode(value), needles)) == {ord("*")}


def test_a_json_web_token_is_masked_and_others_with_its_header_are_not() -> None:
    def token(claims: dict[str, str], signature: bytes) -> bytes:
        parts = ({"alg": "HS256", "typ": "JWT"}, claims)
        coded = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in parts]
        return b".".join([*coded, base64.urlsafe_b64encode(signature).rstrip(b"=")])

    own = token({"sub": "6f1c", "role": "admin"}, bytes(range(32)))
    other = token({"other": "a1b2c3d4e5f6"}, bytes(range(100, 132)))
    needles = Needles([secret(own)])
    assert set(_scrubbed(own, needles)) == {ord("*")}
    assert _scrubbed(other, needles) == other


def test_a_declared_prefix_is_not_masked_by_itself() -> None:
    needles = Needles([secret(b"a-long-public-prefix-7Gh2kQ9x", placeholder_prefix="a-long-public-prefix-")])
    text = b"keys begin with a-long-public-prefix- here"
    assert _scrubbed(text, needles) == text
    assert set(_scrubbed(b"a-long-public-prefix-7Gh2kQ9x", needles)) == {ord("*")}


def test_plain_words_of_a_value_are_not_masked_by_themselves() -> None:
    needles = Needles([secret(b"production-database-password-8Fh3kW0qZ")])
    text = b"the production-database-password is not told; ------------ 000000000000"
    assert _scrubbed(text, needles) == text
    assert set(_scrubbed(b"production-database-password-8Fh3kW0qZ", needles)) == {ord("*")}


def test_a_random_corpus_has_no_hits() -> None:
    dice = random.Random(7)  # noqa: S311 - repeatable
    needles = Needles([secret(dice.randbytes(18).hex().encode(), name=f"S{at}") for at in range(5)])
    scrubber = Scrubber(needles)
    for _ in range(20):
        corpus = dice.randbytes(60_000)
        for data in (base64.b64encode(corpus), corpus.hex().encode(), quopri.encodestring(corpus)):
            scrubber.feed(data)
    scrubber.end()
    assert scrubber.hits == []


def test_secrets_that_are_not_scrubbed_or_have_no_value_make_no_needles() -> None:
    assert not Needles([secret(scrub="off"), secret(None, state="revoked")])
    assert not Needles([])
    assert _scrubbed(VALUE, Needles([])) == VALUE


def test_too_short_and_too_many_are_refused() -> None:
    with pytest.raises(ValueError, match="fewer than 8"):
        Needles([secret(b"1234567")])
    with pytest.raises(ValueError, match="too many"):
        Needles([secret(name=f"S{at}") for at in range(501)])


def test_what_a_create_may_bring_is_never_too_short_or_too_many() -> None:
    assert MIN_BYTES >= MIN_VALUE_BYTES
    assert broker_validation.MAX_SECRETS == deno_fields.MAX_SECRETS
    dice = random.Random(2)  # noqa: S311 - repeatable
    sizes = [*itertools.islice(itertools.cycle([MIN_BYTES, 40, 400, MAX_BYTES]), deno_fields.MAX_SECRETS)]
    values = [dice.randbytes(size // 2).hex().encode() for size in sizes]
    needles = Needles([secret(value, name=f"S{at}") for at, value in enumerate(values)])
    assert needles.count <= MAX_NEEDLES
    for value in values:
        assert set(_scrubbed(value, needles)) == {ord("*")}


def test_nothing_prints_a_value() -> None:
    assert VALUE.decode() not in repr(NEEDLES)
    assert VALUE.decode() not in repr(secret())


@pytest.mark.parametrize("size", [8, 12, 16, 31, 64, 100, 1_000])
@pytest.mark.parametrize("public", [0, 3, 70])
def test_pieces_lie_side_by_side(size: int, public: int) -> None:
    value = random.Random(size).randbytes(size // 2).hex().encode()  # noqa: S311 - repeatable
    pieces = cut(value, min(public, size), 16)
    assert pieces[-1][1] == len(value)
    assert all(left[1] == right[0] for left, right in itertools.pairwise(pieces))
    assert all(end - begin >= min(SLICE_BYTES, size) for begin, end in pieces)


def test_public_parts() -> None:
    assert public_length(b"sk-abc", b"sk-") == 3
    assert public_length(b"eyJhbGciOiJIUzI1NiJ9.e30.c2ln", b"") == 21
    assert public_length(b"eyJust-looks-like-it", b"") == 0
    assert slice_starts(b"a" * 40, 0) == []
