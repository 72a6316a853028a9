"""Label filters, cursors and Link headers in both SDKs' spellings."""

from urllib.parse import parse_qsl, urlsplit

import pytest

from skerry.errors import InvalidRequest
from skerry.protocol.deno_filters import Position, cursor_position, label_filter, next_link, page_size

ID = "sbx_ord_1at5nn58e77rtd11e3k3"


def test_both_spellings_of_labels() -> None:
    assert label_filter([("labels[env]", "prod"), ("labels[a b]", "x"), ("limit", "3")]) == {
        "env": "prod",
        "a b": "x",
    }
    assert label_filter([("labels", "{'env': 'prod', \"it's\": 'é'}")]) == {"env": "prod", "it's": "é"}


@pytest.mark.parametrize(
    "text",
    [
        "env=prod",
        "{1: 'a'}",
        "{'a': 1}",
        "['a']",
        "{" * 200,
        "__import__('os')",
        "{'a': 'b'" + " " * 9000,
        "",
        "(" * 3000,
    ],
)
def test_other_labels_are_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="labels"):
        label_filter([("labels", text)])


def test_page_sizes() -> None:
    assert page_size([]) == 30
    assert page_size(["5", "100"]) == 100
    for text in ("0", "101", "-1", "x", "", "1.5", "٣"):
        with pytest.raises(InvalidRequest, match="limit"):
            page_size([text])


def test_a_link_leads_to_the_next_page_for_both_sdks() -> None:
    position = Position(1_700_000_000_123, ID)
    link = next_link(
        "http://h:1", "/api/v3/sandboxes", [("labels", "{'a': 'b,c;d'}"), ("cursor", "old")], position
    )
    url, rel = link.split("; ")
    assert rel == 'rel="next"'
    assert "," not in url
    address = url.strip("<>")
    query = parse_qsl(urlsplit(address).query)
    assert query[0] == ("labels", "{'a': 'b,c;d'}")
    cursors = [value for name, value in query if name == "cursor"]
    assert len(cursors) == 1
    assert cursor_position(cursors) == position  # JavaScript takes the parameter out
    assert (
        cursor_position(["old", address]) == position
    )  # Python sends the whole URL, behind the cursor before
    assert cursor_position([]) is None


@pytest.mark.parametrize(
    "cursor", ["x", "", "1.2", f"-1.{ID}", "https://evil/?a=b", f"1{'0' * 20}.{ID}", "1.sbx_../etc"]
)
def test_foreign_cursors_are_refused(cursor: str) -> None:
    with pytest.raises(InvalidRequest, match="cursor"):
        cursor_position([cursor])
