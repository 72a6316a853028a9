"""Slots: their grammar, and what fits them."""

from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.policy.credential_headers import HEADERS, is_credential_header
from skerry.policy.names import BadPattern
from skerry.policy.paths import canonical
from skerry.policy.slots import DEFAULT, SlotKind, basic_parts, basic_value, for_rule, parse

PLACEHOLDER = b"DENO_SECRET_PLACEHOLDER_" + b"0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        ("header:X-Api-Key", "header:x-api-key"),
        ("header:authorization=Bearer {}", "header:authorization=Bearer {}"),
        ("header:authorization={}", "header:authorization={}"),
        ('header:Authorization=Token token="{}"', 'header:authorization=Token token="{}"'),
        ("basic:user", "basic:user"),
        ("basic:password", "basic:password"),
        ("query:key", "query:key"),
        ("path:/bot{}/**", "path:/bot{}/**"),
        ("path:/x/{}", "path:/x/{}"),
    ],
)
def test_the_forms(text: str, stored: str) -> None:
    slot = parse(text)

    assert slot.text == stored
    assert parse(slot.text) == slot


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "a slot is"),
        ("authorization", "a slot is"),
        ("cookie:a", "a slot is"),
        ("body:x", "a slot is"),
        ("Header:x", "a slot is"),
        ("header:", "name"),
        ("header:a b", "name"),
        ("header:x\r\nY", "name"),
        ("header:Host", "cannot"),
        ("header:content-length", "cannot"),
        ("header:proxy-authorization", "cannot"),
        ("header:cookie", "cannot"),
        ("header:sec-websocket-key", "cannot"),
        ("header:x=Bearer", "{} once"),
        ("header:x={}{}", "{} once"),
        ("header:x=a\r\n{}", "{} once"),
        ("header:x= {}", "white space"),
        ("header:x={} ", "white space"),
        ("basic:both", "basic:user or"),
        ("query:", "parameter"),
        ("query:a b", "parameter"),
        ("query:a&b", "parameter"),
        ("path:/x", "{} once"),
        ("path:/{}/{}", "{} once"),
        ("path:x{}", "slash"),
        ("path:/a*{}/b", "*"),
        ("path:/a/../{}", "canonical"),
        ("header:" + "a" * 600, "a slot is"),
    ],
)
def test_other_forms_say_what_to_write(text: str, word: str) -> None:
    with pytest.raises(BadPattern) as caught:
        parse(text)

    assert word in caught.value.message


@pytest.mark.parametrize(
    ("slot", "value", "around"),
    [
        ("header:authorization", PLACEHOLDER, (b"", b"")),
        ("header:authorization", b"Bearer " + PLACEHOLDER, (b"Bearer ", b"")),
        ("header:authorization", b"token " + PLACEHOLDER, (b"token ", b"")),
        ("header:authorization", b"Bearer  " + PLACEHOLDER, None),
        ("header:authorization", b"Bearer a " + PLACEHOLDER, None),
        ("header:authorization", b"Bearer,x " + PLACEHOLDER, None),
        ("header:authorization", b"Bearer " + PLACEHOLDER + b"x", None),
        ("header:authorization", b"Bearer " + PLACEHOLDER + b" " + PLACEHOLDER, None),
        ("header:authorization", PLACEHOLDER + PLACEHOLDER, None),
        ("header:authorization", b"Bearer " + PLACEHOLDER[:-1], None),
        ("header:authorization", b"Bearer " + PLACEHOLDER.lower(), None),
        ("header:authorization", b"x" * 40 + b" " + PLACEHOLDER, None),
        ("header:authorization=Bearer {}", b"Bearer " + PLACEHOLDER, (b"Bearer ", b"")),
        ("header:authorization=Bearer {}", b"bearer " + PLACEHOLDER, None),
        ("header:authorization=Bearer {}", PLACEHOLDER, None),
        (
            'header:authorization=Token token="{}"',
            b'Token token="' + PLACEHOLDER + b'"',
            (b'Token token="', b'"'),
        ),
        ("header:x-key", b"a=" + PLACEHOLDER, None),
    ],
)
def test_the_whole_value_must_fit(slot: str, value: bytes, around: tuple[bytes, bytes] | None) -> None:
    assert parse(slot).around_of(value, PLACEHOLDER) == around


