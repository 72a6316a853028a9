"""Durations and sizes as people type them."""

import pytest

from skerry.cli.quantities import parse_duration_s, parse_size_mib, show_duration
from skerry.errors import InvalidRequest


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("1500ms", 1.5), ("30s", 30), (" 5m ", 300), ("2h", 7200), ("1d", 86_400), ("0", 0)],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration_s(text) == seconds


@pytest.mark.parametrize("text", ["", "m", "-5m", "1.5h", "5 m", "5w", "\u0665m", "9" * 10, "5m\n5m"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(InvalidRequest, match="not a duration"):
        parse_duration_s(text)


@pytest.mark.parametrize(
    ("text", "mib"),
    [("768", 768), ("2GiB", 2048), ("2gib", 2048), ("2 G", 2048), ("1.5GB", 1430), ("800MB", 762)],
)
def test_sizes(text: str, mib: int) -> None:
    assert parse_size_mib(text) == mib


@pytest.mark.parametrize("text", ["", "GiB", "-1", "1.2.3MiB", "2 PiB", "1e3"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(InvalidRequest, match="not a size"):
        parse_size_mib(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (-3, "0s"),
        (59.9, "59s"),
        (200, "3m 20s"),
        (3600, "1h"),
        (7500, "2h 5m"),
        (273_600, "3d 4h"),
    ],
)
def test_shown_durations(seconds: float, text: str) -> None:
    assert show_duration(seconds) == text
