"""The canonical path, and patterns: row M3 of the threat table."""

import re
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from skerry.policy.names import BadPattern
from skerry.policy.paths import NotCanonical, Paths, canonical, check, parse, parse_all


@pytest.mark.parametrize(
    ("raw", "sent"),
    [
        (b"/", b"/"),
        (b"/?", b"/?"),
        (b"/v1/models", b"/v1/models"),
        (b"/v1/models/", b"/v1/models/"),
        (b"/v1/models?a=%2f..//;&b", b"/v1/models?a=%2f..//;&b"),
        (b"/a/./b", b"/a/b"),
        (b"/a/../b", b"/b"),
        (b"/a/b/..", b"/a/"),
        (b"/a/b/.", b"/a/b/"),
        (b"/..a/b..c/.well-known/x", b"/..a/b..c/.well-known/x"),
        (b"/caf%c3%a9", b"/caf%C3%A9"),
        (b"/a%20b/c", b"/a%20b/c"),
        (b"/a%40b", b"/a%40b"),
        (b"/@scope/x:y=z,w~", b"/@scope/x:y=z,w~"),
        (b"/100%25/x", b"/100%25/x"),
    ],
)
def test_a_target_has_one_form(raw: bytes, sent: bytes) -> None:
    assert canonical(raw).encoded == sent


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"*",
        b"v1",
        b"http://example.com/v1",
        b"//v1/admin",
        b"/v1//admin",
        b"/..",
        b"/../etc",
        b"/v1/../../etc",
        b"/%2e%2e/etc",
        b"/v1/%2E%2E/admin",
        b"/v1/.%2e/admin",
        b"/v1/%2e/admin",
        b"/v1%2fadmin",
        b"/v1%2Fadmin",
        b"/v1%5cadmin",
        b"/v1\\admin",
        b"/v1/..\\admin",
        b"/v1%00",
        b"/v1%0d%0aX:y",
        b"/v1%0a",
        b"/v1%7f",
        b"/v1;a=b/admin",
        b"/v1%3ba=b",
        b"/v1/..;/admin",
        b"/v1#x",
        b"/v1%23x",
        b"/v1%3fx",
        b"/v1%252fadmin",
        b"/v1%252e%252e/admin",
        b"/v1%25%32%66admin",
        b"/%61dmin",
        b"/admin%7e",
        b"/v1%",
        b"/v1%2",
        b"/v1%zz",
        b"/v1%u002f",
        b"/v1/.../x",
        b"/v1/admin./x",
        b"/v1/admin.",
        b"/v1/admin%20",
        b"/v1/admin%20/x",
        b"/v1/%c0%ae%c0%ae/x",
        b"/v1/%c0%af",
        b"/v1/%e0%80%af",
        b"/v1/%f0%80%80%af",
        b"/v1/%ff",
        b"/v1/%c3",
        b"/v1/\xc3\xa9",
        b"/v1/%ef%bc%8f",  # U+FF0F, a full-width slash
        b"/v1/%ef%bc%8e%ef%bc%8e/x",  # full-width dots
        b"/v1/%e2%88%95",  # U+2215, a division slash
        b"/v1/%e2%80%8b",  # zero width
        b"/v1/%ed%a0%80",  # a surrogate
        b"/v1/%e2%80%a5/x",  # U+2025, two dots in one
        b"/v1 /x",
        b"/v1\t/x",
        b"/v1\r\n",
        b"/v1\0",
        b'/v1/"x"',
        b"/v1/<x>",
        b"/v1/x?a b",
        b"/v1/x?a#b",
    ],
)
def test_spellings_that_may_be_read_in_another_way_are_refused(raw: bytes) -> None:
    with pytest.raises(NotCanonical) as caught:
        canonical(raw)

    assert str(caught.value)


_PARTS = b"/ / . .. %2e %2f %25 % %c3%a9 %c0%ae a B v1 ; ? # \\ %5c %20 \xff %00 @ ~ %7E * \0".split()
_BYTES = st.lists(st.sampled_from([*_PARTS, b" "]), max_size=14).map(lambda parts: b"/" + b"".join(parts))


@given(st.one_of(_BYTES, st.binary(max_size=40).map(lambda rest: b"/" + rest)))
@example(b"/a%2525")
def test_the_canonical_form_stays_the_same_and_decodes_to_nothing_with_a_meaning(raw: bytes) -> None:
    try:
        target = canonical(raw)
    except NotCanonical:
        return

    sent = target.encoded
    assert canonical(sent) == target
    path = sent.partition(b"?")[0]
    decoded = unquote_to_bytes(path)
    assert decoded.count(b"/") == path.count(b"/")
    assert not re.search(rb"[\x00-\x1f\\;?#\x7f]", decoded)
    assert b"//" not in path
    assert not {b".", b".."} & set(decoded.split(b"/"))
    # Decoding once more changes nothing that matters, either.
    assert unquote_to_bytes(decoded).count(b"/") == path.count(b"/")
    assert check(raw)


