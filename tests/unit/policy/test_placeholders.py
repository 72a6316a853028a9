"""Placeholders (G32)."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.policy.placeholder_prefixes import problem_of
from skerry.policy.placeholders import RANDOM_BYTES, make
from tests.unit.policy.build import secret

_BYTES = st.binary(min_size=RANDOM_BYTES, max_size=RANDOM_BYTES)


@given(_BYTES)
def test_the_default_is_what_the_sdks_know(random_bytes: bytes) -> None:
    made = make(secret("a.example"), random_bytes)

    assert re.fullmatch(r"DENO_SECRET_PLACEHOLDER_[0-9a-f]{64}", made)


@given(_BYTES, _BYTES)
def test_a_prefix_is_kept_and_no_two_are_the_same(one: bytes, other: bytes) -> None:
    rule = secret("a.example", placeholder_prefix="sk-proj-")

    made = make(rule, one)
    assert re.fullmatch(r"sk-proj-[A-Za-z0-9_]{40,}", made)
    assert (made == make(rule, other)) is (one == other)


def test_too_little_randomness_is_refused() -> None:
    with pytest.raises(ValueError, match="32 random bytes"):
        make(secret("a.example"), b"x" * 31)


@pytest.mark.parametrize(
    ("prefix", "good"), [("", True), ("ghp_", True), ("sk-", True), ("a b", False), ("é", False)]
)
def test_prefixes(prefix: str, good: bool) -> None:
    assert (problem_of(prefix) is None) is good


def test_long_prefixes_are_refused() -> None:
    assert problem_of("a" * 33) is not None
