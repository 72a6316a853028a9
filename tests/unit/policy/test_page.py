"""The page about policies names everything that it says it names."""

from pathlib import Path

import pytest

from skerry.policy import lint, reading
from skerry.policy.credential_headers import HEADERS
from skerry.policy.credential_parameters import CERTAIN, PARAMETERS
from skerry.policy.shared_fronts import SUFFIXES, is_shared_front
from skerry.policy.slots import parse

HERE = Path(__file__).resolve().parents[3]
PAGE = (HERE / "docs" / "policy.md").read_text()


def _section(title: str) -> str:
    return PAGE.partition(f"{title}\n")[2].partition("\n#")[0]


@pytest.mark.parametrize(
    ("title", "names"),
    [
        ("### Credential headers", HEADERS),
        ("### Credential parameters", PARAMETERS),
        ("### Foreign parameters", CERTAIN),
        ("## Shared servers", sorted(SUFFIXES)),
    ],
)
def test_lists_are_complete_and_current(title: str, names: tuple[str, ...]) -> None:
    line = next(one for one in _section(title).split("\n\n") if one.strip().startswith("`"))

    assert [one.strip().strip("`") for one in line.replace("\n", " ").split(",")] == list(names)


def test_every_lint_is_there() -> None:
    source = Path(lint.__file__).read_text()
    section = _section("## Lint")
    names = {
        part.split('"')[0]
        for part in source.split('"')
        if part.isascii() and part.count("-") and " " not in part
    }

    for name in names | {"mail", "confusable", "denied"}:
        assert f"`{name}`" in section, name


def test_the_example_is_a_good_document() -> None:
    toml = PAGE.partition("```toml\n")[2].partition("```")[0]

    found = reading.read_document(toml.encode(), kind="toml")
    assert found.allow[0].paths == ("/v1/**",)
    assert found.secrets is not None


def test_the_slots_are_good() -> None:
    for text in (
        "header:x-api-key",
        "header:authorization=Bearer {}",
        "basic:user",
        "query:key",
        "path:/bot{}/**",
    ):
        assert f"`{text}`" in PAGE
        assert parse(text).text == text


def test_shared_fronts_are_below_their_suffixes() -> None:
    assert is_shared_front("a.b.fastly.net")
    assert is_shared_front("fastly.net")
    assert not is_shared_front("evilfastly.net")
    assert not is_shared_front("example.com")