@pytest.mark.parametrize(
    ("raw", "good"),
    [
        (b"/", True),
        (b"*", True),
        (b"/a%2Fb//c;d?e", True),
        (b"/caf\xc3\xa9", True),
        (b"", False),
        (b"a", False),
        (b"/a b", False),
        (b"/a#b", False),
        (b"/a\x00", False),
        (b"/a\x7f", False),
        (b"/a\n", False),
        (b"http://x/", False),
    ],
)
def test_what_may_be_a_target_at_all(raw: bytes, good: bool) -> None:
    assert check(raw) is good


def _allows(wanted: str, path: bytes) -> bool:
    return parse_all((wanted,)).allow(canonical(path).segments)


@pytest.mark.parametrize(
    ("wanted", "path", "allowed"),
    [
        ("/v1/models", b"/v1/models", True),
        ("/v1/models", b"/v1/models/", False),
        ("/v1/models", b"/v1/Models", False),
        ("/v1/models", b"/v1/models/x", False),
        ("/v1/models/", b"/v1/models/", True),
        ("/", b"/", True),
        ("/", b"/a", False),
        ("/**", b"/", True),
        ("/**", b"/a/b/c", True),
        ("/v1/**", b"/v1/", True),
        ("/v1/**", b"/v1/a", True),
        ("/v1/**", b"/v1/a/b/", True),
        ("/v1/**", b"/v1", False),
        ("/v1/**", b"/v10/a", False),
        ("/v1/**", b"/admin/../v1/a", True),
        ("/v1/**", b"/v1/../admin", False),
        ("/repos/acme/*/issues", b"/repos/acme/app/issues", True),
        ("/repos/acme/*/issues", b"/repos/acme/app/x/issues", False),
        ("/repos/acme/*/issues", b"/repos/evil/app/issues", False),
        ("/repos/acme/*/issues", b"/repos/acme/app/issues/1", False),
        ("/repos/*/**", b"/repos/a/b/c", True),
        ("/repos/*/**", b"/repos/a", False),
        ("/models/*:generate", b"/models/x:generate", True),
        ("/models/*:generate", b"/models/:generate", False),
        ("/models/*:generate", b"/models/x:delete", False),
        ("/files/a*.json", b"/files/ab.json", True),
        ("/files/a*.json", b"/files/a.json", False),
        ("/caf%C3%A9", b"/caf%c3%a9", True),
        ("/*", b"/", False),
        ("/*", b"/a", True),
    ],
)
def test_patterns(wanted: str, path: bytes, allowed: bool) -> None:
    assert _allows(wanted, path) is allowed


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "slash"),
        ("v1", "slash"),
        ("/v1?x", "query"),
        ("/v1#x", "query"),
        ("/**/x", "last"),
        ("/a**", "last"),
        ("/a*b*", "one *"),
        ("/a//b", "empty"),
        ("//", "empty"),
        ("/a/../b", "canonical"),
        ("/a/./b", "canonical"),
        ("/a%2fb", "escaped"),
        ("/%61", "not needed"),
        ("/caf%c3%a9", "upper-case"),
        ("/a;b", ";"),
        ("/a b", "escaped"),
        ("/a.", "dot"),
        ("/" + "a" * 3000, "characters"),
    ],
)
def test_bad_patterns(text: str, word: str) -> None:
    with pytest.raises(BadPattern) as caught:
        parse(text)

    assert word in caught.value.message


@pytest.mark.parametrize(
    ("wide", "narrow", "covers"),
    [
        ("/**", "/a", True),
        ("/**", "/**", True),
        ("/**", "/v1/**", True),
        ("/v1/**", "/**", False),
        ("/v1/**", "/v1/", True),
        ("/v1/**", "/v1", False),
        ("/v1/*", "/v1/a", True),
        ("/v1/*", "/v1/*", True),
        ("/v1/a", "/v1/*", False),
        ("/v1/*", "/v1/a*", True),
        ("/v1/a*", "/v1/*", False),
        ("/v1/*", "/v1/**", False),
        ("/v1/*", "/v1/a/b", False),
        ("/v1/**", "/v1/*/x", True),
    ],
)
def test_a_pattern_covers_another(wide: str, narrow: str, covers: bool) -> None:
    assert parse(wide).covers(parse(narrow)) is covers


_SEGMENTS = st.lists(st.sampled_from(["a", "b", "ab", "", "*", "a*", "*b"]), min_size=1, max_size=3)


@given(
    _SEGMENTS,
    st.booleans(),
    _SEGMENTS,
    st.booleans(),
    st.lists(st.sampled_from(["a", "b", "ab", "aab", "xb"]), max_size=4),
    st.booleans(),
)
def test_what_is_covered_is_allowed_by_the_wider_one(
    wide: list[str], wide_below: bool, narrow: list[str], narrow_below: bool, path: list[str], slash: bool
) -> None:
    try:
        one = parse("/" + "/".join(wide + ["**"] * wide_below))
        other = parse("/" + "/".join(narrow + ["**"] * narrow_below))
    except BadPattern:
        return
    segments = (*path, *([""] if slash or not path else []))

    if one.covers(other) and Paths((other,)).allow(segments):
        assert Paths((one,)).allow(segments)
    assert Paths((one,)).allow(segments) == one.matches(segments)
