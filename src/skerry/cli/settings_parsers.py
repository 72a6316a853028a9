"""Parsers of settings: from a TOML value, or the text of a variable or a flag, to the checked value.

Each raises `skerry.errors.InvalidRequest`, whose message says what was expected.
"""

import ipaddress
import re
from collections.abc import Callable, Mapping
from pathlib import PurePosixPath
from typing import Any

from skerry.cli.quantities import parse_duration_s, parse_size_mib
from skerry.errors import InvalidRequest
from skerry.spec.sandbox import Isolation

Parser = Callable[[Any], Any]

DAY_S = 86_400.0
MAX_MIB = 1 << 20


def _bad(value: object, expected: str) -> InvalidRequest:
    return InvalidRequest(f"{value!r} is wrong: expected {expected}")


def whole(low: int, high: int) -> Parser:
    """Whole numbers, also as text."""
    expected = f"a whole number from {low} to {high}"

    def parse(value: Any) -> int:
        if isinstance(value, str) and re.fullmatch(r"[0-9]{1,15}", value.strip(), re.ASCII):
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise _bad(value, expected)
        return value

    return parse


def number(low: float, high: float) -> Parser:
    """Numbers, also as text."""
    expected = f"a number from {low:g} to {high:g}"

    def parse(value: Any) -> float:
        found = float(value) if isinstance(value, str) and _is_plain_number(value) else value
        if isinstance(found, bool) or not isinstance(found, int | float) or not low <= found <= high:
            raise _bad(value, expected)
        return float(found)

    return parse


def _is_plain_number(text: str) -> bool:
    return re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,6})?", text.strip(), re.ASCII) is not None


