"""Placeholders in bodies, wherever the parts of a body are cut."""

import json

import pytest

from skerry.egress.substitution import Placeholders, Strays
from tests.unit.egress.secrets_for_tests import PLACEHOLDER, secret

PH = PLACEHOLDER.encode()
SECRETS = [
    secret(),
    secret(name="PREFIXED", placeholder="sk-" + "Ab1_" * 11),
    *(secret(name=f"S{at}", placeholder=f"{at}x" * 25) for at in range(5)),
]


@pytest.mark.parametrize("count", [1, 2, len(SECRETS)])
@pytest.mark.parametrize("size", [1, 7, 50, 10_000])
def test_each_is_found_once_with_its_offset(count: int, size: int) -> None:
    body = b"".join(b" and " + one.placeholder.encode() for one in SECRETS[:count])
    strays = Strays(Placeholders(SECRETS[:count]))
    found = [one for at in range(0, len(body), size) for one in strays.feed(body[at : at + size])]
    assert found == [(one.rule.name, body.index(one.placeholder.encode())) for one in SECRETS[:count]]


def test_escaping_does_not_hide_one() -> None:
    body = json.dumps({"prompt": json.dumps({"env": f"KEY={PLACEHOLDER}\n"})}).encode()
    assert [name for name, _ in Strays(Placeholders(SECRETS)).feed(body)] == ["KEY"]


def test_nothing_to_find() -> None:
    assert Strays(Placeholders([])).feed(PH) == []
    strays = Strays(Placeholders(SECRETS))
    assert strays.feed(PH[:-1] + b"x") == []
    assert strays.feed(b"y" * 1_000) == []


def test_percent_encoding_several_times_over() -> None:
    placeholders = Placeholders(SECRETS)
    assert placeholders.names_in(b"%44" + PH[1:]) == ["KEY"]
    assert placeholders.names_in(b"%252544" + PH[1:]) == ["KEY"]
    assert placeholders.names_in(b"%zz" + PH[1:]) == []
    assert placeholders.in_name(b"x-" + PH.lower()) == ["KEY"]


def test_nothing_prints_a_placeholder() -> None:
    assert PLACEHOLDER not in repr(Placeholders(SECRETS))
