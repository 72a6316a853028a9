import pytest

from skerry.api.sites import check_site
from skerry.errors import Forbidden


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1:8787",
        "[::1]:8787",
        "localhost",
        "LOCALHOST:1",
        "192.0.2.7",
        "box.example:80",
        "Box.example.",
    ],
)
def test_who_names_this_server_is_let_in(host: str) -> None:
    check_site(host, None, {"box.example"})


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8787",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "",
        ":80",
        "2130706433",
        "[",
        "a@b",
    ],
)
def test_other_names_are_refused(host: str) -> None:
    with pytest.raises(Forbidden) as refused:
        check_site(host, None, {"box.example"})
    assert refused.value.code == "UNKNOWN_HOST"


def test_a_page_of_this_server_may() -> None:
    check_site("127.0.0.1:8787", "http://127.0.0.1:8787", ())


@pytest.mark.parametrize("origin", ["http://evil.example", "http://127.0.0.1:1", "null", "", "http://[evil"])
def test_pages_of_other_sites_may_not(origin: str) -> None:
    with pytest.raises(Forbidden) as refused:
        check_site("127.0.0.1:8787", origin, ())
    assert refused.value.code == "FOREIGN_ORIGIN"
