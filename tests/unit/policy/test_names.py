"""Host names and patterns: rows R17, R18 and R19 of the threat table."""

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.policy.names import (
    MAX_WILDCARD_LABEL,
    MAX_WILDCARD_NAME,
    BadName,
    BadPattern,
    canonical,
    host,
    pattern,
    stored_pattern,
)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("example.com", "example.com"),
        ("EXAMPLE.Com", "example.com"),
        ("localhost", "localhost"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("r3---sn-abc.example.com", "r3---sn-abc.example.com"),
        ("1.example.com", "1.example.com"),
        ("0x7f.example", "0x7f.example"),
        ("a" * 63 + ".example", "a" * 63 + ".example"),
    ],
)
def test_a_name_has_one_form(text: str, name: str) -> None:
    assert canonical(text) == name


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        ".example.com",
        "example..com",
        "example.com.",
        "example.com..",
        " example.com",
        "example.com ",
        "example.com\n",
        "example.com\0",
        "exam\0ple.com",
        "good.com@evil.example",
        "good.com#@evil.example",
        "good.com:443",
        "good.com/evil",
        "evil\\.good.com",
        "good.com%2eevil",
        "good%00.com",
        "-bad.example",
        "bad-.example",
        "_dmarc.example.com",
        "a" * 64 + ".example",
        ".".join(["a" * 63] * 4) + ".example",
        "127.1",
        "0x7f.1",
        "0x7f.0x1",
        "2130706433",
        "0x7f000001",
        "017700000001",
        "127.0.0.1",
        "1.2.3.4.5",
        "example.1",
        "example.0x",
        "::1",
        "[::1]",
        "*.example.com",
        "*",
        "bücher.example",
        "example\u3002com",
        "example\uff0ecom",
        "example\uff61com",
        "ex\u200bample.com",
        "\uff45xample.com",
        "faß.example",
        "\u212aelvin.example",  # the Kelvin sign, which lower() turns into a plain k
        "a,b.example",
        "a b.example",
        "ex'ample.com",
    ],
)
def test_what_is_no_name_is_refused_with_a_fixed_text(text: str) -> None:
    with pytest.raises(BadName) as caught:
        canonical(text)

    assert "host name" in str(caught.value)
    assert not text or text not in str(caught.value)


@given(st.text(max_size=300))
def test_a_canonical_name_stays_the_same_and_is_plain(text: str) -> None:
    try:
        name = canonical(text)
    except BadName:
        return

    assert canonical(name) == name
    assert name.isascii()
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789.-")
    assert name == text.lower()
    assert len(name) <= 253


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("203.0.113.7", IPv4Address("203.0.113.7")),
        ("[2001:db8::1]", IPv6Address("2001:db8::1")),
        ("[::ffff:10.0.0.1]", IPv6Address("::ffff:10.0.0.1")),
        ("Example.com", "example.com"),
    ],
)
def test_a_host_is_a_name_or_a_plain_address(text: str, expected: object) -> None:
    assert host(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "127.1",
        "010.0.0.1",
        "1.2.3.256",
        "0x7f.0.0.1",
        "::1",
        "[::1",
        "[fe80::1%eth0]",
        "[1.2.3.4]",
        "1.2.3.4.",
    ],
)
def test_other_spellings_of_addresses_are_refused(text: str) -> None:
    with pytest.raises(BadName):
        host(text)


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        ("example.com", "example.com"),
        ("EXAMPLE.com.", "example.com"),
        ("*.Example.com", "*.example.com"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("*.BÜCHER.example", "*.xn--bcher-kva.example"),
        ("faß.example", "xn--fa-hia.example"),
        ("*.acme.github.io", "*.acme.github.io"),
        ("*.corp.example", "*.corp.example"),
        ("*.internal", "*.internal"),
        ("github.io", "github.io"),
    ],
)
def test_what_people_write_is_stored_as_a_labels(text: str, stored: str) -> None:
    found = pattern(text)

    assert found.text == stored
    again = stored_pattern(stored)
    assert (again.name, again.wildcard) == (found.name, found.wildcard)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "host name"),
        ("*", "wildcard"),
        ("*.", "host name"),
        ("**.example.com", "wildcard"),
        ("a.*.example.com", "wildcard"),
        ("*example.com", "wildcard"),
        ("foo*.example.com", "wildcard"),
        ("*.*.example.com", "wildcard"),
        ("*.com", "anybody"),
        ("*.co.uk", "anybody"),
        ("*.github.io", "anybody"),
        ("*.vercel.app", "anybody"),
        ("*.s3.amazonaws.com", "anybody"),
        ("*.neverheardof", "anybody"),
        ("_dmarc.example.com", "underscore"),
        ("127.1", "IPv4"),
        ("2130706433", "IPv4"),
        ("example\u3002com", "plain dots"),
        ("ex\u200bample.com", "characters"),
        ("exa mple.com", "host name"),
        ("^.*\\.example\\.com$", "wildcard"),
        ("/example/", "host name"),
    ],
)
def test_bad_patterns_say_what_to_write(text: str, word: str) -> None:
    with pytest.raises(BadPattern) as caught:
        pattern(text)

    assert word in caught.value.message


