"""The grammar of sizes."""

import pytest

from skerry.errors import InvalidRequest
from skerry.spec.sizes import parse_size_bytes, parse_size_mib


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("1GiB", 1 << 30),
        ("1.5GiB", 3 << 29),
        ("512MiB", 512 << 20),
        ("1KiB", 1024),
        ("1GB", 10**9),
        ("2MB", 2 * 10**6),
    ],
)
def test_sizes_with_units(text: str, size_bytes: int) -> None:
    assert parse_size_bytes(text) == size_bytes


def test_parts_of_a_byte_are_dropped() -> None:
    assert parse_size_bytes("0.0005kB") == 0
    assert parse_size_bytes("1.0019kB") == 1001


@pytest.mark.parametrize(("text", "mib"), [("1280", 1280), ("2GiB", 2048), ("1GB", 953)])
def test_mebibytes_are_rounded_down_and_need_no_unit(text: str, mib: int) -> None:
    assert parse_size_mib(text) == mib


@pytest.mark.parametrize(
    "text", ["", "GiB", "1 GiB", "1gib", "1KB", "-1GiB", "1e3MB", "1.GiB", "1TiB", "²MiB", "0x10MiB"]
)
def test_everything_else_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest):
        parse_size_mib(text)
