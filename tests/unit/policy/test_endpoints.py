"""Hosts with ports, as `allow_net` and secrets have them; hosts of rules."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.policy.endpoints import endpoint, endpoint_text, literal, rule_host, stored_host, text_of
from skerry.policy.names import BadPattern


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        ("example.com", "example.com"),
        ("EXAMPLE.com.", "example.com"),
        ("example.com:443", "example.com:443"),
        ("*.example.com:8443", "*.example.com:8443"),
        ("localhost", "localhost"),
        ("203.0.113.110", "203.0.113.110"),
        ("203.0.113.110:8080", "203.0.113.110:8080"),
        ("[2001:db8::1]", "[2001:db8::1]"),
        ("[2001:DB8:0::1]:80", "[2001:db8::1]:80"),
    ],
)
def test_the_documented_forms(text: str, stored: str) -> None:
    host, port = endpoint(text)

    assert endpoint_text(host, port) == stored
    assert endpoint(stored, stored=True) == (host, port)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("https://example.com", "scheme"),
        ("10.0.0.0/8", "prefix"),
        ("user@example.com", "user"),
        ("example.com:0", "port"),
        ("example.com:65536", "port"),
        ("example.com:https", "port"),
        ("example.com:", "port"),
        ("example.com:0443", "port"),
        ("2001:db8::1", "brackets"),
        ("[2001:db8::1", "brackets"),
        ("[203.0.113.1]", "brackets"),
        ("[2001:db8::1]443", "port"),
        ("[fe80::1%eth0]", "IPv6"),
        ("1.2.3", "IPv4"),
        ("1.2.3.256", "IPv4"),
        ("01.2.3.4", "IPv4"),
        ("*", "wildcard"),
        ("a" * 400, "too long"),
    ],
)
def test_other_forms_say_what_to_write(text: str, word: str) -> None:
    with pytest.raises(BadPattern) as caught:
        endpoint(text)

    assert word in caught.value.message


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        ("example.com", "example.com"),
        ("*.example.com", "*.example.com"),
        ("203.0.113.0/24", "203.0.113.0/24"),
        ("203.0.113.7", "203.0.113.7"),
        ("203.0.113.7/32", "203.0.113.7"),
        ("2001:db8::/32", "2001:db8::/32"),
        ("2001:db8::1", "2001:db8::1"),
        ("::1", "::1"),
    ],
)
def test_hosts_of_rules(text: str, stored: str) -> None:
    host = rule_host(text)

    assert text_of(host) == stored
    assert stored_host(stored) == host


@pytest.mark.parametrize(
    "text",
    [
        "fe80::1%eth0",
        "fe80::%eth0/64",
        "203.0.113.1/24",
        "example.com/24",
        "https://example.com",
        "example.com:443",
        " example.com",
        "1.2.3.4/33",
    ],
)
def test_bad_hosts_of_rules(text: str) -> None:
    with pytest.raises(BadPattern):
        rule_host(text)


@given(st.text(max_size=60))
def test_anything_else_is_refused_or_has_a_stored_form(text: str) -> None:
    try:
        host, port = endpoint(text)
    except BadPattern:
        return

    again, port_again = endpoint(endpoint_text(host, port), stored=True)
    assert (text_of(again), port_again) == (text_of(host), port)


def test_literal_addresses() -> None:
    assert str(literal("203.0.113.7")) == "203.0.113.7"
    assert str(literal("2001:db8::1")) == "2001:db8::1"
    assert literal("203.0.113.0/24") is None
    assert literal("example.com") is None
