"""Durations and sizes as people type them on a command line or in a file: more forms than on the wire."""

import re

from skerry.errors import InvalidRequest
from skerry.spec import sizes

_DURATION = re.compile(r"([0-9]{1,9})(ms|s|m|h|d)?", re.ASCII)
_UNIT_MS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}

_SIZE = re.compile(r"([0-9.]+) ?([a-z]*)", re.ASCII)
_UNITS = {"": "", "k": "KiB", "m": "MiB", "g": "GiB", "kib": "KiB", "mib": "MiB", "gib": "GiB"}
_UNITS |= {"kb": "kB", "mb": "MB", "gb": "GB"}


def parse_duration_s(text: str) -> float:
    """Seconds of ``90``, ``1500ms``, ``30s``, ``5m``, ``2h`` or ``1d``; a bare number is seconds.

    Raises:
        InvalidRequest: It is none of these.
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise InvalidRequest(f"{text!r} is not a duration: expected a number with s, m, h or d, such as 5m")
    return int(match[1]) * _UNIT_MS[match[2] or "s"] / 1000


def parse_size_mib(text: str) -> int:
    """MiB of ``768`` (MiB), ``768MiB``, ``2gib``, ``2G`` or ``1.5GB``; rounded down.

    Raises:
        InvalidRequest: It is none of these.
    """
    match = _SIZE.fullmatch(text.strip().lower())
    if match is None or match[2] not in _UNITS:
        raise InvalidRequest(
            f"{text!r} is not a size: expected a number with MiB, GiB, MB or GB, such as 2GiB"
        )
    return sizes.parse_size_mib(match[1] + _UNITS[match[2]])


def show_duration(seconds: float) -> str:
    """The two largest units: ``45s``, ``3m 20s``, ``2h 5m``, ``3d 4h``."""
    left = max(0, int(seconds))
    parts: list[str] = []
    for name, size in (("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count or (name == "s" and not parts):
            parts.append(f"{count}{name}")
    return " ".join(parts[:2])