def test_public_suffixes_may_be_denied() -> None:
    assert pattern("*.com", public_suffixes=False).text == "*.com"


@pytest.mark.parametrize(
    "text", ["Example.com", "example.com.", "bücher.example", "a_b", "*.Example.com", ""]
)
def test_only_the_stored_form_is_read_back(text: str) -> None:
    with pytest.raises(BadPattern):
        stored_pattern(text)


@pytest.mark.parametrize(
    ("wanted", "name", "matches"),
    [
        ("example.com", "example.com", True),
        ("example.com", "www.example.com", False),
        ("*.example.com", "www.example.com", True),
        ("*.example.com", "a.b.example.com", True),
        ("*.example.com", "example.com", False),
        ("*.example.com", "evilexample.com", False),
        ("*.example.com", "example.com.evil.example", False),
        ("*.example.com", "a" * MAX_WILDCARD_LABEL + ".example.com", True),
        ("*.example.com", "a" * (MAX_WILDCARD_LABEL + 1) + ".example.com", False),
        ("*.example.com", "x." * ((MAX_WILDCARD_NAME - 11) // 2) + "example.com", True),
        ("*.example.com", "x." * ((MAX_WILDCARD_NAME - 11) // 2 + 1) + "example.com", False),
    ],
)
def test_wildcards_stand_for_whole_short_labels(wanted: str, name: str, matches: bool) -> None:
    assert stored_pattern(wanted).matches(name) is matches


@pytest.mark.parametrize(
    ("wide", "narrow", "covers"),
    [
        ("example.com", "example.com", True),
        ("example.com", "*.example.com", False),
        ("*.example.com", "example.com", False),
        ("*.example.com", "a.example.com", True),
        ("*.example.com", "*.example.com", True),
        ("*.example.com", "*.a.example.com", True),
        ("*.a.example.com", "*.example.com", False),
        ("*.example.com", "*.evilexample.com", False),
    ],
)
def test_a_pattern_covers_another(wide: str, narrow: str, covers: bool) -> None:
    assert stored_pattern(wide).covers(stored_pattern(narrow)) is covers


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("p\u0430ypal.example", "alphabets"),  # a Cyrillic a
        ("xn--pypal-4ve.example", "alphabets"),
        ("\u0430\u0440\u0440\u04cf\u0435.example", "Latin"),
        ("faß.example", "some clients"),
        ("xn--999999999.example", "no valid"),
    ],
)
def test_names_that_look_like_others_come_with_a_warning(text: str, word: str) -> None:
    assert any(word in warning for warning in pattern(text).warnings), pattern(text).warnings


@pytest.mark.parametrize(
    "text", ["bücher.example", "пример.example", "例え.example", "example.com", "ελληνικά.example"]
)
def test_ordinary_names_come_without_warning(text: str) -> None:
    assert pattern(text).warnings == ()