@pytest.mark.parametrize(
    ("slot", "path", "segment"),
    [
        ("path:/bot{}/**", b"/bot%s/getMe", 0),
        ("path:/bot{}/**", b"/bot%s/", 0),
        ("path:/bot{}/**", b"/bot%s", None),
        ("path:/bot{}/**", b"/robot%s/getMe", None),
        ("path:/bot{}/**", b"/bot%sx/getMe", None),
        ("path:/bot{}/**", b"/x/bot%s/getMe", None),
        ("path:/api/*/{}", b"/api/v1/%s", 2),
        ("path:/api/*/{}", b"/api/%s/v1", None),
    ],
)
def test_slots_in_the_path(slot: str, path: bytes, segment: int | None) -> None:
    target = canonical(path % PLACEHOLDER)

    assert parse(slot).in_path(target.segments, PLACEHOLDER.decode()) == segment


@pytest.mark.parametrize(
    ("value", "parts"),
    [
        (b"Basic dXNlcjpwYXNz", (b"user", b"pass")),
        (b"basic dXNlcjpwYXNz", (b"user", b"pass")),
        (b"Basic " + b64encode(b"a:b:c"), (b"a", b"b:c")),
        (b"Basic " + b64encode(b":"), (b"", b"")),
        (b"Basic " + b64encode(b"nocolon"), None),
        (b"Basic dXNlcjpwYXN", None),
        (b"Basic dXNlcjpwYXNz=", None),
        (b"Basic dXNl\ncjpwYXNz", None),
        (b"Basic YR==", None),
        (b"Basic " + b64encode(b"a:b").replace(b"=", b""), (b"a", b"b")),
        (b"Basic", None),
        (b"Basic ", None),
        (b"Bearer dXNlcjpwYXNz", None),
        (b"Basic\tdXNlcjpwYXNz", None),
    ],
)
def test_basic(value: bytes, parts: tuple[bytes, bytes] | None) -> None:
    assert basic_parts(value) == parts


@given(st.binary(max_size=40).filter(lambda user: b":" not in user), st.binary(max_size=40))
def test_basic_and_back(user: bytes, password: bytes) -> None:
    assert basic_parts(basic_value(user, password)) == (user, password)


def test_the_default_slots_are_the_credential_headers() -> None:
    texts = {one.text for one in DEFAULT}

    assert texts == {f"header:{name}" for name in HEADERS if name != "proxy-authorization"} | {
        "basic:user",
        "basic:password",
    }
    assert for_rule(()) is DEFAULT
    assert [one.kind for one in for_rule(("query:key",))] == [SlotKind.QUERY]
    for one in DEFAULT:
        assert parse(one.text) == one
        assert is_credential_header(one.field)


@pytest.mark.parametrize(
    "text", ["header:Content_Length", "header:proxy_authorization", "header:x_forwarded_for"]
)
def test_underscores_do_not_make_a_slot_of_a_header_that_cannot_be_one(text: str) -> None:
    with pytest.raises(BadPattern, match="cannot be a slot"):
        parse(text)


@pytest.mark.parametrize("name", [b"Authorization", b"X-API-KEY", b"x_api_key", b"Private-Token", b"apikey"])
def test_credential_headers_in_any_spelling(name: bytes) -> None:
    assert is_credential_header(name)


@pytest.mark.parametrize("name", [b"Cookie", b"X-Csrf-Token", b"Accept", b"X-Request-Id", b"Idempotency-Key"])
def test_other_headers_are_none(name: bytes) -> None:
    assert not is_credential_header(name)


@pytest.mark.parametrize(
    ("wide", "narrow", "covers"),
    [
        ("header:authorization", "header:authorization", True),
        ("header:authorization", "header:authorization=Bearer {}", True),
        ("header:authorization", "header:authorization=a=b {}", False),
        ("header:authorization=Bearer {}", "header:authorization", False),
        ("header:authorization", "header:x-api-key", False),
        ("query:a", "query:a", True),
        ("query:a", "query:b", False),
        ("basic:user", "basic:password", False),
        ("path:/{}", "path:/{}", True),
    ],
)
def test_a_slot_covers_another(wide: str, narrow: str, covers: bool) -> None:
    assert parse(wide).covers(parse(narrow)) is covers
