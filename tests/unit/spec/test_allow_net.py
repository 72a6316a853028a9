"""The grammar of outbound permissions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.spec.allow_net import problem_of_pattern


@pytest.mark.parametrize(
    "pattern",
    [
        "example.com",
        "EXAMPLE.com.",
        "example.com:443",
        "*.example.com",
        "*.example.com:443",
        "localhost",
        "xn--bcher-kva.example",
        "_dmarc.example.com",
        "203.0.113.110",
        "203.0.113.110:8080",
        "[2001:db8::1]",
        "[2001:db8::1]:80",
    ],
)
def test_documented_forms_are_good(pattern: str) -> None:
    assert problem_of_pattern(pattern) is None


@pytest.mark.parametrize(
    ("pattern", "word"),
    [
        ("", "host name"),
        ("*", "wildcard"),
        ("*.", "host name"),
        ("a.*.example.com", "wildcard"),
        ("*example.com", "wildcard"),
        ("https://example.com", "scheme"),
        ("10.0.0.0/8", "prefix"),
        ("256.1.1.1", "IPv4"),
        ("1.2.3", "IPv4"),
        ("2001:db8::1", "brackets"),
        ("[2001:db8::1", "brackets"),
        ("[example.com]", "brackets"),
        ("[fe80::1%eth0]", "brackets"),
        ("[2001:db8::1]80", "port"),
        ("example.com:", "port"),
        ("example.com:0", "port"),
        ("example.com:65536", "port"),
        ("example.com:https", "port"),
        ("example..com", "host name"),
        ("-example.com", "host name"),
        ("exam ple.com", "host name"),
        ("bücher.example", "xn--"),
        ("a" * 64 + ".com", "host name"),
        (".".join(["a" * 60] * 5), "host name"),
    ],
)
def test_other_forms_are_refused_in_words(pattern: str, word: str) -> None:
    problem = problem_of_pattern(pattern)
    assert problem is not None
    assert word in problem


@given(st.text(alphabet="a1.*:[]/-", max_size=24))
def test_no_text_breaks_the_grammar(pattern: str) -> None:
    problem = problem_of_pattern(pattern)
    assert problem is None or len(problem) < 100