def seconds(low: float, high: float) -> Parser:
    """Durations: a number of seconds, or text such as ``5m``."""

    def parse(value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise _bad(value, "a duration such as 30s or 5m")
        plain = not isinstance(value, str) or _is_plain_number(value)
        found = float(value) if plain else parse_duration_s(str(value))
        if not low <= found <= high:
            raise _bad(value, f"a duration from {low:g} s to {high:g} s")
        return found

    return parse


def whole_seconds(low: float, high: float) -> Parser:
    """The same, fractions cut off."""
    parse = seconds(low, high)
    return lambda value: int(parse(value))


def mib(low: int, high: int) -> Parser:
    """Sizes: a number of MiB, or text such as ``2GiB``."""

    def parse(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise _bad(value, "a size such as 768MiB or 2GiB")
        size = parse_size_mib(value) if isinstance(value, str) else value
        if not low <= size <= high:
            raise _bad(value, f"a size from {low} MiB to {high} MiB")
        return size

    return parse


def flag(value: Any) -> bool:
    """Booleans, also as words."""
    words = {
        "1": True,
        "true": True,
        "yes": True,
        "on": True,
        "0": False,
        "false": False,
        "no": False,
        "off": False,
    }
    found = words.get(value.strip().lower()) if isinstance(value, str) else value
    if not isinstance(found, bool):
        raise _bad(value, "true or false")
    return found


def absolute_path(value: Any) -> str:
    """An absolute path."""
    if not isinstance(value, str) or "\0" in value or not PurePosixPath(value).is_absolute():
        raise _bad(value, "an absolute path")
    return str(PurePosixPath(value))


def _matching(pattern: str, expected: str) -> Callable[[Any], str]:
    compiled = re.compile(pattern, re.ASCII)

    def parse(value: Any) -> str:
        if not isinstance(value, str) or not compiled.fullmatch(value):
            raise _bad(value, expected)
        return value

    return parse


region = _matching(r"[a-z]{3}", "three lower-case letters")
image_name = _matching(r"[a-z0-9][a-z0-9._:/-]{0,127}", "an image name such as builtin:debian-13")
_digest = _matching(r"sha256:[0-9a-f]{64}", "sha256: and 64 hexadecimal digits")


policy_name = _matching(r"|[a-z0-9][a-z0-9._-]{0,63}", "a policy's name such as team-a, or nothing")


def isolation(value: Any) -> str:
    """``auto`` or the name of a driver."""
    names = ("auto", *(member.value for member in Isolation))
    if value not in names:
        raise _bad(value, "one of " + ", ".join(names))
    return str(value)


def split_listen(value: str) -> tuple[str, int]:
    """Host (an IP address) and port of ``H:P``; IPv6 in brackets, ``localhost`` is 127.0.0.1.

    Raises:
        InvalidRequest: It is not of that form.
    """
    expected = "host:port with an IP address or localhost, such as 127.0.0.1:8787 or [::1]:0"
    host, _, port = value.rpartition(":")
    host = "127.0.0.1" if host == "localhost" else host.removeprefix("[").removesuffix("]")
    try:
        ipaddress.ip_address(host)
    except ValueError:
        raise _bad(value, expected) from None
    if not re.fullmatch(r"[0-9]{1,5}", port, re.ASCII) or int(port) > 65_535:
        raise _bad(value, expected)
    return host, int(port)


def listen(value: Any) -> str:
    """``host:port`` in its normal form."""
    if not isinstance(value, str):
        raise _bad(value, "host:port")
    host, port = split_listen(value)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_loopback(address: str) -> bool:
    """Whether only this machine can reach a checked ``host:port``."""
    return ipaddress.ip_address(split_listen(address)[0]).is_loopback


def host_names(value: Any) -> tuple[str, ...]:
    """Host names: a list, or text with commas between them."""
    names = value.split(",") if isinstance(value, str) else value
    if not isinstance(names, list):
        raise _bad(value, "host names such as skerry.example, separated by commas")
    return tuple(_host_name(name.strip().lower() if isinstance(name, str) else name) for name in names)


_host_name = _matching(
    r"(?=.{1,253}$)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*",
    "a host name such as skerry.example",
)


def listed(parser: Parser, expected: str) -> Parser:
    """Lists, or text with commas between the parts."""

    def parse(value: Any) -> tuple[Any, ...]:
        parts = [part for part in value.split(",") if part.strip()] if isinstance(value, str) else value
        if not isinstance(parts, list | tuple):
            raise _bad(value, expected)
        return tuple(parser(part.strip() if isinstance(part, str) else part) for part in parts)

    return parse


def absolute_path_or_none(value: Any) -> str:
    """An absolute path, or nothing."""
    return "" if value == "" else absolute_path(value)


def address_and_port(value: Any) -> str:
    """``address:port`` in its normal form."""
    expected = "an IP address and a port, such as 192.0.2.53:53 or [2001:db8::53]:53"
    host, port = _split_port(value, expected)
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        raise _bad(value, expected) from None
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"


def host_and_port_or_none(value: Any) -> str:
    """``host:port``, the host being a name or an address; or nothing."""
    if value == "":
        return ""
    expected = "a host and a port, such as proxy.example:3128"
    host, port = _split_port(value, expected)
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return f"{_host_name(host.lower())}:{port}"
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"


def _split_port(value: Any, expected: str) -> tuple[str, int]:
    if not isinstance(value, str):
        raise _bad(value, expected)
    host, _, port = value.rpartition(":")
    if not re.fullmatch(r"[0-9]{1,5}", port, re.ASCII) or not 1 <= int(port) <= 65_535:
        raise _bad(value, expected)
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        raise _bad(value, expected)
    return host.removeprefix("[").removesuffix("]"), int(port)


def internal_networks(value: Any) -> tuple[dict[str, Any], ...]:
    """Tables with ``names`` and ``cidr``."""
    expected = 'tables with names = ["*.corp.example"] and cidr = ["10.1.0.0/16"]'
    if not isinstance(value, list):
        raise _bad(value, expected)
    return tuple(_internal_network(one, expected) for one in value)


def _internal_network(value: Any, expected: str) -> dict[str, Any]:
    if not isinstance(value, Mapping) or not {"cidr"} <= value.keys() <= {"names", "cidr"}:
        raise _bad(value, expected)
    names = listed(_name_or_below, expected)(value.get("names", []))
    return {"names": names, "cidr": listed(_prefix, expected)(value["cidr"])}


def _name_or_below(value: Any) -> str:
    text = value.lower() if isinstance(value, str) else value
    if isinstance(text, str) and text.startswith("*."):
        return "*." + _host_name(text.removeprefix("*."))
    return _host_name(text)


def _prefix(value: Any) -> str:
    try:
        return str(ipaddress.ip_network(value))
    except (ValueError, TypeError):
        raise _bad(value, "a network prefix such as 10.1.0.0/16") from None


def paths_by_name(value: Any) -> dict[str, str]:
    """A table of image name = absolute path."""
    return _by_name(value, absolute_path, "a table of name = absolute path")


def digests_by_name(value: Any) -> dict[str, str]:
    """A table of image name = digest."""
    return _by_name(value, _digest, "a table of name = digest")


def _by_name(value: Any, parser: Parser, expected: str) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise _bad(value, expected)
    return {image_name(name): parser(text) for name, text in value.items()}
