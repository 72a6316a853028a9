"""Which site a browser thinks it speaks to, and on whose behalf. Pure.

A page whose name an attacker points at this machine (DNS rebinding) sends that name as ``Host``; a page of
another site sends its own as ``Origin``. SDKs and command-line tools send no ``Origin``, and as ``Host`` what
the user gave them.
"""

import ipaddress
from collections.abc import Collection
from urllib.parse import urlsplit

from skerry.errors import Forbidden


def check_site(host: str, origin: str | None, host_names: Collection[str]) -> None:
    """Refuse a request that a web page of another site makes or could make.

    Args:
        host: The ``Host`` header, with or without a port.
        origin: The ``Origin`` header, if there is one.
        host_names: Lower-case names, besides addresses and ``localhost``, by which clients reach this server.

    Raises:
        Forbidden: The host is no address, not ``localhost`` and none of the names; or the origin is another
            site.
    """
    name = _name(host)
    if name != "localhost" and name not in host_names and not _is_address(name):
        raise Forbidden(
            "this server does not know itself by the name in the Host header: use its address, "
            "or set `host_names`",
            code="UNKNOWN_HOST",
        )
    if origin is not None and _place(origin) != host.lower():
        raise Forbidden("web pages of other sites may not use this API", code="FOREIGN_ORIGIN")


def _name(host: str) -> str:
    try:
        return (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:  # an unclosed bracket
        return ""


def _place(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:  # an unclosed bracket
        return None


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
