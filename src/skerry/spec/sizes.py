"""The grammar of sizes: ``1280``, ``512MiB``, ``1.5GB``."""

import re
from decimal import Decimal

from skerry.errors import InvalidRequest

MIB = 1 << 20

_SIZE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,6})?)(GiB|MiB|KiB|GB|MB|kB)", re.ASCII)
_UNIT_BYTES = {"GiB": 1 << 30, "MiB": MIB, "KiB": 1 << 10, "GB": 10**9, "MB": 10**6, "kB": 10**3}


def parse_size_bytes(text: str) -> int:
    """Read a size with its unit; case matters, as in the official SDKs. Parts of a byte are dropped.

    Raises:
        InvalidRequest: There is no number, or no unit out of ``GiB MiB KiB GB MB kB``.
    """
    match = _SIZE.fullmatch(text)
    if match is None:
        raise InvalidRequest(
            f"not a size: {text[:40]!r}; write a number and GiB, MiB, KiB, GB, MB or kB, such as 2GiB"
        )
    return int(Decimal(match[1]) * _UNIT_BYTES[match[2]])


def parse_size_mib(text: str) -> int:
    """Read a size in whole MiB: a plain number is MiB, with a unit it is rounded down.

    Raises:
        InvalidRequest: As in `parse_size_bytes`.
    """
    if text.isascii() and text.isdigit() and len(text) <= 15:
        return int(text)
    return parse_size_bytes(text) // MIB
